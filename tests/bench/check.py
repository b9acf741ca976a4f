"""Is everything there, exactly as it must be? A benchmark that loses events is void."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path

from tests.bench.data import DataSet
from tests.bench.process import BenchFailed
from tests.support.events import stored_text

_EXACT_TIMES = 40

_RUNS = """
    SELECT result_id, request_id, exec_id, pc_id, started_at, version, job_id
    FROM execution_results WHERE rowid > ? AND finished_at IS NULL AND expires_at > recorded_at
"""
_COUNT = """
    SELECT
        (SELECT count(*) FROM execution_results) AS runs,
        (SELECT count(*) FROM executions WHERE status = 'running') AS running,
        (SELECT count(*) FROM executions) AS executions,
        (SELECT count(*) FROM rejected_events) AS rejected
"""
_TIMES = "SELECT recorded_at, expires_at FROM execution_results WHERE result_id = ?"


def check(
    path: Path, data: DataSet, old_rows: int, stored_at: Callable[[int], str] | None = None
) -> None:
    """Raise BenchFailed unless the tables hold what the events say, and nothing else.

    Every value of every row counts. Times of record and deadlines are compared with what the broker
    tells, which `stored_at` asks it for a stream sequence, for some rows spread over all.
    """
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        executions = -(-data.events // 50)
        found = connection.execute(_COUNT).fetchone()
        expected = (old_rows + data.events, executions, executions, 0)
        if found != expected:
            raise BenchFailed(f"rows, running, executions, rejected: {found}, expected {expected}")
        if digest(connection.execute(_RUNS, (old_rows,))) != digest(each.row() for each in data):
            raise BenchFailed("the rows are not those of the events")
        if stored_at is not None:
            _check_times(connection, data, stored_at)


def digest(rows: Iterable[tuple[str, ...]]) -> int:
    """Return a number that equal sets of rows share, whatever their order."""
    total = 0
    for row in rows:
        total += int.from_bytes(hashlib.blake2b("\n".join(row).encode(), digest_size=16).digest())
    return total


def _check_times(
    connection: sqlite3.Connection, data: DataSet, stored_at: Callable[[int], str]
) -> None:
    step = max(1, data.events // _EXACT_TIMES)
    for sequence, event in enumerate(data, start=1):
        if sequence % step:
            continue
        told = stored_at(sequence)
        expected = (stored_text(told), stored_text(told, plus=event.deadline_after))
        found = connection.execute(_TIMES, (event.result_id,)).fetchone()
        if found != expected:
            raise BenchFailed(f"times of {event.result_id}: {found}, expected {expected}")
