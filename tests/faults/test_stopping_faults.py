"""A stop while something else is wrong: it ends in time, and what was not committed comes again."""

import random
import signal
import time
from functools import partial

from tests.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker, Publisher
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_whole
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.seeds import new_seed
from tests.support.waiting import eventually, until
from tests.support.worker_process import UNCLOSED, WorkerProcess

LEEWAY = 2.0


@short_and_long("stops", short=3, long=40, timeout=400)
def test_stops_at_any_instant_under_load_end_in_time_and_leave_nothing_stuck(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker, stops: int
) -> None:
    instants = random.Random(new_seed())
    broker.make_stream()
    publisher = Publisher(server.url, malformed_every=50, rest=0.1)
    for _ in range(stops):
        # A message that is left to this ack wait would stay stuck for longer than the test.
        worker = start_worker(rows, "--ack-wait", "120s", "--drain-timeout", "5s")
        worker.wait_for("worker.starting")
        until(time.monotonic() + instants.uniform(0.0, 1.5))
        began = time.monotonic()
        assert worker.stop(within=5 + LEEWAY) == 0
        assert time.monotonic() - began < 5 + LEEWAY
        assert worker.logged("worker.drain_incomplete") == []
    result_ids = publisher.stop()
    successor = start_worker(rows, "--ack-wait", "120s", "--until-idle")
    assert successor.exit_code(within=30) == 0
    assert_whole(broker, rows, result_ids, publisher.malformed)


def test_past_a_drain_timeout_that_is_too_short_it_ends_all_the_same(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    drain = 0.5
    broker.make_stream()
    result_ids = [f"run-{number:04}" for number in range(2000)]
    broker.publish_starts(events.start(result_id=name) for name in result_ids)
    environment, command = faulty("slow-commits", 2)
    options = ("--ack-wait", "2s", "--batch", "100", "--drain-timeout", f"{drain}s")
    worker = start_worker(rows, *options, environment=environment, command=command)
    eventually(
        lambda: broker.has_consumer() and broker.consumer().num_ack_pending, 10, lambda: worker.text
    )
    assert worker.stop(within=drain + LEEWAY + 1) == 0
    assert rows.count() < len(result_ids)
    successor = start_worker(rows, "--until-idle")
    assert successor.exit_code(within=30) == 0
    assert_whole(broker, rows, result_ids)


def test_a_database_that_is_locked_while_draining_is_given_up_in_time(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    result_ids = [f"run-{number:03}" for number in range(300)]
    worker = start_worker(
        rows, "--batch", "50", "--ack-wait", "2s", "--drain-timeout", "2s", "--retry-for", "60s"
    )
    worker.wait_for("pull.started")
    with rows.locked():
        broker.publish_starts(events.start(result_id=name) for name in result_ids)
        eventually(lambda: broker.consumer().num_ack_pending == 300, 10, lambda: worker.text)
        assert worker.stop(within=2 + LEEWAY) == 0
        assert rows.count() == 0
    successor = start_worker(rows, "--until-idle")
    assert successor.exit_code(within=20) == 0
    assert_whole(broker, rows, result_ids)


def test_a_database_whose_lock_goes_while_draining_takes_what_has_begun(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--drain-timeout", "10s", "--retry-for", "60s")
    worker.wait_for("pull.started")
    with rows.locked():
        broker.publish(result_id="begun")
        eventually(lambda: broker.consumer().num_ack_pending == 1, 10, lambda: worker.text)
        worker.send(signal.SIGTERM)
        worker.wait_for("worker.draining")
        assert worker.is_running()
    assert worker.exit_code(within=12) == 0
    assert_whole(broker, rows, ["begun"])


def test_a_broker_that_is_gone_while_draining_is_not_waited_for_too_long(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    # All three at once, each with a broker of its own, since each takes its time.
    servers = {fault: make_server().start() for fault in ("killed", "frozen", "half-open")}
    result_ids = {fault: [f"{fault}-{number:03}" for number in range(500)] for fault in servers}
    with Proxy(servers["half-open"].port) as proxy:
        workers: dict[str, WorkerProcess] = {}
        for fault, server in servers.items():
            with Broker(server.url) as broker:
                broker.make_stream()
                broker.publish_starts(events.start(result_id=name) for name in result_ids[fault])
            environment, command = faulty("slow-commits", 0.2)
            workers[fault] = start_worker(
                rows,
                *("--ack-wait", "2s", "--batch", "20", "--drain-timeout", "3s"),
                nats=proxy.url if fault == "half-open" else server.url,
                environment={**environment, **UNCLOSED},
                command=command,
            )
        for fault, worker in workers.items():
            prefixed = partial(_some_are_there, rows, fault)
            eventually(prefixed, 10, lambda worker=worker: worker.text)  # type: ignore[misc]
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
    successors = {}
    for fault, server in servers.items():
        server.kill()
        server.start()
        successors[fault] = start_worker(rows, "--until-idle", nats=server.url)
    for fault, server in servers.items():
        assert successors[fault].exit_code(within=30) == 0
        with Broker(server.url) as broker:
            assert broker.is_settled()
    assert rows.result_ids() == sorted(name for names in result_ids.values() for name in names)


def _some_are_there(rows: Rows, prefix: str) -> bool:
    sql = "SELECT 1 FROM execution_results WHERE result_id LIKE ? || '%' LIMIT 1"
    return bool(rows.query(sql, prefix))
