"""The table executions: the first start of an execution turns it from pending to running."""

from collections.abc import Sequence

from repo import Connection
from repo.statements import statement

_PROMOTE = statement("promote_execution")


def promote(connection: Connection, exec_ids: Sequence[str]) -> None:
    """Turn pending executions to running, inside the caller's transaction.

    Raises RowRejected or SchemaError if one of them is rejected.
    """
    if exec_ids:
        connection.execute_many(_PROMOTE, [(exec_id,) for exec_id in exec_ids])
