"""The worker beside the fleet's own program: two writers of one database, which was the fleet's."""

import json
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from nats.js.errors import NotFoundError

from tests.conftest import RunUntilIdle, StartWorker
from tests.support import broker, events
from tests.support.broker import RESULTS, STREAM, Broker
from tests.support.fleet_program import NOTE
from tests.support.rows import Rows
from tests.support.waiting import eventually
from worker.codec.timestamps import NANOSECONDS, format_instant

FLEET = Path(__file__).parents[1] / "repo" / "fleet.sql"
BOTH: dict[str, Any] = {"results": True}
RUNS = 300
OURS = (broker.CONSUMER, broker.RESULTS_CONSUMER)
THEIRS = ("fleet_events", "fleet_results")
OUR_NOTE = "[projector: given up, no result by the deadline]"

# What only a writer that overwrites or ends twice would leave behind.
WATCH = """
CREATE TABLE endings (result_id TEXT);
CREATE TABLE overwritten (result_id TEXT);
CREATE TRIGGER inserted AFTER INSERT ON execution_results WHEN NEW.finished_at IS NOT NULL
BEGIN INSERT INTO endings VALUES (NEW.result_id); END;
CREATE TRIGGER ended AFTER UPDATE ON execution_results
WHEN OLD.finished_at IS NULL AND NEW.finished_at IS NOT NULL
BEGIN INSERT INTO endings VALUES (NEW.result_id); END;
CREATE TRIGGER overwritten AFTER UPDATE ON execution_results
WHEN OLD.finished_at IS NOT NULL AND OLD.reaped = 0
BEGIN INSERT INTO overwritten VALUES (NEW.result_id); END;
"""


class Fleet:
    """The fleet's own program, in a process."""

    def __init__(self, database: Path, url: str, consumers: tuple[str, str]) -> None:
        program = [sys.executable, "-m", "tests.support.fleet_program"]
        command = [*program, str(database), url, *consumers]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=FLEET.parents[2])

    def stop(self) -> dict[str, int]:
        """End it, and return what it has done."""
        self.process.terminate()
        output, _ = self.process.communicate(timeout=20)
        assert self.process.returncode == 0
        return {"ended": 0, "late": 0, "reaped": 0, **json.loads(output)}


StartFleet = Callable[..., Fleet]


def ago(seconds: float) -> str:
    return format_instant(time.time_ns() - round(seconds * NANOSECONDS))


@pytest.fixture
def shared(tmp_path: Path) -> Rows:
    """A database of the fleet, at an older version, with its rows; then migrated by us."""
    rows = Rows(tmp_path / "fleet.db")
    with closing(sqlite3.connect(rows.path)) as connection:
        connection.executescript(FLEET.read_text("utf-8"))
        # A site's own rule; the fleet's program counts by itself.
        connection.executescript(f"DROP TRIGGER count_result; {WATCH}")
    rows.migrate()
    return rows


@pytest.fixture
def streams(deployment: Broker) -> Broker:
    deployment.make_results_stream()
    return deployment


@pytest.fixture
def start_fleet(shared: Rows, streams: Broker) -> Iterator[StartFleet]:
    started: list[Fleet] = []

    def start(consumers: tuple[str, str] = THEIRS) -> Fleet:
        started.append(Fleet(shared.path, streams.url, consumers))
        return started[-1]

    yield start
    for one in started:
        one.process.kill()
        one.process.communicate()


@pytest.fixture
def run_fleet(start_fleet: StartFleet, streams: Broker) -> Callable[[], None]:
    """Return a function that runs the fleet's program until it has projected everything."""

    def run() -> None:
        fleet = start_fleet()
        eventually(lambda: is_done(streams, THEIRS), 10)
        fleet.stop()

    return run


def is_done(streams: Broker, consumers_of: tuple[str, str]) -> bool:
    """Return whether both consumers of a program exist and have no message left."""
    try:
        consumers = [
            streams.consumer(name, stream)
            for name, stream in zip(consumers_of, (STREAM, RESULTS), strict=True)
        ]
    except NotFoundError:
        return False
    return not any(one.num_pending or one.num_ack_pending for one in consumers)


def insert_run(rows: Rows, result_id: str, exec_id: str, **columns: object) -> None:
    """Insert a run as the fleet's program has left it, in flight unless `columns` end it."""
    values = {
        "result_id": result_id,
        "request_id": "request-1",
        "exec_id": exec_id,
        "pc_id": "pc-1",
        "started_at": ago(60),
        "recorded_at": ago(60),
        "job_id": "job-1",
        "version": "1.0.0",
        "expires_at": ago(-480),
        **columns,
    }
    names, marks = ", ".join(values), ", ".join("?" * len(values))
    rows.write(f"INSERT INTO execution_results ({names}) VALUES ({marks})", *values.values())


def insert_fleets_rows(rows: Rows) -> None:
    """Insert executions in each status, and runs in each state, with the counts they have."""
    ended = {"finished_at": ago(30), "exit_code": 0}
    reaped = {"finished_at": ago(30), "exit_code": -1, "reaped": 1, "stderr": NOTE}
    for exec_id, targets, status, counts in (
        ("pending", RUNS, "pending", (0, 0)),
        ("running", RUNS, "running", (1, 1)),
        ("completed", 1, "completed", (1, 0)),
        ("expired", RUNS, "expired", (0, 0)),
        ("abandoned", 1, "pending", (0, 0)),
    ):
        rows.insert_execution(exec_id, targets, status)
        change = "UPDATE executions SET success_count = ?, failure_count = ? WHERE exec_id = ?"
        rows.write(change, *counts, exec_id)
    rows.write("UPDATE executions SET initiated_at = ? WHERE exec_id <> 'abandoned'", ago(60))
    rows.write("UPDATE executions SET initiated_at = ? WHERE exec_id = 'abandoned'", ago(7200))
    insert_run(rows, "in-flight", "running")
    insert_run(rows, "silent", "running", expires_at=ago(1))
    insert_run(rows, "finished", "running", **ended)
    insert_run(rows, "reaped", "running", **reaped)
    insert_run(rows, "complete", "completed", **ended)


def publish_runs(streams: Broker) -> None:
    """Publish runs of three executions, of which every third one fails.

    Every tenth one sends no start; every fifth result comes twice, and differs the second time.
    """
    for number in range(RUNS):
        exec_id = ("pending", "running", "expired")[number % 3]
        name: dict[str, Any] = {"result_id": f"run-{number:03}", "exec_id": exec_id}
        if number % 10:
            streams.publish(**name)
        result = events.result(**name, exit_code=int(number % 9 < 3))
        streams.publish_results([result])
        if number % 5 == 0:
            streams.publish_results([{**result, "stdout": "again"}])


@pytest.mark.parametrize("consumers", [THEIRS, OURS], ids=["own", "the worker's"])
def test_each_run_ends_once_and_is_counted_once_by_one_of_two_programs(
    shared: Rows,
    streams: Broker,
    start_worker: StartWorker,
    start_fleet: StartFleet,
    consumers: tuple[str, str],
) -> None:
    insert_fleets_rows(shared)
    kept = [shared.run(name) for name in ("finished", "complete")]
    publish_runs(streams)
    for name in ("in-flight", "complete"):
        streams.publish_results([events.result(result_id=name, exec_id="running")])
    options = ("--batch", "5", "--upkeep-every", "0.2s")
    fleet = start_fleet(consumers)
    eventually(lambda: shared.query("SELECT 1 FROM endings WHERE result_id GLOB 'run-*'"), 10)
    worker = start_worker(shared, *options, fault=("slow-commits", 0.02), **BOTH)
    worker.until(lambda: is_done(streams, OURS), 40)
    worker.until(lambda: is_done(streams, consumers), 20)
    worker.until(lambda: shared.execution("abandoned") == "0/0 expired")
    worker.until(lambda: (shared.run("silent") or {})["reaped"] == 1)
    theirs = fleet.stop()
    assert worker.stop() == 0
    assert [line for line in worker.lines if line["level"] == "error"] == []

    ours = worker.counters["runs_ended"] + worker.counters["runs_ended_unseen"]
    assert theirs["ended"] > 0
    assert ours > 0
    assert theirs["ended"] + ours == RUNS + 1
    assert theirs["reaped"] + worker.counters["runs_reaped"] == 1
    endings = shared.query("SELECT result_id FROM endings ORDER BY result_id")
    assert [row["result_id"] for row in endings] == [
        *("complete", "finished", "in-flight", "reaped"),
        *(f"run-{number:03}" for number in range(RUNS)),
        "silent",
    ]
    assert shared.query("SELECT * FROM overwritten") == []
    assert [shared.run(name) for name in ("finished", "complete")] == kept
    assert (shared.run("silent") or {})["stderr"] in (NOTE, OUR_NOTE)
    assert (shared.run("theirs") or {})["finished_at"] is None
    assert {name: shared.execution(name) for name in ("pending", "running", "expired")} == {
        "pending": "66/34 running",
        "running": "68/36 running",
        "expired": "66/34 running",
    }
    assert shared.execution("completed") == "1/0 completed"


def test_a_run_that_is_given_up_while_its_result_waits_still_counts_once(
    shared: Rows, streams: Broker, start_worker: StartWorker, start_fleet: StartFleet
) -> None:
    names = [f"run-{number:03}" for number in range(100)]
    streams.publish_results(events.result(result_id=name, exec_id="e") for name in names)
    shared.insert_execution("e", len(names))
    for name in names:
        insert_run(shared, name, "e", expires_at=ago(0))
    worker = start_worker(shared, "--batch", "5", fault=("slow-commits", 0.05), **BOTH)
    fleet = start_fleet()
    worker.until(lambda: is_done(streams, OURS) and is_done(streams, THEIRS), 20)
    theirs = fleet.stop()
    assert worker.stop() == 0
    assert len(shared.query("SELECT result_id FROM endings")) == len(names)
    assert shared.query("SELECT * FROM overwritten") == []
    rows = shared.query("SELECT exit_code, reaped FROM execution_results WHERE exec_id = 'e'")
    assert rows == [{"exit_code": 0, "reaped": 0}] * len(names)
    assert worker.counters["runs_reaped"] == 0
    # The fleet's program leaves the failure of a run that succeeded after it was given up.
    failed = theirs["late"]
    assert shared.execution("e") == f"{len(names) - failed}/{failed} completed"


@pytest.mark.parametrize(("first", "counts"), [("ours", "1/0 running"), ("theirs", "0/1 running")])
def test_a_late_success_is_moved_by_the_worker_alone(
    shared: Rows,
    streams: Broker,
    run_until_idle: RunUntilIdle,
    run_fleet: Callable[[], None],
    first: str,
    counts: str,
) -> None:
    shared.insert_execution("e", 2, "running")
    insert_run(shared, "r", "e", expires_at=ago(1))
    run_fleet()
    assert shared.execution("e") == "0/1 running"
    streams.publish_results([events.result(result_id="r", exec_id="e")])
    programs = {"ours": lambda: run_until_idle(shared, **BOTH), "theirs": run_fleet}
    programs.pop(first)()
    ended = shared.run("r")
    for other in programs.values():
        other()
    assert (shared.run("r"), shared.execution("e")) == (ended, counts)
    assert (ended or {})["exit_code"] == 0


@pytest.mark.parametrize(("first", "counts"), [("ours", "3/0 running"), ("theirs", "1/0 running")])
def test_runs_that_ended_before_their_execution_came_are_counted_if_the_worker_counts_first(
    shared: Rows,
    streams: Broker,
    run_until_idle: RunUntilIdle,
    run_fleet: Callable[[], None],
    first: str,
    counts: str,
) -> None:
    streams.publish_results(events.result(result_id=name, exec_id="e") for name in "ab")
    run_until_idle(shared, **BOTH)
    run_fleet()
    shared.insert_execution("e", 4)
    streams.publish_results([events.result(result_id="c", exec_id="e")])
    programs = {"ours": lambda: run_until_idle(shared, **BOTH), "theirs": run_fleet}
    programs.pop(first)()
    assert shared.execution("e") == counts
    for other in programs.values():
        other()
    assert shared.execution("e") == counts
