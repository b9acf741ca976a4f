"""Results that wait in the stream, and a wrong clock: no run is given up too early, or too late."""

from datetime import UTC, datetime

import pytest

from tests.conftest import RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.runs import (
    BOTH,
    counted,
    ended,
    move_deadlines,
    move_execution,
    names_of,
    publish_results,
    publish_starts,
    reaped,
    stored_now,
)

HOUR = 3600.0
OFTEN = ("--upkeep-every", "0.2s")
# So slow that W is known, and several ticks are over, long before all results are projected.
SLOWLY = ("--upkeep-every", "0.2s", "--batch", "5")
SLOW = ("slow-commits", 0.2)
NAMES = names_of(140)
LATER, SKIPPED = names_of(20, "later"), names_of(20, "skipped")
# Notes how many runs have their result when one is given up, or an execution expires.
NOTES = (
    "CREATE TABLE noted (name TEXT, results INTEGER)",
    *(
        f"CREATE TRIGGER note_{table} AFTER UPDATE ON {table} WHEN NEW.{condition} BEGIN"
        f" INSERT INTO noted SELECT NEW.{key}, count(*) FROM execution_results"
        " WHERE finished_at IS NOT NULL AND reaped = 0; END"
        for table, key, condition in (
            ("execution_results", "result_id", "reaped = 1"),
            ("executions", "exec_id", "status = 'expired'"),
        )
    ),
)


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    deployment.make_results_stream()
    return deployment


def test_runs_whose_results_waited_for_a_worker_that_was_down_end_as_if_it_had_been_there(
    fleet: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    rows.insert_execution("execution-1", len(NAMES))
    publish_starts(fleet, NAMES)
    run_until_idle(rows, **BOTH)
    # The starts of the second execution wait behind repeated ones; the third has results alone.
    publish_starts(fleet, NAMES)
    publish_starts(fleet, LATER, exec_id="waiting")
    publish_results(fleet, NAMES[:-1])
    publish_results(fleet, LATER, exec_id="waiting")
    publish_results(fleet, SKIPPED, exec_id="skipped", skipped=True)
    for execution in ("waiting", "skipped"):
        rows.insert_execution(execution, len(LATER))
    # In time: everything was stored before, but the worker starts when the time is over.
    in_time, late = NAMES[::2], NAMES[1::2]
    move_deadlines(rows, in_time, stored_now())
    move_execution(rows, "waiting", stored_now(plus=-HOUR))
    # What was stored later may be given up rightly, and comes back.
    move_deadlines(rows, late)
    move_execution(rows, "skipped")
    for statement in NOTES:
        rows.write(statement)
    worker = start_worker(rows, *SLOWLY, fault=SLOW, **BOTH)
    runs = len(NAMES) + len(LATER) + len(SKIPPED)
    worker.until(lambda: ended(rows) == runs and reaped(rows) == NAMES[-1:], 30)
    assert worker.stop() == 0
    noted = {row["name"] for row in rows.query("SELECT name FROM noted")}
    assert noted <= {*late, "skipped"}
    counters = worker.counters
    assert counters["results_late"] == counters["runs_reaped"] - 1 > 0
    success, _, failure = counted(len(NAMES) - 1, "").strip().partition("/")
    assert rows.execution("execution-1") == f"{success}/{int(failure) + 1} completed"
    for execution in ("waiting", "skipped"):
        assert rows.execution(execution) == counted(len(LATER), "completed")
    columns = "reaped, exit_code, stdout, stderr, finished_at"
    others = f"SELECT DISTINCT {columns} FROM execution_results WHERE result_id != ? ORDER BY 2"
    assert [tuple(row.values()) for row in rows.query(others, NAMES[-1])] == [
        (0, code, "output", "", "2026-05-20T12:00:05+00:00") for code in (0, 1)
    ]


def test_while_results_lag_nothing_is_given_up_before_what_was_stored_by_then_is_projected(
    fleet: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    early, late = names_of(140, "early"), names_of(140, "late")
    publish_starts(fleet, [*early, *late, "overdue", "overdue later"])
    run_until_idle(rows, **BOTH)
    for names, run, execution in ((early, "overdue", "old"), (late, "overdue later", "old later")):
        publish_results(fleet, names)
        move_deadlines(rows, [run], stored_now())
        rows.insert_execution(execution, 1)
        move_execution(rows, execution, stored_now(plus=-HOUR))
    for statement in NOTES:
        rows.write(statement)
    worker = start_worker(rows, *SLOWLY, fault=SLOW, **BOTH)
    worker.wait_for("pull.started", times=2)
    publish_starts(fleet, ["new"])
    worker.until(lambda: rows.run("new"))
    assert ended(rows) < len(early + late)  # starts do not lag
    worker.until(lambda: rows.count("noted") == 4, 30)
    assert worker.stop() == 0
    noted = {row["name"]: row["results"] for row in rows.query("SELECT * FROM noted")}
    assert min(noted.pop("overdue"), noted.pop("old")) >= len(early)
    assert noted == dict.fromkeys(("overdue later", "old later"), len(early + late))
    assert reaped(rows) == ["overdue", "overdue later"]


@pytest.mark.parametrize("seconds", [3600, -3600], ids=["fast", "slow"])
def test_a_wrong_clock_of_the_worker_gives_up_and_expires_nothing_early_or_late(
    fleet: Broker, rows: Rows, start_worker: StartWorker, seconds: int
) -> None:
    for name in ("due", "old"):
        rows.insert_execution(name, 1)
    publish_starts(fleet, ["due", "overdue"])
    worker = start_worker(rows, *OFTEN, fault=("wrong-clock", seconds), **BOTH)
    worker.until(lambda: rows.count() == 2)
    for sign, run, execution in ((1, "due", "due"), (-1, "overdue", "old")):
        move_deadlines(rows, [run], stored_now(plus=sign * HOUR / 2))
        move_execution(rows, execution, stored_now(plus=sign * HOUR / 2 - HOUR))
    worker.until(lambda: reaped(rows) and rows.execution("old") == "0/0 expired")
    assert reaped(rows) == ["overdue"]
    assert rows.execution("due") == "0/0 pending"
    finished_at = datetime.fromisoformat((rows.run("overdue") or {})["finished_at"])
    assert abs((finished_at - datetime.now(UTC)).total_seconds()) < 60
    assert worker.stop() == 0
