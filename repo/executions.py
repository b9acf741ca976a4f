"""The table executions: their status, and the counts of their runs that have ended."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from repo import Connection
from repo.errors import ExecutionsBusy, RowRejected, TransientError
from repo.statements import statement

_FIND_PENDING = statement("find_pending_executions")
_FIND_STATUSES = statement("find_execution_statuses")
_PROMOTE = statement("promote_execution")
_COUNT = statement("count_ended_runs")
_COUNT_ALL = statement("count_all_ended_runs")
_MOVE = statement("move_reaped_runs")
_EXPIRE = statement("expire_execution")
_DELETE_OLD = statement("delete_old_executions")
_LIST_PENDING_AFTER = statement("list_pending_executions_after")
_COUNT_BY_STATUS = statement("executions_by_status")


class PendingPage(NamedTuple):
    """One page of the pending executions: those that have runs, the old ones without, the last id.

    `last` is None if no page follows.
    """

    with_runs: list[str]
    old: list[str]
    last: str | None


# Nothing is counted in executions of these; the first count of one takes all its ended runs.
_NOT_COUNTED = ("pending", "expired")


class Changed(NamedTuple):
    """How many executions were changed, and the pending ones that stayed: others hold them."""

    executions: int
    held: Sequence[str] = ()


def promote(connection: Connection, exec_ids: Sequence[str]) -> Changed:
    """Promote those executions that are pending and that no other transaction holds.

    Inside the caller's transaction. What has ended of their runs is counted. Raises RowRejected or
    SchemaError if one of them is rejected.
    """
    given = [(exec_id,) for exec_id in exec_ids]
    pending = [exec_id for (exec_id,) in connection.fetch_all(_FIND_PENDING, given)]
    free = connection.try_hold_counts(pending)
    promoted = {exec_id for exec_id in free if connection.execute(_PROMOTE, (exec_id,))}
    return Changed(len(promoted), [exec_id for exec_id in pending if exec_id not in promoted])


class EndedRun(NamedTuple):
    """A run that has just ended, or several alike, as far as its execution is concerned.

    `exec_id` is the execution that it counts for, None for none; `row_exec_id` the one that its row
    names. A `late` one has succeeded after it was given up, and counted as a failure then.
    """

    exec_id: str | None
    row_exec_id: str | None
    succeeded: bool
    late: bool = False
    runs: int = 1


@dataclass(slots=True)
class _Count:
    """How many runs are to be counted, and how many of them have rows of other executions."""

    succeeded: int = 0
    failed: int = 0
    others_succeeded: int = 0
    others_failed: int = 0

    def add(self, run: EndedRun) -> None:
        is_others = run.row_exec_id != run.exec_id
        if run.succeeded:
            self.succeeded += run.runs
            self.others_succeeded += is_others * run.runs
        else:
            self.failed += run.runs
            self.others_failed += is_others * run.runs


def count(connection: Connection, ended: Iterable[EndedRun]) -> None:
    """Count runs whose rows say in this transaction that they have ended.

    Each counts once: the first count of an execution takes all its ended runs, by their rows, and
    every later one adds. An execution without a row counts nothing. May raise RowRejected.
    """
    counts: defaultdict[str, _Count] = defaultdict(_Count)
    moved: Counter[str] = Counter()
    for run in ended:
        if run.late:
            if run.row_exec_id:
                moved[run.row_exec_id] += run.runs
        elif run.exec_id:
            counts[run.exec_id].add(run)
    # Each once and in order, as every worker locks them.
    exec_ids = sorted({*moved, *counts})
    try:
        statuses = _statuses(connection, exec_ids)
        first = [one for one in exec_ids if statuses.get(one, "pending") in _NOT_COUNTED]
        if first and connection.hold_counts(first):
            statuses |= _statuses(connection, first)
    except TransientError as error:
        raise ExecutionsBusy(str(error)) from error
    # First, since the first count of an execution finds a late success in its row already.
    for exec_id, runs in moved.items():
        if statuses.get(exec_id, "pending") not in _NOT_COUNTED:
            connection.execute(_MOVE, {"exec_id": exec_id, "runs": runs})
    for exec_id, one in counts.items():
        if statuses.get(exec_id, "pending") in _NOT_COUNTED:
            name, succeeded, failed = _COUNT_ALL, one.others_succeeded, one.others_failed
        else:
            name, succeeded, failed = _COUNT, one.succeeded, one.failed
        # Also without a row: a table that takes no count must be noticed.
        values = {"exec_id": exec_id, "succeeded": succeeded, "failed": failed}
        if not connection.execute(name, values) and exec_id in statuses:
            # RAISE(IGNORE) drops a count without an error: the row would say what no count does.
            raise RowRejected("a trigger on executions ignored the count without an error")


def _statuses(connection: Connection, exec_ids: Sequence[str]) -> dict[str, str]:
    """Return the statuses of those executions that exist, and lock their rows."""
    given = [(exec_id,) for exec_id in exec_ids]
    return dict(connection.fetch_all(_FIND_STATUSES, given))


def pending_after(
    connection: Connection, exec_id: str, old_before: str | None, limit: int
) -> PendingPage:
    """Return up to `limit` pending executions with an id above `exec_id`.

    Old is what was initiated before `old_before`, stored text; nothing where that is None.
    """
    rows = connection.fetch(_LIST_PENDING_AFTER, (old_before, exec_id, limit))
    return PendingPage(
        [pending for pending, has_runs, _ in rows if has_runs],
        [pending for pending, has_runs, is_old in rows if is_old and not has_runs],
        rows[-1][0] if len(rows) == limit else None,
    )


def expire(connection: Connection, exec_ids: Sequence[str]) -> Changed:
    """Expire pending executions that still have no runs.

    Inside the caller's transaction; raises as `promote`.
    """
    return Changed(connection.execute_many(_EXPIRE, [(exec_id,) for exec_id in exec_ids]))


def count_by_status(connection: Connection) -> dict[str, int]:
    """Return how many executions have each status that the worker knows, also where none has."""
    return dict(connection.fetch(_COUNT_BY_STATUS))


def delete_old(connection: Connection, initiated_before: str, limit: int) -> int:
    """Delete up to `limit` executions that were initiated before a time; return how many."""
    return connection.execute(_DELETE_OLD, (initiated_before, limit))
