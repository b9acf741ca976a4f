"""The table executions: the first start of an execution turns it from pending to running."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple

from repo.errors import RowRejected, SchemaError
from repo.sqlite.database import Connection
from repo.statements import statement

_PROMOTE = statement("promote_execution")


class PromotionFailure(NamedTuple):
    """An execution that could not be promoted, and why."""

    exec_id: str
    reason: str


def promote_together(connection: Connection, exec_ids: Sequence[str]) -> None:
    """Turn pending executions to running, inside the caller's transaction.

    Raises RowRejected or SchemaError where one of them is refused.
    """
    if exec_ids:
        connection.execute_many(_PROMOTE, [(exec_id,) for exec_id in exec_ids])


def promote(connection: Connection, exec_ids: Sequence[str]) -> list[PromotionFailure]:
    """Turn pending executions to running, one by one, inside the caller's transaction.

    Best effort: what the table refuses, or a table that is not there, is returned and does not
    raise, so that it never costs the rows of the runs. Raises TransactionAborted where they are
    lost already; `promote_each` is for after that.
    """
    return _promote_apart(connection, exec_ids, connection.savepoint)


def promote_each(connection: Connection, exec_ids: Sequence[str]) -> list[PromotionFailure]:
    """Turn pending executions to running, each in a transaction of its own; best effort."""
    return _promote_apart(connection, exec_ids, connection.write)


def _promote_apart(
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
