"""The worker is killed at any instant: its successor loses no message and repeats none."""

import random
import signal
import time

import pytest

from tests.conftest import RunUntilIdle, StartPublisher, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_complete, recovery_lines, wait_for_more
from tests.support.rows import Rows
from tests.support.scale import new_seed, short_and_long
from tests.support.waiting import until

pytestmark = pytest.mark.every_engine

ACK_WAIT = ("--ack-wait", "2s")


@short_and_long("kills", short=5, long=50, timeout=400)
def test_the_successor_of_workers_that_were_killed_under_load_completes_their_work(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    kills: int,
    start_publisher: StartPublisher,
) -> None:
    instants = random.Random(new_seed())
    rows.write(
        "INSERT INTO executions"
        " (exec_id, job_id, version, initiated_by, initiated_at, target_count)"
        " VALUES ('execution-1', 'job-1', '1', 'me', '2026-05-20T12:00:00+00:00', 1)"
    )
    publisher = start_publisher(server.url, malformed_every=50, rest=0.1)
    for _ in range(kills):
        worker = start_worker(rows, *ACK_WAIT, "--batch", str(instants.choice((1, 20, 500))))
        # From the first moments of the process to the middle of its work.
        until(time.monotonic() + instants.uniform(0.1, 2.0))
        assert worker.is_running()
        worker.kill()
        assert recovery_lines(worker) == []
    result_ids = publisher.stop()
    successor = start_worker(rows, *ACK_WAIT, "--until-idle")
    assert successor.exit_code(within=40) == 0
    assert recovery_lines(successor) == []
    assert_complete(stream, rows, result_ids, publisher.malformed)
    assert rows.query("SELECT status FROM executions") == [{"status": "running"}]


@pytest.mark.parametrize("fault", ["before-commit", "after-commit", "after-ack"])
def test_the_successor_of_a_worker_that_was_killed_around_its_commit_completes_its_work(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle, fault: str
) -> None:
    result_ids = [f"run-{index:03}" for index in range(60)]
    stream.publish_starts(events.start(result_id=name) for name in result_ids[:40])
    stream.publish(b"not JSON")
    stream.publish_starts(events.start(result_id=name) for name in result_ids[40:])
    options = ("--ack-wait", "1s", "--batch", "10")
    killed = start_worker(rows, *options, fault=(f"killed-{fault}", 3))
    assert killed.exit_code() == -signal.SIGKILL
    assert rows.count() < len(result_ids)
    run_until_idle(rows)
    assert_complete(stream, rows, result_ids, [b"not JSON"])


@short_and_long("kills", short=3, long=25, timeout=400)
def test_two_workers_that_share_a_consumer_take_over_from_each_other_when_one_is_killed(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    kills: int,
    start_publisher: StartPublisher,
) -> None:
    publisher = start_publisher(server.url, malformed_every=50, rest=0.1)
    workers = [start_worker(rows, *ACK_WAIT, "--batch", "50") for _ in range(2)]
    for number in range(kills):
        for worker in workers:
            worker.wait_for("pull.started")
        wait_for_more(rows, workers[0])
        workers[number % 2].kill()
        assert recovery_lines(workers[number % 2]) == []
        workers[number % 2] = start_worker(rows, *ACK_WAIT, "--batch", "50")
    result_ids = publisher.stop()
    assert_complete(stream, rows, result_ids, publisher.malformed, within=30)
    for worker in workers:
        worker.wait_for("pull.started")
        assert worker.stop() == 0
        assert worker.logged("worker.failed") == recovery_lines(worker) == []
