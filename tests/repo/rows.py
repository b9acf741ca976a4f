"""Rows as the projection makes them, and a look into the file from outside the package."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote

from repo.batch_writer import WriteResult
from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.repository import GuardedRepository as AnyGuardedRepository
from repo.repository import Repository as AnyRepository

Repository = AnyRepository[Run]
GuardedRepository = AnyGuardedRepository[Run]

STARTED_AT = "2026-05-20T12:00:00.123456789+00:00"
RECORDED_AT = "2026-05-20T12:00:01.500+00:00"
EXPIRES_AT = "2026-05-20T12:02:21.500+00:00"
REJECTED_AT = "2026-05-20T12:00:02+00:00"

INSERT_EXECUTION = """
INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, target_count, status)
VALUES (?, 'job-1', '1.0.0', 'operator', '2026-05-20T11:59:59+00:00', 3, ?)
"""


def url(path: Path) -> str:
    return f"sqlite:///{quote(str(path))}"


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


def runs(count: int, *, bad: Sequence[int] = (), **columns: Any) -> list[Run]:
    """Return runs r0, r1, ...; the ones at the positions `bad` have pc_id "bad"."""
    return [
        run(f"r{index}", **{**columns, **({"pc_id": "bad"} if index in bad else {})})
        for index in range(count)
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


def write(
    repository: Repository, batch: Sequence[Run], rejected: Sequence[RejectedEvent] = ()
) -> WriteResult:
    """Write a batch; a rejected run has its index + 1 as sequence, its result_id as payload."""
    return repository.write(batch, rejected, reject_of(batch))


def reject_of(batch: Sequence[Run]) -> Callable[[int, str], RejectedEvent]:
    def reject(index: int, reason: str) -> RejectedEvent:
        payload = batch[index].result_id.encode("utf-8", "replace")
        return rejected_event(index + 1, payload=payload, reason=reason)

    return reject


def ask(path: Path, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """Run one statement in a connection of its own, as another program would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        return connection.execute(sql, values).fetchall()


def count(path: Path, table: str) -> int:
    return int(ask(path, f"SELECT count(*) FROM {table}")[0][0])


def row_of(path: Path, result_id: str) -> dict[str, Any]:
    with closing(sqlite3.connect(path)) as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute(
            "SELECT * FROM execution_results WHERE result_id = ?", (result_id,)
        ).fetchall()
    assert len(found) == 1
    return dict(found[0])


def add_executions(path: Path, **statuses: str) -> None:
    """Add executions by id; `_` in a keyword stands for `-` in the id."""
    for name, status in statuses.items():
        ask(path, INSERT_EXECUTION, (name.replace("_", "-"), status))


def statuses(path: Path) -> dict[str, str]:
    return dict(ask(path, "SELECT exec_id, status FROM executions"))


def add_trigger(path: Path, event: str, body: str) -> None:
    """Add a trigger as another program would: `event` is all between its name and BEGIN."""
    ask(path, f"CREATE TRIGGER foreign_rule {event} BEGIN {body}; END")


def reject_bad_pc(path: Path, when: str = "BEFORE", action: str = "ABORT") -> None:
    rule = "SELECT RAISE(IGNORE)" if action == "IGNORE" else f"SELECT RAISE({action}, 'no such PC')"
    add_trigger(path, f"{when} INSERT ON execution_results WHEN NEW.pc_id = 'bad'", rule)


def reject_every_run(path: Path, when: str = "AFTER", action: str = "ABORT, 'closed'") -> None:
    add_trigger(path, f"{when} INSERT ON execution_results", f"SELECT RAISE({action})")


def require_foreign_column(path: Path) -> None:
    """Recreate the table with a NOT NULL column that has no default, as a drifted schema has."""
    ((sql,),) = ask(path, "SELECT sql FROM sqlite_schema WHERE name = 'execution_results'")
    ask(path, "DROP TABLE execution_results")
    ask(path, sql.strip().removesuffix(")") + ", site TEXT NOT NULL)")
