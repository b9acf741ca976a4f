"""The databases of a run: migrated once for each checkout, copied for each measurement, checked."""

import shutil
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

from tests.bench.data import BROADCAST, TIMEOUTS, make_events, make_results
from tests.bench.process import BenchFailed, run
from tests.bench.rivals import make_runs, parse_timeouts, write_batch
from tests.support.events import stored_text

_TIMES_CHECKED = 40
# Runs in flight are stored so far ahead of the measurement that none of them is overdue.
_AHEAD = 7 * 86_400 * 10**9
_INSERT_EXECUTION = """
    INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, target_count)
    VALUES (?, ?, '2.4.1', 'benchmark', '2026-05-20T11:59:00+00:00', ?)
"""
_ENDS = "SELECT result_id, exit_code, stdout FROM execution_results ORDER BY started_at"
_COUNTS = """
    SELECT count(*), sum(success_count), sum(failure_count), sum(status = 'completed')
    FROM executions
"""
_RUNS = """
    SELECT result_id, request_id, exec_id, pc_id, started_at, version, job_id,
           recorded_at, expires_at
    FROM execution_results WHERE finished_at IS NULL ORDER BY started_at
"""


def fresh_database(
    folder: Path, projector: Path, count: int, size: int = BROADCAST, *, in_flight: bool = False
) -> Path:
    """Return a database with the pending executions of `count` events, in broadcasts of a size.

    It has no runs, or all of them `in_flight`. `projector` is the command that migrates it: another
    checkout may have another schema.
    """
    template = folder / f"{str(projector).replace('/', '-')}-{count}-{size}-{in_flight}.db"
    if not template.exists():
        run(
            [str(projector), "migrate", "--database", f"sqlite:///{template}"],
            folder / "migrate.log",
        )
        members = (event.members for event in make_events(count, size))
        executions = dict.fromkeys((each["exec_id"], each["manifest_id"]) for each in members)
        with closing(sqlite3.connect(template)) as connection, connection:
            connection.executemany(_INSERT_EXECUTION, ((*each, size) for each in executions))
        if in_flight:
            stored_at = time.time_ns() + _AHEAD
            messages = ((event.payload, stored_at) for event in make_events(count, size))
            runs = make_runs(messages, parse_timeouts(TIMEOUTS))
            with closing(sqlite3.connect(template, isolation_level=None)) as connection:
                write_batch(connection, runs)
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    path = folder / "measured.db"
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(template, path)
    return path


def check_tables(path: Path, count: int, stored_at: Callable[[int], str] | None = None) -> None:
    """Raise BenchFailed unless the tables hold exactly what the events say.

    `stored_at` returns when the server stored a stream sequence; some rows are compared with it.
    """
    step = max(1, count // _TIMES_CHECKED)
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        rows = connection.execute(_RUNS)
        for sequence, (event, row) in enumerate(zip_longest(make_events(count), rows), start=1):
            if event is None or row is None or row[:-2] != event.row():
                expected = event and event.row()
                raise BenchFailed(f"row {sequence} is {row}, expected {expected}")
            recorded_at, expires_at = row[-2:]
            instant = recorded_at.removesuffix("+00:00")
            if stored_at is not None and sequence % step == 0:
                instant = stored_at(sequence)
            expected = (stored_text(instant), stored_text(instant, plus=event.deadline_after))
            if (recorded_at, expires_at) != expected:
                raise BenchFailed(f"the times of row {sequence} are {row[-2:]}, not {expected}")
        statuses = "SELECT status, count(*) FROM executions GROUP BY status"
        running = [("running", -(-count // BROADCAST))]
        if (found := connection.execute(statuses).fetchall()) != running:
            raise BenchFailed(f"executions by status: {found}, expected {running}")
        if connection.execute("SELECT count(*) FROM rejected_events").fetchone() != (0,):
            raise BenchFailed("valid events were rejected")


def check_ends(path: Path, count: int, size: int = BROADCAST) -> None:
    """Raise BenchFailed unless each run ended as its result says, and is counted once."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        for result, row in zip_longest(make_results(count, size), connection.execute(_ENDS)):
            names = ("result_id", "exit_code", "stdout")
            if result is None or row != tuple(result.members[name] for name in names):
                raise BenchFailed(f"the run {row and row[0]} did not end as its result says")
        failed, executions = -(-count // 4), -(-count // size)
        expected = (executions, count - failed, failed, count // size)
        if (found := connection.execute(_COUNTS).fetchone()) != expected:
            raise BenchFailed(f"executions and counts: {found}, expected {expected}")
        if connection.execute("SELECT count(*) FROM rejected_events").fetchone() != (0,):
            raise BenchFailed("valid results were rejected")
