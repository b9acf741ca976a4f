"""The worker is killed at any instant: its successor finishes; nothing lost, twice or stuck."""

import random
import signal
import time

import pytest

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker, Publisher
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_whole
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.seeds import new_seed
from tests.support.waiting import eventually, until

ACK_WAIT = ("--ack-wait", "2s")


@short_and_long("kills", short=5, long=50, timeout=400)
def test_a_worker_that_is_killed_again_and_again_while_events_stream_in_is_made_good(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker, kills: int
) -> None:
    instants = random.Random(new_seed())
    rows.write(
        "INSERT INTO executions"
        " (exec_id, job_id, version, initiated_by, initiated_at, target_count)"
        " VALUES ('execution-1', 'job-1', '1', 'me', '2026-05-20T12:00:00+00:00', 1)"
    )
    broker.make_stream()
    publisher = Publisher(server.url, malformed_every=50, rest=0.1)
    for _ in range(kills):
        worker = start_worker(rows, *ACK_WAIT, "--batch", str(instants.choice((1, 20, 500))))
        # From the first moments of the process to well into its work.
        until(time.monotonic() + instants.uniform(0.1, 2.0))
        assert worker.is_running()
        worker.kill()
    result_ids = publisher.stop()
    successor = start_worker(rows, *ACK_WAIT, "--until-idle")

    assert successor.exit_code(within=40) == 0
    assert_whole(broker, rows, result_ids, publisher.malformed)
    assert rows.query("SELECT status FROM executions") == [{"status": "running"}]


@pytest.mark.parametrize("fault", ["before-commit", "after-commit", "after-ack"])
def test_a_worker_that_is_killed_around_its_commit_is_made_good(
    broker: Broker, rows: Rows, start_worker: StartWorker, fault: str
) -> None:
    broker.make_stream()
    result_ids = [f"run-{index:03}" for index in range(60)]
    broker.publish_starts(events.start(result_id=name) for name in result_ids[:40])
    broker.publish(b"no start")
    broker.publish_starts(events.start(result_id=name) for name in result_ids[40:])
    environment, command = faulty(f"killed-{fault}", 3)
    options = ("--ack-wait", "1s", "--batch", "10")
    killed = start_worker(rows, *options, environment=environment, command=command)
    assert killed.exit_code() == -signal.SIGKILL
    assert rows.count() < len(result_ids)

    successor = start_worker(rows, "--until-idle")
    assert successor.exit_code() == 0
    assert_whole(broker, rows, result_ids, [b"no start"])


@short_and_long("kills", short=3, long=25, timeout=400)
def test_workers_that_share_a_durable_take_over_from_each_other_when_one_is_killed(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker, kills: int
) -> None:
    broker.make_stream()
    publisher = Publisher(server.url, malformed_every=50, rest=0.1)
    workers = [start_worker(rows, *ACK_WAIT, "--batch", "50") for _ in range(2)]
    for number in range(kills):
        for worker in workers:
            worker.wait_for("pull.started")
        seen = rows.count()
        eventually(lambda seen=seen: rows.count() > seen + 200, 10)  # type: ignore[misc]
        workers[number % 2].kill()
        workers[number % 2] = start_worker(rows, *ACK_WAIT, "--batch", "50")
    result_ids = publisher.stop()
    assert_whole(broker, rows, result_ids, publisher.malformed, within=30)
    for worker in workers:
        worker.wait_for("pull.started")
        assert worker.stop() == 0
        assert worker.logged("worker.failed") == []
