"""The demo's own connection to the database: what other programs write there, and what to read."""

import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

from repo.statements import statement, texts
from tests.demo.fleet import Event, Execution

Rows = dict[str, tuple[Any, ...]]
_RUNS = "SELECT * FROM execution_results ORDER BY result_id"
_EXECUTIONS = "SELECT * FROM executions ORDER BY exec_id"
_COUNTS = """
SELECT count(*), coalesce(sum(finished_at IS NOT NULL AND reaped = 0), 0), coalesce(sum(reaped), 0),
    (SELECT count(*) FROM rejected_events)
FROM execution_results
"""
_SQL = {file.stem: file.read_text("utf-8") for file in Path(__file__).parent.glob("*.sql")}


class Counts(NamedTuple):
    """Numbers of rows: all runs, those with a result, those given up, and rejected events."""

    runs: int
    finished: int
    reaped: int
    rejected: int


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
        self._connection.execute(_SQL["insert_execution"], execution.row())

    def pass_deadline(self, result_ids: list[str]) -> None:
        """Move the deadlines of runs into the past; nobody but a demo does that."""
        for result_id in result_ids:
            self._connection.execute(_SQL["pass_deadline"], {"result_id": result_id})

    def query(self, name: str) -> list[sqlite3.Row]:
        """Return the rows of a statement of `sql/sqlite/queries`."""
        return self._connection.execute(texts("sqlite")[statement(name)]).fetchall()

    def runs(self) -> list[sqlite3.Row]:
        return self._connection.execute(_RUNS).fetchall()

    def executions(self) -> list[sqlite3.Row]:
        return self._connection.execute(_EXECUTIONS).fetchall()

    def counts(self) -> Counts:
        return Counts(*self._connection.execute(_COUNTS).fetchone())

    def finished_runs(self) -> Rows:
        """Return the runs that have their result, by their ids."""
        return {
            row["result_id"]: tuple(row)
            for row in self.runs()
            if row["finished_at"] and not row["reaped"]
        }

    def state(self, events: list[Event]) -> str:
        """Return status and counts of the execution that the events name; empty if they name none.

        Such as `running 3/1`: three runs have succeeded, one has not.
        """
        named = {event.members["exec_id"] for event in events if event.members is not None}
        found = [row for row in self.executions() if row["exec_id"] in named]
        if len(found) != 1:
            return ""
        return "{status} {success_count}/{failure_count}".format(**dict(found[0]))
