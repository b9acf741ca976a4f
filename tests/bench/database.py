"""The databases of a run: migrated once for each checkout, copied for each measurement, checked."""

import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from itertools import zip_longest
from pathlib import Path

from tests.bench.data import BROADCAST, make_events
from tests.bench.process import BenchFailed, run
from tests.support.times import stored_text

_TIMES_CHECKED = 40
_INSERT_EXECUTION = """
    INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, target_count)
    VALUES (?, ?, '2.4.1', 'benchmark', '2026-05-20T11:59:00+00:00', ?)
"""
_RUNS = """
    SELECT result_id, request_id, exec_id, pc_id, started_at, version, job_id,
           recorded_at, expires_at
    FROM execution_results WHERE finished_at IS NULL ORDER BY started_at
"""


def fresh_database(folder: Path, projector: Path, count: int) -> Path:
    """Return a database with the pending executions of `count` events and no runs.

    `projector` is the command that migrates it: another checkout may have another schema.
    """
    template = folder / f"{str(projector).replace('/', '-')}-{count}.db"
    if not template.exists():
        run(
            [str(projector), "migrate", "--database", f"sqlite:///{template}"],
            folder / "migrate.log",
        )
        members = (event.members for event in make_events(count))
        executions = dict.fromkeys((each["exec_id"], each["manifest_id"]) for each in members)
        with closing(sqlite3.connect(template)) as connection, connection:
            connection.executemany(_INSERT_EXECUTION, ((*each, BROADCAST) for each in executions))
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
