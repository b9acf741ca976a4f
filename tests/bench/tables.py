"""Databases to measure with: migrated as in production, filled once, copied each time."""

import random
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from tests.bench.data import DataSet
from worker.schema import migrate

_CACHE_KIB = 2_000_000
_IN_FLIGHT_ONE_IN = 100
_ROWS_A_COMMIT = 100_000

_INSERT_EXECUTION = """
    INSERT INTO executions
        (exec_id, job_id, version, initiated_by, initiated_at, target_count)
    VALUES (?, ?, '2.4.1', 'benchmark', '2026-05-20T11:59:00+00:00', 50)
"""
_INSERT_OLD_RUN = """
    INSERT INTO execution_results
        (result_id, request_id, exec_id, pc_id, exit_code, started_at, finished_at, recorded_at,
         job_id, version, expires_at)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, '2.4.0', ?)
"""


class Templates:
    """Keeps the filled databases of one run of the benchmark in a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def copy(self, data: DataSet, old_rows: int, to: Path) -> None:
        """Make a database with so many runs of earlier, and the pending executions of `data`."""
        for suffix in ("-wal", "-shm"):
            to.with_name(to.name + suffix).unlink(missing_ok=True)
        shutil.copyfile(self._with_old_rows(old_rows), to)
        with closing(_opened_fast(to)) as connection:
            connection.execute("BEGIN")
            connection.executemany(_INSERT_EXECUTION, data.executions())
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _with_old_rows(self, rows: int) -> Path:
        path = self._folder / f"rows-{rows}.db"
        if path.exists():
            return path
        unfinished = path.with_suffix(".new")
        unfinished.unlink(missing_ok=True)
        migrate(f"sqlite:///{unfinished}")
        with closing(_opened_fast(unfinished)) as connection:
            connection.execute("BEGIN")
            for number, row in enumerate(_old_runs(rows), start=1):
                connection.execute(_INSERT_OLD_RUN, row)
                if number % _ROWS_A_COMMIT == 0:
                    connection.execute("COMMIT")
                    connection.execute("BEGIN")
            connection.execute("COMMIT")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return unfinished.rename(path)


def _opened_fast(path: Path) -> sqlite3.Connection:
    """Open a database to fill it; these settings are for the filling alone and end with it."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
    return connection


def _old_runs(rows: int) -> Iterator[tuple[str | int | None, ...]]:
    """Yield runs of the days before with random keys; one in a hundred is still in flight."""
    choice = random.Random(19)
    for number in range(rows):
        day, minute = 1 + number % 19, number // 19 % 1440
        started_at = f"2026-05-{day:02}T{minute // 60:02}:{minute % 60:02}:00.{number % 10**9:09}"
        in_flight = choice.randrange(_IN_FLIGHT_ONE_IN) == 0
        yield (
            _id(choice),
            _id(choice),
            _id(choice),
            f"pc-{choice.randrange(5000):05}",
            None if in_flight else 0,
            f"{started_at}+00:00",
            None if in_flight else f"2026-05-{day:02}T23:59:59+00:00",
            f"{started_at}+00:00",
            f"manifest-{choice.randrange(20):05}",
            "2026-05-21T00:00:00+00:00",
        )


def _id(choice: random.Random) -> str:
    return str(uuid.UUID(int=choice.getrandbits(128), version=4))
