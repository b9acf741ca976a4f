"""`projector upkeep --once`: one tick, with what the broker and the checkpoints say."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.conftest import RunUntilIdle, StartWorker
from tests.integration.conftest import Projector
from tests.support import events
from tests.support.broker import RESULTS, Broker
from tests.support.commands import Done
from tests.support.rows import Rows
from tests.support.waiting import eventually

PAST = "2020-01-01T00:00:00+00:00"
BOTH: dict[str, Any] = {"results": True}
FROZEN = """
CREATE TRIGGER frozen BEFORE UPDATE ON {} BEGIN SELECT RAISE(ABORT, 'frozen'); END
"""


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    """Both streams, as long-lived as the contract has them, and manifests."""
    deployment.delete_stream()
    deployment.make_stream(max_age=7 * 86_400)
    deployment.make_results_stream(max_age=30 * 86_400)
    return deployment


@pytest.fixture
def due(fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    """One thing for each part of a tick: an execution to promote and one to expire, and overdue and
    old rows."""
    fleet.publish(result_id="overdue", exec_id="late", pc_id="pc-7")
    fleet.publish(result_id="in time", exec_id="late")
    run_until_idle(rows, **BOTH)
    make_due(rows)
    return rows


def make_due(rows: Rows) -> None:
    for exec_id in ("late", "without runs"):
        rows.insert_execution(exec_id, 2)
    rows.insert_execution("old", 1, "completed")
    set_at = "UPDATE executions SET initiated_at = ? WHERE exec_id = ?"
    rows.write(set_at, datetime.now(UTC).isoformat(timespec="seconds"), "late")
    recent = (datetime.now(UTC) - timedelta(hours=2)).isoformat(timespec="seconds")
    rows.write(set_at, recent, "without runs")
    rows.write(set_at, PAST, "old")
    rows.write("UPDATE execution_results SET expires_at = ? WHERE result_id = 'overdue'", PAST)
    rows.insert_finished("old run")
    rows.write("UPDATE execution_results SET recorded_at = ? WHERE result_id = 'old run'", PAST)


def changes(done: Done) -> list[tuple[str, ...]]:
    return [
        (one["change"], one.get("result_id") or one.get("execution") or one["table"])
        for one in done.document["changes"]
    ]


def dump(rows: Rows) -> list[Any]:
    tables = ("execution_results", "executions", "checkpoints", "rejected_events")
    return [rows.query(f"SELECT * FROM {table}") for table in tables]


EVERYTHING = [
    ("promoted", "late"),
    ("expired", "without runs"),
    ("reaped", "overdue"),
    ("deleted", "executions"),
    ("deleted", "runs"),
]
COUNTS = {
    "promoted": 1,
    "expired": 1,
    "reaped": 1,
    "executions_deleted": 1,
    "runs_deleted": 1,
    "failed": 0,
}


def test_a_dry_run_lists_what_a_tick_then_does(due: Rows, projector: Projector) -> None:
    before, stored = dump(due), due.path.read_bytes()
    dry = projector("upkeep", "--once", "--dry-run", "--json")
    assert (dry.code, changes(dry)) == (0, EVERYTHING), dry
    assert (dump(due), due.path.read_bytes()) == (before, stored)
    (reaped,) = [one for one in dry.document["changes"] if one["change"] == "reaped"]
    assert (reaped["pc_id"], reaped["expires_at"]) == ("pc-7", PAST)
    text = projector("upkeep", "--once", "--dry-run").output
    assert f"reaped    run overdue on pc-7, deadline {PAST}\n" in text
    assert "would be: 1 promoted, 1 expired, 1 reaped, 1 executions deleted, 1 runs deleted" in text

    done = projector("upkeep", "--once", "--json")
    assert (done.code, changes(done)) == (0, EVERYTHING), done
    assert {name: done.document[name] for name in COUNTS} == COUNTS
    assert done.document["problems"] == []
    row = due.run("overdue") or {}
    assert (row["reaped"], row["exit_code"], row["finished_at"] > "2026") == (1, -1, True)
    assert (due.run("in time") or {})["finished_at"] is None
    assert due.execution("late") == "0/1 running"
    assert due.execution("without runs") == "0/0 expired"
    assert due.run("old run") is None
    assert projector("upkeep", "--once").output == "0 promoted\n"


@pytest.mark.every_engine
def test_no_run_is_given_up_whose_result_waits_and_none_expires_beyond_it(
    due: Rows, fleet: Broker, projector: Projector, run_until_idle: RunUntilIdle
) -> None:
    fleet.publish_results([events.result(result_id="overdue", exec_id="late")])
    time.sleep(1.1)  # a deadline in whole seconds, after the result was stored
    now = datetime.now(UTC).isoformat(timespec="seconds")
    due.write("UPDATE execution_results SET expires_at = ? WHERE result_id = 'overdue'", now)
    time.sleep(1.1)
    done = projector("upkeep", "--once", "--json")
    assert ("reaped", "overdue") not in changes(done)
    assert done.document["problems"] == []
    assert done.document["projected_up_to"] < now
    run_until_idle(due, **BOTH)
    assert (due.run("overdue") or {})["exit_code"] == 0


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        ("broker", "cannot be reached"),
        ("results", "stream RESULTS does not exist"),
        ("consumer", "consumer backend_events_projector does not exist"),
        ("checkpoint", "no checkpoint of consumer backend_results_projector"),
        ("recreated", "is of an earlier stream RESULTS"),
        ("place", "was written in another place"),
        ("rewound", "went back to an older state"),
    ],
)
def test_a_tick_only_promotes_where_it_is_unknown_what_waits(
    due: Rows, fleet: Broker, projector: Projector, spoil: str, reason: str
) -> None:
    environment = {}
    if spoil == "broker":
        environment["PROJECTOR_NATS_URL"] = "nats://127.0.0.1:1"
    elif spoil == "results":
        fleet.delete_stream(RESULTS)
    elif spoil == "recreated":
        due.write("UPDATE checkpoints SET stream_created_at = ? WHERE stream = 'RESULTS'", PAST)
    elif spoil == "consumer":
        fleet.delete_consumer()
    elif spoil == "checkpoint":
        due.write("DELETE FROM checkpoints WHERE stream = 'RESULTS'")
    elif spoil == "place":
        due.write("UPDATE checkpoints SET place = 'elsewhere' WHERE stream = 'RESULTS'")
    else:
        due.write("UPDATE checkpoints SET last_sequence = 99, caught_up_to = 99")
    done = projector("upkeep", "--once", "--json", **environment)
    assert (done.code, changes(done)) == (0, [("promoted", "late")]), done
    (problem,) = done.document["problems"]
    assert problem.startswith("nothing is reaped, expired or deleted, because it is unknown")
    assert reason in problem
    assert done.document["projected_up_to"] is None
    assert due.execution("without runs") == "0/0 pending"


def test_a_tick_works_beside_a_worker_and_not_beside_one_of_another_database(
    fleet: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    fleet.publish(result_id="overdue", exec_id="late")
    worker = start_worker(rows, "--upkeep-every", "1h", **BOTH)
    worker.until(lambda: rows.count() == 1)
    worker.wait_for("worker.ready")
    make_due(rows)
    done = projector("upkeep", "--once", "--json")
    assert (done.code, done.document["problems"]) == (0, []), done
    # By the command, or by the worker, whose first tick may come as late.
    run = rows.run("overdue")
    assert run is not None
    assert run["reaped"] == 1
    copy = Rows(rows.path.with_name("copy.db"))
    copy.path.write_bytes(rows.path.read_bytes())
    other = projector("upkeep", "--once", "--json", PROJECTOR_DATABASE=copy.url)
    assert other.document["projected_up_to"] is None
    assert "into another database" in other.document["problems"][0]
    assert worker.stop() == 0


@pytest.mark.every_engine
def test_nothing_is_deleted_that_a_stream_would_bring_back(
    due: Rows,
    fleet: Broker,
    projector: Projector,
    run_until_idle: RunUntilIdle,
) -> None:
    kept = projector("upkeep", "--once", "--json", "--retention", "off")
    assert (changes(kept), kept.document["problems"]) == (EVERYTHING[:3], [])
    fleet.delete_stream(RESULTS)
    fleet.make_results_stream(max_age=400 * 86_400)
    run_until_idle(due, **BOTH)
    done = projector("upkeep", "--once", "--json")
    (problem,) = done.document["problems"]
    assert "stream RESULTS keeps messages 400 days, longer than --retention" in problem
    assert changes(done) == []
    assert due.run("old run") is not None


def test_each_part_of_a_tick_fails_by_itself(due: Rows, projector: Projector) -> None:
    due.write(FROZEN.format("executions"))
    done = projector("upkeep", "--once", "--json")
    failed = [
        *(("failed", "late"), ("failed", "without runs"), ("failed", "overdue")),
        *EVERYTHING[3:],
    ]
    assert (done.code, changes(done)) == (1, failed), done
    assert all("frozen" in one["error"] for one in done.document["changes"][:3])
    assert done.document["failed"] == 3
    due.write("DROP TRIGGER frozen")
    due.write("UPDATE execution_results SET exec_id = NULL")
    due.write("ALTER TABLE executions RENAME TO elsewhere")
    done = projector("upkeep", "--once", "--json")
    assert (done.code, changes(done)) == (78, [("reaped", "overdue")])
    assert "executions" in done.errors


def test_a_tick_only_promotes_while_a_worker_catches_up(
    due: Rows, fleet: Broker, start_worker: StartWorker, projector: Projector
) -> None:
    fleet.publish_starts(events.start() for _ in range(400))
    start_worker(due, "--until-idle", **BOTH).exit_code()
    due.write("UPDATE checkpoints SET caught_up_to = 0 WHERE stream = 'EVENTS'")
    slow = ("slow-commits", 0.5)
    worker = start_worker(due, "--batch", "10", "--upkeep-every", "1h", fault=slow, **BOTH)
    worker.wait_for("catch_up.started")

    def problems() -> str:
        done = projector("upkeep", "--once", "--dry-run", "--json")
        return " ".join(done.document["problems"])

    eventually(lambda: "is in state catching_up" in problems(), 15)
