"""Runs of both streams: published, moved in time, and counted."""

import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from tests.support import events
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.worker_process import WorkerProcess

# Projects both streams.
BOTH: dict[str, Any] = {"results": True}
LONG_AGO = "2026-01-01T00:00:00+00:00"


def names_of(count: int, prefix: str = "run") -> list[str]:
    return [f"{prefix}-{number:04}" for number in range(count)]


def publish_starts(broker: Broker, names: Iterable[str], **members: Any) -> None:
    broker.publish_starts(events.start(result_id=name, **members) for name in names)


def publish_results(broker: Broker, names: Sequence[str], **members: Any) -> None:
    """Publish results of which every fourth one failed."""
    broker.publish_results(
        events.result(result_id=name, exit_code=int(number % 4 == 0), **members)
        for number, name in enumerate(names)
    )


def ended(rows: Rows) -> int:
    """Return how many runs have ended."""
    sql = "SELECT count(*) AS n FROM execution_results WHERE finished_at IS NOT NULL"
    return int(rows.query(sql)[0]["n"])


def has_ended(rows: Rows, result_id: str) -> bool:
    return (rows.run(result_id) or {}).get("finished_at") is not None


def reaped(rows: Rows) -> list[str]:
    """Return the runs that are given up."""
    sql = "SELECT result_id FROM execution_results WHERE reaped = 1 ORDER BY result_id"
    return [row["result_id"] for row in rows.query(sql)]


def counted(runs: int, status: str) -> str:
    """Return the counts of so many runs whose results `publish_results` has published."""
    failed = (runs + 3) // 4
    return f"{runs - failed}/{failed} {status}"


def stored_now(*, plus: float = 0.0) -> str:
    """Return the present time as stored text, `plus` seconds later."""
    return (datetime.now(UTC) + timedelta(seconds=plus)).isoformat(timespec="microseconds")


def move_deadlines(rows: Rows, result_ids: Iterable[str], deadline: str = LONG_AGO) -> None:
    """Move the deadlines of runs, as if time had gone by."""
    change = "UPDATE execution_results SET expires_at = ? WHERE result_id = ?"
    for result_id in result_ids:
        rows.write(change, deadline, result_id)


def move_execution(rows: Rows, exec_id: str, initiated_at: str = LONG_AGO) -> None:
    """Move the beginning of an execution, as if time had gone by."""
    change = "UPDATE executions SET initiated_at = ? WHERE exec_id = ?"
    rows.write(change, initiated_at, exec_id)


def wait_for_a_tick(worker: WorkerProcess, rows: Rows) -> None:
    """Return when a tick of the upkeep has begun and ended: of two sweeps it was between."""
    for _ in range(2):
        name = f"tick-{uuid.uuid4()}"
        columns = "result_id, request_id, exec_id, pc_id, expires_at"
        values = (name, "", name, "", "9999-01-01T00:00:00+00:00")
        rows.write(f"INSERT INTO execution_results ({columns}) VALUES (?, ?, ?, ?, ?)", *values)
        rows.insert_execution(name, 1)
        worker.until(lambda: rows.execution(name) == "0/0 running")  # noqa: B023
        rows.write("DELETE FROM execution_results WHERE result_id = ?", name)
