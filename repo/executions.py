"""The table executions: the first start of an execution turns it from pending to running."""

from collections.abc import Iterable
from typing import NamedTuple

from repo.database import Connection
from repo.errors import DataRefused, SchemaFault
from repo.statements import statement

_PROMOTE = statement("promote_execution")


class PromotionFailure(NamedTuple):
    """An execution that could not be promoted, and why."""

    exec_id: str
    reason: str


def promote(connection: Connection, exec_ids: Iterable[str]) -> list[PromotionFailure]:
    """Turn pending executions to running, inside the caller's transaction.

    Best effort: what the table refuses, or a table that is not there, is returned and does not
    raise, so that it never costs the rows of the runs.
    """
    names = [(exec_id,) for exec_id in exec_ids]
    if not names:
        return []
    try:
        with connection.savepoint():
            connection.execute_many(_PROMOTE, names)
    except (DataRefused, SchemaFault):
        return _promote_apart(connection, names)
    return []


def _promote_apart(connection: Connection, names: list[tuple[str]]) -> list[PromotionFailure]:
    failures = []
    for (exec_id,) in names:
        try:
            with connection.savepoint():
                connection.execute(_PROMOTE, (exec_id,))
        except (DataRefused, SchemaFault) as error:
            failures.append(PromotionFailure(exec_id, str(error)))
    return failures
