"""The demo's own connection to the database: what other programs write there, and what to read."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from repo.statements import STATEMENTS
from tests.demo.fleet import Event, Execution
from worker.codec.timestamps import format_instant

Rows = dict[str, tuple[Any, ...]]
_FOLDER = Path(__file__).parent
_INSERT_EXECUTION, _INSERT_FINISHED_RUN, _FINISH_RUN, _COUNT_ROWS, _ALL_RUNS, _ALL_EXECUTIONS = (
    (_FOLDER / f"{name}.sql").read_text("utf-8")
    for name in (
        "insert_execution",
        "insert_finished_run",
        "finish_run",
        "count_rows",
        "all_runs",
        "all_executions",
    )
)


class Tables:
    """The tables as the other programs of the fleet see them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def deploy(self, *executions: Execution) -> None:
        """Insert executions, as the program that deploys does before the agents hear of them."""
        for execution in executions:
            self._connection.execute(_INSERT_EXECUTION, execution.row)

    def write_results_first(self, events: list[Event]) -> None:
        """Write finished runs whose start the worker has not seen yet."""
        for event in events:
            self._connection.execute(
                _INSERT_FINISHED_RUN, {**(event.members or {}), "finished_at": _now()}
            )

    def finish(self, events: list[Event]) -> None:
        """Write the results of runs that are in flight."""
        for event in events:
            self._connection.execute(
                _FINISH_RUN, {"result_id": event.result_id, "finished_at": _now()}
            )

    def counts(self) -> tuple[int, int]:
        """Return how many runs and how many rejected events there are."""
        runs, rejected = self._connection.execute(_COUNT_ROWS).fetchone()
        return runs, rejected

    def runs(self) -> list[sqlite3.Row]:
        """Return every run, whole."""
        return self._connection.execute(_ALL_RUNS).fetchall()

    def finished_runs(self) -> Rows:
        """Return the finished runs by their ids."""
        return {
            row["result_id"]: tuple(row) for row in self.runs() if row["finished_at"] is not None
        }

    def executions(self) -> list[sqlite3.Row]:
        """Return every execution, whole."""
        return self._connection.execute(_ALL_EXECUTIONS).fetchall()

    def statuses(self, events: list[Event]) -> list[str]:
        """Return the status of each execution that some events name."""
        named = {event.members["exec_id"] for event in events if event.members is not None}
        return [row["status"] for row in self.executions() if row["exec_id"] in named]

    def query(self, name: str) -> list[sqlite3.Row]:
        """Return what a named query of `sql/sqlite/queries` finds."""
        return self._connection.execute(STATEMENTS[name]).fetchall()


@contextmanager
def opened(path: Path) -> Iterator[Tables]:
    """Open the database that the worker has made."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=5)
    try:
        connection.row_factory = sqlite3.Row
        yield Tables(connection)
    finally:
        connection.close()


def _now() -> str:
    return format_instant(time.time_ns())
