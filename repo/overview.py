"""The queries of the page for the browser, each bounded in rows; nothing here writes."""

from typing import NamedTuple

from repo import Connection
from repo.statements import statement

_COUNT_BY_JOB = statement("count_runs_in_flight_by_job")
_COUNT_BY_REASON = statement("rejected_events_by_reason")


class JobCount(NamedTuple):
    """The runs in flight of one job. `first_recorded_at` is stored text, by the broker's clock."""

    job_id: str | None
    runs: int
    overdue: int
    without_deadline: int
    first_recorded_at: str


class ReasonCount(NamedTuple):
    """The events that were rejected for one reason. `last_rejected_at` is stored text."""

    reason: str
    events: int
    last_rejected_at: str


def count_by_job(connection: Connection, now: str, most_runs: int, limit: int) -> list[JobCount]:
    """Count the runs in flight by job, the most overdue first; `now` is stored text.

    Of the runs that were started first, `most_runs` are counted.
    """
    rows = connection.fetch(_COUNT_BY_JOB, (now, most_runs, limit))
    return [JobCount(*row) for row in rows]


def count_by_reason(connection: Connection) -> list[ReasonCount]:
    """Count the 10 000 newest rejected events by reason, the most frequent of up to 100 first."""
    return [ReasonCount(*row) for row in connection.fetch(_COUNT_BY_REASON)]
