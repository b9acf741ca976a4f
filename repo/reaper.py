"""The reaper: runs whose deadline has passed without a result are given up."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from repo import Connection, executions, queries
from repo.errors import RowRejected, SchemaError, TransactionAborted
from repo.execution_results import IGNORED
from repo.executions import EndedRun
from repo.statements import statement

_LIST_OVERDUE = statement("list_overdue_runs")
_LIST_OVERDUE_WITHOUT_DEADLINE = statement("list_overdue_runs_without_deadline")
_COUNT_UNREADABLE = statement("count_unreadable_times")
_REAP = statement("reap_run")

NOTE = "[projector: given up, no result by the deadline]"


class Overdue(NamedTuple):
    """A run in flight that is overdue; `expires_at` is None where it has no deadline."""

    result_id: str
    exec_id: str | None
    job_id: str | None
    pc_id: str
    expires_at: str | None


@dataclass(slots=True)
class Reaping:
    """One pass of the reaper, which `Repository.reap` takes on by one page.

    Overdue is a run in flight whose deadline is before `expires_before`, or that has none and was
    stored before `recorded_before`. It ends at `now`. All are stored text. `failures` are the runs
    that the tables reject, by result_id, with the reason.
    """

    now: str
    expires_before: str
    recorded_before: str
    failures: dict[str, str] = field(default_factory=dict)
    is_complete: bool = False


def list_overdue(
    connection: Connection, expires_before: str, recorded_before: str, limit: int
) -> list[Overdue]:
    """Return up to `limit` overdue runs: those with a deadline first, the longest overdue first."""
    rows = connection.fetch(_LIST_OVERDUE, (expires_before, limit))
    if len(rows) < limit:
        rest = limit - len(rows)
        rows += connection.fetch(_LIST_OVERDUE_WITHOUT_DEADLINE, (recorded_before, rest))
    return [Overdue(*row) for row in rows]


def reap(connection: Connection, reaping: Reaping, limit: int) -> list[Overdue]:
    """Give up overdue runs and count each as a failure; return them.

    Inside the caller's transaction. Raises RowRejected or SchemaError if one of them, or a count,
    is rejected.
    """
    return _give_up(connection, page(connection, reaping, limit), reaping.now)


def reap_each(connection: Connection, reaping: Reaping, limit: int) -> list[Overdue]:
    """Give up overdue runs as `reap` does, but one by one, so that a rejected one costs itself.

    Raises TransactionAborted if one of them, which is among the failures then, ends the
    transaction.
    """
    reaped: list[Overdue] = []
    for run in page(connection, reaping, limit):
        try:
            with connection.savepoint():
                reaped += _give_up(connection, [run], reaping.now)
        except (RowRejected, SchemaError) as error:
            reaping.failures[run.result_id] = str(error)
        except TransactionAborted as error:
            reaping.failures[run.result_id] = str(error)
            raise
    return reaped


def page(connection: Connection, reaping: Reaping, limit: int) -> list[Overdue]:
    """Return the next runs to give up, the longest overdue first, without those that failed."""
    most = limit + len(reaping.failures)
    found = list_overdue(connection, reaping.expires_before, reaping.recorded_before, most)
    return [run for run in found if run.result_id not in reaping.failures][:limit]


def _give_up(connection: Connection, runs: Sequence[Overdue], now: str) -> list[Overdue]:
    """Return those that were given up, in the given order; another worker may have ended some."""
    # In the order in which every worker locks runs.
    in_order = sorted(run.result_id for run in runs)
    reaped = {one for one in in_order if connection.execute(_REAP, (now, NOTE, one))}
    for result_id in in_order:
        if result_id not in reaped and _is_in_flight(connection, result_id):
            raise RowRejected(IGNORED)
    given_up = [run for run in runs if run.result_id in reaped]
    executions.count(
        connection, (EndedRun(run.exec_id, run.exec_id, succeeded=False) for run in given_up)
    )
    return given_up


def _is_in_flight(connection: Connection, result_id: str) -> bool:
    found = queries.find(connection, result_id)
    return found is not None and found.finished_at is None


def count_unreadable(connection: Connection, expires_before: str, recorded_before: str) -> int:
    """Return how many runs in flight are never given up, since a time of theirs is no stored text.

    That is their deadline or, if they have none, when they were stored. Text that sorts between the
    limit and a later year is found once the limit has passed it.
    """
    values = {"expires_before": expires_before, "recorded_before": recorded_before}
    return int(connection.fetch(_COUNT_UNREADABLE, values)[0][0])
