"""The queries of commands about executions and ended runs; nothing here writes."""

from typing import NamedTuple

from repo import Connection
from repo.statements import statement

_FIND_EXECUTION = statement("find_execution")
_LIST_EXECUTIONS_BEFORE = statement("list_executions_before")
_COUNT_RUNS = statement("count_runs_of_execution")
_LIST_ENDED_BEFORE = statement("list_ended_runs_before")
_LIST_ENDED_OF_EXECUTION_BEFORE = statement("list_ended_runs_of_execution_before")
_COUNT_OLD_EXECUTIONS = statement("count_old_executions")
_COUNT_OLD_RUNS = statement("count_old_runs")

# Above every time in stored form.
_AFTER_ALL = "~"


class Execution(NamedTuple):
    """A row of executions. `initiated_at` is stored text."""

    exec_id: str
    job_id: str
    version: str
    initiated_by: str
    initiated_at: str
    status: str
    target_count: int
    success_count: int
    failure_count: int


class RunCounts(NamedTuple):
    """How many runs of an execution have rows, by how far they are."""

    in_flight: int
    succeeded: int
    failed: int
    reaped: int


class Ended(NamedTuple):
    """A run that has ended. Times are stored text."""

    result_id: str
    exec_id: str | None
    pc_id: str
    job_id: str | None
    version: str | None
    started_at: str
    recorded_at: str
    finished_at: str
    exit_code: int | None
    reaped: int


class EndedFilters(NamedTuple):
    """Which ended runs: None lets everything through, `failed` those with another code than 0."""

    job_id: str | None = None
    pc_id: str | None = None
    exec_id: str | None = None
    failed: bool = False


def find_execution(connection: Connection, exec_id: str) -> Execution | None:
    """Return an execution, or None if it does not exist."""
    rows = connection.fetch(_FIND_EXECUTION, (exec_id,))
    return Execution(*rows[0]) if rows else None


def list_executions_before(
    connection: Connection,
    last: Execution | None,
    status: str | None,
    job_id: str | None,
    limit: int,
) -> list[Execution]:
    """Return up to `limit` executions that were initiated before `last`, newest first."""
    at, exec_id = (last.initiated_at, last.exec_id) if last else (_AFTER_ALL, "")
    values = (at, at, exec_id, status, job_id, limit)
    return [Execution(*row) for row in connection.fetch(_LIST_EXECUTIONS_BEFORE, values)]


def count_runs(connection: Connection, exec_id: str) -> RunCounts:
    """Count the runs whose rows name an execution."""
    return RunCounts(*connection.fetch(_COUNT_RUNS, (exec_id,))[0])


def list_ended_before(
    connection: Connection, last: Ended | None, filters: EndedFilters, limit: int
) -> list[Ended]:
    """Return up to `limit` ended runs that were stored before `last`, newest first."""
    at, result_id = (last.recorded_at, last.result_id) if last else (_AFTER_ALL, "")
    job_id, pc_id, exec_id, failed = filters
    values = (at, at, result_id, job_id, pc_id, failed, limit)
    if exec_id is None:
        rows = connection.fetch(_LIST_ENDED_BEFORE, values)
    else:
        rows = connection.fetch(_LIST_ENDED_OF_EXECUTION_BEFORE, (exec_id, *values))
    return [Ended(*row) for row in rows]


def count_old_executions(connection: Connection, before: str, most: int) -> int:
    """Return how many executions were initiated before a time, at most `most`."""
    return int(connection.fetch(_COUNT_OLD_EXECUTIONS, (before, most))[0][0])


def count_old_runs(connection: Connection, before: str, most: int) -> int:
    """Return how many ended runs were stored before a time, at most `most`."""
    return int(connection.fetch(_COUNT_OLD_RUNS, (before, most))[0][0])
