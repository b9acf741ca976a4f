"""An unexpected error is logged, and the worker continues or ends: it never only looks alive."""

import pytest

from tests.conftest import RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.faulty_worker import PLACES, PLACES_OF_RESULTS
from tests.support.outcome import assert_complete
from tests.support.rows import Rows


@pytest.mark.parametrize("place", PLACES)
def test_an_unexpected_error_is_logged_with_its_causes_and_the_worker_continues_or_exits_with_70(
    deployment: Broker, rows: Rows, start_worker: StartWorker, place: str
) -> None:
    result_ids = [f"run-{number}" for number in range(50)]
    deployment.publish_starts(events.start(result_id=name) for name in result_ids)
    worker = start_worker(rows, "--ack-wait", "1s", "--batch", "10", fault=("bug", place))
    worker.until(lambda: not worker.is_running() or rows.count() == len(result_ids))
    line = worker.wait_for_error(None, "the injected bug", "behind the injected bug")
    assert line["level"] in {"error", "critical"}
    if not worker.is_running():
        assert worker.exit_code() == 70
        assert worker.lines[-1]["event"] == "worker.failed"
        worker = start_worker(rows, "--ack-wait", "1s", pulling=True)
    assert_complete(deployment, rows, result_ids, worker=worker)
    # A worker that continues does all its work: later starts get a row with a deadline.
    deployment.publish(result_id="after")
    row = worker.until(lambda: rows.run("after"))
    assert row is not None
    assert row["expires_at"] is not None
    assert worker.stop() == 0


@pytest.mark.parametrize("place", PLACES_OF_RESULTS)
def test_an_unexpected_error_on_the_way_of_a_result_ends_the_worker_and_costs_no_result(
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
    place: str,
) -> None:
    deployment.make_results_stream()
    deployment.make_output_bucket()
    deployment.put_output("request/stdout", b"output")
    deployment.publish(result_id="run")
    deployment.publish_results([events.result(result_id="run", stdout_object="request/stdout")])
    options = ("--ack-wait", "1s")
    worker = start_worker(rows, *options, results=True, fault=("bug", place))
    assert worker.exit_code() == 70
    assert "the injected bug" in worker.lines[-1]["error"]
    run_until_idle(rows, *options, results=True)
    assert (rows.run("run") or {})["stdout"] == "output"
