"""Rows as the projection makes them, and a database file that tests write to and look into."""

import sqlite3
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

from repo.batch_writer import WriteResult
from repo.checkpoint import Position
from repo.execution_results import START_WRITER, Run
from repo.rejected import RejectedEvent
from repo.repository import Repository as AnyRepository
from repo.results import Result, result_writer
from repo.sqlite.database import Database

Repository = AnyRepository[Run]

STARTED_AT = "2026-05-20T12:00:00.123456789+00:00"
RECORDED_AT = "2026-05-20T12:00:01.500+00:00"
EXPIRES_AT = "2026-05-20T12:02:21.500+00:00"
REJECTED_AT = "2026-05-20T12:00:02+00:00"

INSERT_EXECUTION = """
INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, target_count, status)
VALUES (?, 'job-1', '1.0.0', 'operator', '2026-05-20T11:59:59+00:00', 3, ?)
"""


def run(result_id: str, **columns: Any) -> Run:
    plain = Run(
        result_id=result_id,
        request_id="request-1",
        exec_id="execution-1",
        pc_id=f"pc-of-{result_id}",
        started_at=STARTED_AT,
        version="1.0.0",
        job_id="job-1",
        recorded_at=RECORDED_AT,
        expires_at=EXPIRES_AT,
    )
    return plain._replace(**columns)


def result(result_id: str, **columns: Any) -> Result:
    plain = Result(
        result_id=result_id,
        request_id="request-1",
        exec_id="execution-1",
        pc_id=f"pc-of-{result_id}",
        started_at=STARTED_AT,
        exit_code=0,
        stdout="o",
        stderr="",
        finished_at="2026-05-20T12:00:05+00:00",
        job_id="job-1",
        recorded_at="2026-05-20T12:00:06+00:00",
        skipped=False,
        parent_result_id=None,
        stream_sequence=1,
    )
    return plain._replace(**columns)


def runs(count: int, *, bad: Sequence[int] = ()) -> list[Run]:
    """Return runs r0, r1, ...; the ones at the positions `bad` have pc_id "bad"."""
    return [
        run(f"r{index}", **({"pc_id": "bad"} if index in bad else {})) for index in range(count)
    ]


def rejected_event(stream_sequence: int = 1, **columns: Any) -> RejectedEvent:
    plain = RejectedEvent(
        stream="EVENTS",
        stream_sequence=stream_sequence,
        recorded_at=RECORDED_AT,
        subject="events.started.execution-1.pc-1",
        payload=b"not JSON",
        reason="expected a JSON object",
        rejected_at=REJECTED_AT,
    )
    return plain._replace(**columns)


def reject_of(batch: Sequence[Run | Result]) -> Callable[[int, str], RejectedEvent]:
    """Reject a row with its index + 1 as sequence and its result_id as payload."""

    def reject(index: int, reason: str) -> RejectedEvent:
        payload = batch[index].result_id.encode("utf-8", "replace")
        return rejected_event(index + 1, payload=payload, reason=reason)

    return reject


class Db:
    """A database file: written to by a repository, and read and changed as by another program."""

    engine = "sqlite"
    rejection = r"SQLITE_CONSTRAINT"  # what the reason of a row says that a rule rejects

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite:///{quote(str(path))}"
        self.database = Database(self.url, busy_timeout=0.02)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.repository.close()
        self.results.close()

    @cached_property
    def repository(self) -> Repository:
        return Repository(self.database, START_WRITER, retry_for=0.1, give_up=threading.Event())

    @cached_property
    def results(self) -> AnyRepository[Result]:
        writer = result_writer(Position("RESULTS", "results"))
        return AnyRepository(self.database, writer, retry_for=0.1, give_up=threading.Event())

    def write_results(self, *batch: Result) -> WriteResult:
        return self.results.write(batch, [], reject_of(batch))

    def write(self, batch: Sequence[Run], rejected: Sequence[RejectedEvent] = ()) -> WriteResult:
        return self.repository.write(batch, rejected, reject_of(batch))

    def ask(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement in a connection of its own, as another program would."""
        with closing(sqlite3.connect(self.path, isolation_level=None)) as connection:
            return connection.execute(sql, values).fetchall()

    def count(self, table: str = "execution_results") -> int:
        return int(self.ask(f"SELECT count(*) FROM {table}")[0][0])

    def result_ids(self) -> list[str]:
        """Return the runs in the order in which they were inserted."""
        found = self.ask("SELECT result_id FROM execution_results ORDER BY rowid")
        return [result_id for (result_id,) in found]

    def row_of(self, result_id: str) -> dict[str, Any]:
        names = [row[1] for row in self.ask("PRAGMA table_info(execution_results)")]
        (row,) = self.ask("SELECT * FROM execution_results WHERE result_id = ?", (result_id,))
        return dict(zip(names, row, strict=True))

    def add_executions(self, **statuses: str) -> None:
        """Add executions by id; `_` in a keyword stands for `-` in the id."""
        for name, status in statuses.items():
            self.ask(INSERT_EXECUTION, (name.replace("_", "-"), status))

    def counts(self, exec_id: str = "execution-1") -> str:
        """Return successes, failures and status of an execution."""
        query = "SELECT success_count, failure_count, status FROM executions WHERE exec_id = ?"
        return "{}/{} {}".format(*self.ask(query, (exec_id,))[0])

    def statuses(self) -> dict[str, str]:
        return dict(self.ask("SELECT exec_id, status FROM executions"))

    def add_trigger(self, event: str, body: str, name: str = "foreign_rule") -> None:
        """Add a trigger as another program would: `event` is all between its name and BEGIN."""
        self.ask(f"CREATE TRIGGER {name} {event} BEGIN {body}; END")

    def drop_trigger(self, table: str) -> None:
        """Drop the trigger that `add_trigger` has added to a table."""
        assert self.ask("SELECT tbl_name FROM sqlite_schema WHERE name = 'foreign_rule'") == [
            (table,)
        ]
        self.ask("DROP TRIGGER foreign_rule")

    def require_foreign_column(self) -> None:
        """Recreate the table of runs with a NOT NULL column that has no default."""
        ((sql,),) = self.ask("SELECT sql FROM sqlite_schema WHERE name = 'execution_results'")
        self.ask("DROP TABLE execution_results")
        self.ask(sql.strip().removesuffix(")") + ", site TEXT NOT NULL)")

    def accept_every_status(self) -> None:
        """Let executions have statuses that the worker does not know, as in an existing table."""

    def shown(self, text: str) -> str:
        """Return the text of a rejected event as it is stored."""
        return text


def reject_bad_pc(db: Db, when: str = "BEFORE", action: str = "ABORT") -> None:
    rule = "SELECT RAISE(IGNORE)" if action == "IGNORE" else f"SELECT RAISE({action}, 'no such PC')"
    db.add_trigger(f"{when} INSERT ON execution_results WHEN NEW.pc_id = 'bad'", rule)


def reject_every_run(db: Db) -> None:
    db.add_trigger("AFTER INSERT ON execution_results", "SELECT RAISE(ABORT, 'closed')")


def ignore_every_run(db: Db) -> None:
    db.add_trigger("BEFORE INSERT ON execution_results", "SELECT RAISE(IGNORE)")
