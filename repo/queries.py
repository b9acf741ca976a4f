"""The queries of commands and metrics: runs, rejected events, query plans; nothing here writes."""

from collections.abc import Iterable
from typing import Any, NamedTuple

from repo import Connection
from repo.errors import RepositoryError
from repo.execution_results import Run
from repo.rejected import Key
from repo.statements import Statement, statement

_LIST_IN_FLIGHT_AFTER = statement("list_runs_in_flight_after")
_COUNT = statement("count_runs_and_rejected_events")
_COUNT_WITHOUT_DEADLINE = statement("count_runs_without_deadline")
_FIND = statement("find_run")
_FIND_ENDED = statement("find_ended_run")
_REJECTION_REASON = statement("rejection_reason")


class InFlight(NamedTuple):
    """A run that has not ended. Times are stored text."""

    result_id: str
    exec_id: str | None
    pc_id: str
    job_id: str | None
    version: str | None
    started_at: str
    recorded_at: str
    expires_at: str | None


class Filters(NamedTuple):
    """Which runs: None lets everything through; `expires_before` is stored text."""

    job_id: str | None = None
    pc_id: str | None = None
    exec_id: str | None = None
    expires_before: str | None = None
    without_deadline: bool = False


class FoundRun(NamedTuple):
    """A run's row: what its start fills in, and how it ended, if it has."""

    run: Run
    finished_at: str | None
    reaped: bool


class FoundEnd(NamedTuple):
    """A run's row: what its result writes, and when the row's first message was stored."""

    request_id: str
    job_id: str | None
    exit_code: int | None
    stdout: str
    stderr: str
    finished_at: str | None
    reaped: bool
    recorded_at: str

    @property
    def has_result(self) -> bool:
        """Whether a result ended the run, and not the reaper."""
        return self.finished_at is not None and not self.reaped


class Counted(NamedTuple):
    """How many rows there are now; `rejected` ends at the bound that was given."""

    in_flight: int
    overdue: int
    without_deadline: int
    rejected: int


def list_in_flight_after(
    connection: Connection, last: InFlight | None, filters: Filters, limit: int
) -> list[InFlight]:
    """Return up to `limit` runs in flight that come after `last`, by their start."""
    started_at, result_id = (last.started_at, last.result_id) if last else ("", "")
    values = (started_at, started_at, result_id, *filters, limit)
    rows = connection.fetch(_LIST_IN_FLIGHT_AFTER, values)
    return [InFlight(*_texts(row)) for row in rows]


def _texts(values: Iterable[Any]) -> list[Any]:
    """Return values as texts: another program may have written a number for a time."""
    return [value if value is None else str(value) for value in values]


def can_have_row(connection: Connection, result_id: str) -> bool:
    """Return whether the engine can store an id; it may refuse even to look for another one."""
    try:
        result_id.encode("utf-8")  # an argument that is not UTF-8 has surrogates
    except UnicodeEncodeError:
        return False
    return connection.storable_text(result_id) == result_id


def find(connection: Connection, result_id: str) -> FoundRun | None:
    """Return a run's row, or None if it does not exist."""
    if not can_have_row(connection, result_id):
        return None
    rows = connection.fetch(_FIND, (result_id,))
    if not rows:
        return None
    *columns, reaped = rows[0]
    *texts, finished_at = _texts(columns)
    return FoundRun(Run(*texts), finished_at, bool(reaped))


def find_end(connection: Connection, result_id: str) -> FoundEnd | None:
    """Return a run's row as far as results write it, or None if it does not exist."""
    if not can_have_row(connection, result_id):
        return None
    rows = connection.fetch(_FIND_ENDED, (result_id,))
    return FoundEnd(*rows[0]) if rows else None


def rejection_reason(connection: Connection, key: Key) -> str | None:
    """Return why a message was rejected, or None if it was not rejected."""
    rows = connection.fetch(_REJECTION_REASON, key)
    return str(rows[0][0]) if rows else None


def count(connection: Connection, now: str, most_rejected: int) -> Counted:
    """Count the runs in flight, `now` being stored text, and the rejected events up to a bound."""
    with_deadline, overdue, without, rejected = connection.fetch(_COUNT, (now, most_rejected))[0]
    return Counted(with_deadline + without, overdue, without, rejected)


def count_without_deadline(connection: Connection, limit: int) -> dict[str | None, int]:
    """Count the runs in flight without a deadline by job, up to `limit` runs altogether."""
    return dict(connection.fetch(_COUNT_WITHOUT_DEADLINE, (limit,)))


class Plan(NamedTuple):
    """The engine's steps for a statement; or why the statement does not fit the tables."""

    steps: list[str]
    error: str = ""


def plan(connection: Connection, name: Statement) -> Plan:
    """Return how the engine would run a statement on the tables as they are; nothing is run."""
    try:
        return Plan(connection.plan(name))
    except RepositoryError as error:
        return Plan([], str(error))
