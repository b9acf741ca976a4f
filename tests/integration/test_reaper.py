"""Overdue runs are given up, unless their result is stored; what is old is deleted."""

import time

import pytest

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.runs import move_deadlines


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    """Both streams, and a manifest whose runs are overdue 120 s after their starts."""
    deployment.make_results_stream()
    deployment.put_manifest("short", {"execute": {"timeout": "1s"}})
    return deployment


@pytest.mark.every_engine
def test_an_overdue_run_is_given_up_once_and_its_late_success_moves_it(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    rows.insert_execution("execution-1", 2)
    for name in ("overdue", "in time"):
        fleet.publish(result_id=name)
    worker = start_worker(rows, "--upkeep-every", "1s", results=True)
    worker.until(lambda: rows.count() == 2)
    move_deadlines(rows, ["overdue"])
    worker.until(lambda: (rows.run("overdue") or {})["reaped"] == 1)
    row, other = rows.run("overdue"), rows.run("in time")
    assert row is not None
    assert other is not None
    assert row["exit_code"] == -1
    assert row["stderr"] == "[projector: given up, no result by the deadline]"
    assert other["finished_at"] is None
    assert rows.execution("execution-1") == "0/1 running"
    fleet.publish_results([events.result(result_id="overdue")])
    worker.until(lambda: (rows.run("overdue") or {})["reaped"] == 0)
    assert rows.execution("execution-1") == "1/0 running"
    assert worker.stop() == 0
    counters = worker.counters
    assert (counters["runs_reaped"], counters["results_late"]) == (1, 1)


def test_nothing_is_given_up_while_results_cannot_be_read(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.publish(result_id="overdue")
    rows.insert_execution("without runs", 1)
    rows.write("UPDATE executions SET initiated_at = '2026-01-01T00:00:00+00:00'")
    worker = start_worker(rows, "--upkeep-every", "0.2s", results=True)
    worker.until(lambda: rows.count() == 1)
    move_deadlines(rows, ["overdue"])
    time.sleep(3)
    row = rows.run("overdue")
    assert row is not None
    assert row["reaped"] == 0
    assert rows.execution("without runs") == "0/0 pending"
    deployment.make_results_stream()
    worker.until(lambda: (rows.run("overdue") or {})["reaped"] == 1, 20)
    worker.until(lambda: rows.execution("without runs") == "0/0 expired")
    assert worker.stop() == 0


def test_a_worker_that_reads_no_results_gives_up_nothing(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    fleet.publish(result_id="overdue")
    worker = start_worker(rows, "--upkeep-every", "0.2s")
    worker.until(lambda: rows.count() == 1)
    move_deadlines(rows, ["overdue"])
    time.sleep(3)
    row = rows.run("overdue")
    assert row is not None
    assert row["reaped"] == 0
    assert worker.stop() == 0


def test_a_deadline_that_is_no_time_in_stored_form_gives_up_no_run_and_is_one_warning(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deadlines = {"early": "2026-01-01 00:00:00", "none": "", "overdue": "2026-01-01T00:00:00+00:00"}
    for name in deadlines:
        fleet.publish(result_id=name)
    worker = start_worker(rows, "--upkeep-every", "0.2s", results=True)
    worker.until(lambda: rows.count() == 3)
    for name, deadline in deadlines.items():
        move_deadlines(rows, [name], deadline)
    worker.until(lambda: (rows.run("overdue") or {})["reaped"] == 1)
    line = worker.wait_for("deadline.unreadable")
    assert line["runs"] == 2
    assert worker.stop() == 0
    assert len(worker.logged("deadline.unreadable")) == 1
    assert rows.query("SELECT result_id FROM execution_results WHERE reaped = 1") == [
        {"result_id": "overdue"}
    ]
