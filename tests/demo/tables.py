"""The demo's own connection to the database: what other programs write there, and what to read."""

import sqlite3
import time
from pathlib import Path
from typing import Any

from repo.statements import statement, texts
from tests.demo.fleet import Event, Execution
from worker.codec.timestamps import format_instant

Rows = dict[str, tuple[Any, ...]]
_RUNS = "SELECT * FROM execution_results ORDER BY result_id"
_EXECUTIONS = "SELECT * FROM executions ORDER BY exec_id"
_COUNTS = "SELECT (SELECT count(*) FROM execution_results), (SELECT count(*) FROM rejected_events)"
_SQL = {file.stem: file.read_text("utf-8") for file in Path(__file__).parent.glob("*.sql")}


class Tables:
    """The tables as the other programs of the fleet see them; `with` closes the connection."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None, timeout=5)
        self._connection.row_factory = sqlite3.Row

    def __enter__(self) -> "Tables":
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def deploy(self, execution: Execution) -> None:
        """Insert an execution, as the deployer does."""
        self._connection.execute(_SQL["insert_execution"], execution.row(started=False))

    def write_results(self, events: list[Event], *, before_their_starts: bool) -> None:
        """Write the results of runs in flight, or of runs whose start the worker gets later."""
        statement = "insert_finished_run" if before_their_starts else "finish_run"
        for event in events:
            values = {**(event.members or {}), "finished_at": format_instant(time.time_ns())}
            self._connection.execute(_SQL[statement], values)

    def query(self, name: str) -> list[sqlite3.Row]:
        """Return the rows of a statement of `sql/sqlite/queries`."""
        return self._connection.execute(texts("sqlite")[statement(name)]).fetchall()

    def runs(self) -> list[sqlite3.Row]:
        return self._connection.execute(_RUNS).fetchall()

    def executions(self) -> list[sqlite3.Row]:
        return self._connection.execute(_EXECUTIONS).fetchall()

    def counts(self) -> tuple[int, int]:
        """Return the numbers of runs and rejected events."""
        runs, rejected = self._connection.execute(_COUNTS).fetchone()
        return runs, rejected

    def finished_runs(self) -> Rows:
        """Return the finished runs by their ids."""
        return {row["result_id"]: tuple(row) for row in self.runs() if row["finished_at"]}

    def status(self, events: list[Event]) -> str:
        """Return the statuses of the executions that the events name; empty if they name none."""
        named = {event.members["exec_id"] for event in events if event.members is not None}
        found = {row["status"] for row in self.executions() if row["exec_id"] in named}
        return " ".join(sorted(found))
