"""An execution whose row is inserted after its starts does not stay pending."""

import pytest

from tests.integration.conftest import MakeServer, Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.restoring import wipe
from tests.support.rows import Rows

EXECUTION = """
INSERT INTO executions (exec_id, job_id, version, initiated_by, target_count)
VALUES (?, 'job-1', '1', 'operator', 1)
"""
END = "UPDATE execution_results SET finished_at = recorded_at, exit_code = 0"
SLOW = """
CREATE TRIGGER slow BEFORE UPDATE ON executions WHEN NEW.exec_id = 'e-1' BEGIN
    SELECT count(*) FROM (
        WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000000)
        SELECT i FROM n
    );
END
"""
RUN = "INSERT INTO execution_results (result_id, request_id, exec_id, pc_id) VALUES ('', '', ?, '')"
FROZEN = """
CREATE TRIGGER frozen BEFORE UPDATE ON executions BEGIN SELECT RAISE(ABORT, 'frozen'); END
"""


def status(rows: Rows, exec_id: str = "late") -> str:
    (row,) = rows.query("SELECT * FROM executions WHERE exec_id = ?", exec_id)
    return f"{row['success_count']}/{row['failure_count']} {row['status']}"


@pytest.fixture
def projected(stream: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    """A database with one run, whose execution has no row yet."""
    stream.publish(exec_id="late")
    run_until_idle(rows)
    return rows


def test_a_worker_promotes_at_its_start_and_at_every_interval(
    projected: Rows, start_worker: StartWorker
) -> None:
    projected.write(EXECUTION, "late")
    worker = start_worker(projected, "--upkeep-every", "100ms", pulling=True)
    worker.until(lambda: status(projected) == "0/0 running")
    projected.write(END)
    projected.write("UPDATE executions SET status = 'pending'")
    worker.until(lambda: status(projected) == "1/0 completed")
    assert worker.stop() == 0
    assert worker.counters["executions_promoted_late"] == 2
    assert [line["executions"] for line in worker.logged("executions.promoted")] == [1, 1]


def test_until_idle_includes_every_page_of_the_sweep(
    projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    for number in range(600):
        projected.write(EXECUTION, f"e-{number}")
    projected.write(RUN, "e-1")
    projected.write(SLOW)
    projected.write(EXECUTION, "late")
    run_until_idle(projected)
    assert status(projected) == status(projected, "e-1") == "0/0 running"


def test_the_sweep_goes_on_after_a_fault_and_without_a_broker(
    projected: Rows, start_worker: StartWorker, make_server: MakeServer
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
    worker = start_worker(projected, "--upkeep-every", "100ms", nats=server.url, pulling=True)
    worker.wait_for("worker.ready")
    server.kill()
    worker.wait_for("pull.lost")
    projected.write("ALTER TABLE executions RENAME TO elsewhere")
    worker.wait_for("upkeep.failed")
    projected.write(EXECUTION.replace("executions", "elsewhere"), "late")
    projected.write("ALTER TABLE elsewhere RENAME TO executions")
    worker.until(lambda: status(projected) == "0/0 running")


def test_the_command_promotes_beside_a_worker_and_reports_what_is_rejected(
    projected: Rows, projector: Projector, start_worker: StartWorker
) -> None:
    start_worker(projected, "--upkeep-every", "1h", pulling=True).wait_for("worker.ready")
    assert projector("upkeep", "--once").output.splitlines()[-1] == "0 promoted"
    projected.write(EXECUTION, "late")
    projected.write(FROZEN)
    rejected = projector("upkeep", "--once", "--json")
    assert (rejected.code, rejected.document["failed"]) == (1, 1)
    assert "frozen" in rejected.document["changes"][0]["error"]
    projected.write("DROP TRIGGER frozen")
    done = projector("upkeep", "--once")
    assert (done.code, done.output.splitlines()[-1]) == (0, "1 promoted")
    assert status(projected) == "0/0 running"
    assert projector("upkeep").code == 64
    projected.write("DROP TABLE executions")
    assert projector("upkeep", "--once").code == 78


def test_the_sweep_goes_on_after_a_catch_up_that_failed_with_nothing_left_to_receive(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    stream.publish_starts(events.start(result_id=f"run-{n}", exec_id="e") for n in range(12_000))
    run_until_idle(rows)
    wipe(rows)
    impatient = ("--retry-for", "500ms", "--busy-timeout", "100ms")
    worker = start_worker(rows, "--upkeep-every", "1s", "--batch", "20", *impatient)
    worker.wait_for("catch_up.started")
    with rows.locked():
        worker.wait_for("database.unavailable")
    worker.wait_for("catch_up.finished", within=30)
    worker.wait_for("worker.ready", times=2)
    rows.insert_execution("e", 12_001)
    worker.until(lambda: rows.execution("e") == "0/0 running")
