"""The table executions: the first start of an execution turns it from pending to running."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

from repo import Connection
from repo.errors import RowRejected, SchemaError
from repo.statements import statement
from repo.writer import PromotionFailure

_PROMOTE = statement("promote_execution")


def promote_together(connection: Connection, exec_ids: Sequence[str]) -> None:
    """Turn pending executions to running, inside the caller's transaction.

    Raises RowRejected or SchemaError if one of them is rejected.
    """
    if exec_ids:
        connection.execute_many(_PROMOTE, [(exec_id,) for exec_id in exec_ids])


def promote_apart(connection: Connection, exec_ids: Sequence[str]) -> list[PromotionFailure]:
    """Turn pending executions to running, one by one, inside the caller's transaction.

    Best effort: a rejection or a missing table is returned, not raised, so that it never costs the
    rows of the runs. Raises TransactionAborted if the transaction and its rows are lost already;
    then `promote_afterwards` follows.
    """
    return _promote(connection, exec_ids, connection.savepoint)


def promote_afterwards(connection: Connection, exec_ids: Sequence[str]) -> list[PromotionFailure]:
    """Turn pending executions to running, each in a transaction of its own; best effort."""
    return _promote(connection, exec_ids, connection.write)


def _promote(
    connection: Connection,
    exec_ids: Sequence[str],
    scope: Callable[[], AbstractContextManager[None]],
) -> list[PromotionFailure]:
    failures = []
    for exec_id in exec_ids:
        try:
            with scope():
                connection.execute(_PROMOTE, (exec_id,))
        except (RowRejected, SchemaError) as error:
            failures.append(PromotionFailure(exec_id, str(error)))
    return failures
