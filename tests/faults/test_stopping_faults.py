"""A stop ends in time whatever else is wrong, and what was not committed is delivered again."""

import random
import signal
import time

from tests.conftest import MakeServer, RunUntilIdle, StartPublisher, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_complete
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import new_seed, short_and_long
from tests.support.waiting import until
from tests.support.worker_process import UNCLOSED, WorkerProcess

LEEWAY = 2.0


@short_and_long("stops", short=4, long=40, timeout=400)
def test_a_stop_at_any_instant_under_load_ends_in_time_and_leaves_no_message_stuck(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    stops: int,
    start_publisher: StartPublisher,
) -> None:
    instants = random.Random(new_seed())
    publisher = start_publisher(server.url, malformed_every=50, rest=0.1)
    # The test would time out if a message had to wait for its redelivery.
    options = ("--ack-wait", "120s", "--drain-timeout", "5s", "--batch", "20")
    workers = []
    for number in range(stops):
        worker = start_worker(rows, *options)
        worker.wait_for("worker.starting")
        until(time.monotonic() + instants.uniform(0.0, 1.5))
        began = time.monotonic()
        worker.send((signal.SIGTERM, signal.SIGINT)[number % 2])
        assert worker.exit_code(within=5 + LEEWAY) == 0
        assert time.monotonic() - began < 5 + LEEWAY
        assert worker.logged("worker.drain_incomplete") == []
        assert worker.counters["acks_dropped"] == 0
        workers.append(worker)
    result_ids = publisher.stop()
    successor = start_worker(rows, *options, "--until-idle")
    assert successor.exit_code(within=30) == 0
    assert_complete(stream, rows, result_ids, publisher.malformed)
    inserted = [worker.counters["runs_inserted"] for worker in (*workers, successor)]
    assert sum(inserted) == len(result_ids)


def test_a_stop_with_slow_commits_ends_soon_after_the_drain_timeout(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    result_ids = [f"run-{number:04}" for number in range(2000)]
    stream.publish_starts(events.start(result_id=name) for name in result_ids)
    options = ("--ack-wait", "2s", "--batch", "100", "--drain-timeout", "0.5s")
    worker = start_worker(rows, *options, fault=("slow-commits", 2))
    worker.until(lambda: stream.has_consumer() and stream.consumer().num_ack_pending)
    assert worker.stop(within=0.5 + LEEWAY + 1) == 0
    assert rows.count() < len(result_ids)
    run_until_idle(rows)
    assert_complete(stream, rows, result_ids)


def test_a_batch_that_has_begun_is_committed_when_the_lock_ends_before_the_drain_timeout(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--drain-timeout", "10s", "--retry-for", "60s", pulling=True)
    with rows.locked():
        stream.publish(result_id="begun")
        worker.until(lambda: stream.consumer().num_ack_pending == 1)
        worker.send(signal.SIGTERM)
        worker.wait_for("worker.draining")
        assert worker.is_running()
    assert worker.exit_code(within=12) == 0
    assert_complete(stream, rows, ["begun"])


def test_a_drain_does_not_wait_long_for_a_broker_that_is_gone(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    # All three at the same time with a broker each, because each takes several seconds.
    servers = {fault: make_server().start() for fault in ("killed", "frozen", "half-open")}
    result_ids = {fault: [f"{fault}-{number:03}" for number in range(500)] for fault in servers}
    workers: dict[str, WorkerProcess] = {}
    with Proxy(servers["half-open"].port) as proxy:
        for fault, server in servers.items():
            with Broker(server.url) as broker:
                broker.make_stream()
                broker.publish_starts(events.start(result_id=name) for name in result_ids[fault])
            workers[fault] = start_worker(
                rows,
                *("--ack-wait", "2s", "--batch", "20", "--drain-timeout", "3s"),
                nats=proxy.url if fault == "half-open" else server.url,
                environment=UNCLOSED,
                fault=("slow-commits", 0.2),
            )
        for fault, worker in workers.items():
            worker.until(lambda: any(name.startswith(fault) for name in rows.result_ids()))  # noqa: B023
        for worker in workers.values():
            worker.send(signal.SIGTERM)
        for worker in workers.values():
            worker.wait_for("worker.draining")
        servers["killed"].kill()
        servers["frozen"].send(signal.SIGSTOP)
        proxy.make_half_open()
        began = time.monotonic()
        for worker in workers.values():
            assert worker.exit_code(within=3 + LEEWAY) == 0
            assert worker.logged("worker.failed") == []
        assert time.monotonic() - began < 3 + LEEWAY
    for fault, server in servers.items():
        server.kill()
        server.start()
        workers[fault] = start_worker(rows, "--until-idle", nats=server.url)
    for fault, server in servers.items():
        assert workers[fault].exit_code(within=30) == 0
        with Broker(server.url) as broker:
            assert broker.is_acked()
    assert rows.result_ids() == sorted(name for names in result_ids.values() for name in names)
