"""The database as other programs see it: read through read-only connections of its own."""

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.support.commands import run_here

Row = dict[str, Any]


class Rows:
    engine = "sqlite"

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def url(self) -> str:
        return f"sqlite:///{self.path}"

    def migrate(self) -> None:
        done = run_here("migrate", "--database", self.url)
        assert done.code == 0, done

    def query(self, sql: str, *values: object) -> list[Row]:
        with closing(sqlite3.connect(f"file:{self.path}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(sql, values)]

    def count(self, table: str = "execution_results") -> int:
        return int(self.query(f"SELECT count(*) AS n FROM {table}")[0]["n"])

    def result_ids(self) -> list[str]:
        found = self.query("SELECT result_id FROM execution_results ORDER BY result_id")
        return [row["result_id"] for row in found]

    def run(self, result_id: str) -> Row | None:
        found = self.query("SELECT * FROM execution_results WHERE result_id = ?", result_id)
        return found[0] if found else None

    def rejected(self) -> list[Row]:
        return self.query("SELECT * FROM rejected_events ORDER BY rejected_id")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the write lock, as another program may."""
        with closing(sqlite3.connect(self.path, isolation_level=None, timeout=5)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield
            connection.execute("ROLLBACK")

    def write(self, sql: str, *values: object) -> None:
        """Run one statement in a transaction, as another program may."""
        with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            connection.execute(sql, values)

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        """Insert rows, which have the same columns."""
        names = ", ".join(rows[0])
        sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join('?' * len(rows[0]))})"
        with closing(sqlite3.connect(self.path, timeout=5)) as connection, connection:
            connection.executemany(sql, [tuple(row.values()) for row in rows])

    def refuse_updates(self, table: str) -> None:
        """Add a trigger that rejects each update of a table."""
        rule = "SELECT RAISE(ABORT, 'frozen')"
        self.write(f"CREATE TRIGGER frozen BEFORE UPDATE ON {table} BEGIN {rule}; END")

    def insert_execution(self, exec_id: str, targets: int, status: str = "pending") -> None:
        """Insert an execution, as the program that deploys does."""
        columns = "exec_id, job_id, version, initiated_by, target_count, status"
        self.write(
            f"INSERT INTO executions ({columns}) VALUES (?, 'job-1', '1', 'operator', ?, ?)",
            *(exec_id, targets, status),
        )

    def execution(self, exec_id: str) -> str:
        """Return an execution's counts and status as `success/failure status`."""
        (row,) = self.query("SELECT * FROM executions WHERE exec_id = ?", exec_id)
        return f"{row['success_count']}/{row['failure_count']} {row['status']}"

    def insert_in_flight(self, result_id: str) -> None:
        """Insert a run in flight, as its start makes it."""
        columns = "result_id, request_id, pc_id, started_at, recorded_at"
        self.write(
            f"INSERT INTO execution_results ({columns}) VALUES (?, 'request', 'pc', ?, ?)",
            *(result_id, *("2026-05-20T12:00:00+00:00",) * 2),
        )

    def insert_finished(self, result_id: str) -> None:
        """Insert a finished run, as the program that projects results may before its start."""
        columns = "result_id, request_id, pc_id, exit_code, started_at, finished_at, recorded_at"
        self.write(
            f"INSERT INTO execution_results ({columns}) VALUES (?, 'request', 'pc', 0, ?, ?, ?)",
            *(result_id, *("2026-05-20T12:00:00+00:00",) * 3),
        )
