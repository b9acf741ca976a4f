"""The table executions: an execution with runs turns from pending to running, or to completed."""

from collections.abc import Sequence
from typing import NamedTuple

from repo import Connection
from repo.statements import statement

_PROMOTE = statement("promote_execution")
_LIST_PENDING_AFTER = statement("list_pending_executions_after")


class PendingPage(NamedTuple):
    """One page of the pending executions: those that have runs, and the last id.

    `last` is None if no page follows.
    """

    with_runs: list[str]
    last: str | None


def promote(connection: Connection, exec_ids: Sequence[str]) -> int:
    """Promote pending executions, inside the caller's transaction; return how many were pending.

    What has ended of their runs is counted. Raises RowRejected or SchemaError if one of them is
    rejected.
    """
    if not exec_ids:
        return 0
    return connection.execute_many(_PROMOTE, [(exec_id,) for exec_id in exec_ids])


def pending_after(connection: Connection, exec_id: str, limit: int) -> PendingPage:
    """Return up to `limit` pending executions with an id above `exec_id`."""
    rows = connection.fetch(_LIST_PENDING_AFTER, (exec_id, limit))
    last = rows[-1][0] if len(rows) == limit else None
    return PendingPage([pending for pending, has_runs in rows if has_runs], last)
