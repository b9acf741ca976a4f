"""A bug ends a thread or a task: it is seen and told, and the worker never only looks alive."""

import pytest

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.faulty_worker import BUGS, faulty
from tests.support.outcome import assert_whole
from tests.support.rows import Rows
from tests.support.waiting import eventually


@pytest.mark.parametrize("place", BUGS)
def test_a_bug_is_told_with_its_causes_and_the_worker_goes_on_or_ends_with_70(
    broker: Broker, rows: Rows, start_worker: StartWorker, place: str
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    result_ids = [f"run-{number}" for number in range(50)]
    broker.publish_starts(events.start(result_id=name) for name in result_ids)
    environment, command = faulty("bug", place)
    worker = start_worker(
        rows, "--ack-wait", "1s", "--batch", "10", environment=environment, command=command
    )
    # Whichever way it takes, it takes it soon.
    eventually(
        lambda: not worker.is_running() or rows.count() == len(result_ids), 15, lambda: worker.text
    )
    told = worker.wait_for_error(None, "the injected bug", "behind the injected bug")
    assert told["level"] in {"error", "critical"}
    if not worker.is_running():
        assert worker.exit_code() == 70
        assert worker.lines[-1]["event"] == "worker.stopped"
        worker = start_worker(rows, "--ack-wait", "1s")
        worker.wait_for("pull.started")
    assert_whole(broker, rows, result_ids, otherwise=lambda: worker.text)
    # It is no half of a worker either: what comes now is done as ever.
    broker.publish(result_id="after")
    row = eventually(lambda: rows.run("after"), 10, lambda: worker.text)
    assert row is not None
    assert row["expires_at"] is not None
    assert worker.stop() == 0
