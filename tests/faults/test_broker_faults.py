"""The broker dies, freezes or leaves while the worker runs, which notices it and reconnects."""

import signal
import time

from tests.conftest import MakeServer, StartPublisher, StartWorker
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_complete, assert_counted, assert_published, wait_for_more
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.waiting import eventually, until
from tests.support.worker_process import UNCLOSED

USERS = "authorization {{ users: [ {{ user: all, password: x }}{more} ] }}"
FLEET = ", { user: fleet, password: x }"


def leave_in_lame_duck_mode(server: NatsServer) -> None:
    server.send(signal.SIGUSR2)
    eventually(server.ended, 20, lambda: server.log)
    server.stop()


@short_and_long("ends", short=3, long=30, timeout=600)
def test_a_broker_that_is_killed_stopped_or_in_lame_duck_mode_is_pulled_from_again_after_its_return(
    make_server: MakeServer,
    rows: Rows,
    start_worker: StartWorker,
    ends: int,
    start_publisher: StartPublisher,
) -> None:
    server = make_server('lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"').start()
    worker = start_worker(
        rows, "--create-stream", "--ack-wait", "4s", nats=server.url, pulling=True
    )
    publisher = start_publisher(server.url, malformed_every=50, rest=0.1)
    for number in range(ends):
        wait_for_more(rows, worker)
        (NatsServer.kill, NatsServer.stop, leave_in_lame_duck_mode)[number % 3](server)
        server.start()
        worker.wait_for("pull.started", times=number + 2, within=10)
    wait_for_more(rows, worker)
    with Broker(server.url) as broker:
        assert_published(broker, rows, publisher, worker)
        assert broker.stream_info().state.messages >= rows.count() + len(rows.rejected())
    assert len(worker.logged("broker.disconnected")) >= ends
    assert len(worker.logged("worker.started")) == 1
    assert worker.stop() == 0
    assert worker.counters["runs_inserted"] == rows.count()
    assert_counted(worker)


@short_and_long("times", short=1, long=5, timeout=400)
def test_a_frozen_broker_and_a_half_open_connection_are_noticed_and_replaced(
    make_server: MakeServer,
    rows: Rows,
    start_worker: StartWorker,
    times: int,
    start_publisher: StartPublisher,
) -> None:
    # Both at the same time with a broker each, because each takes several seconds.
    frozen, reached = make_server().start(), make_server().start()
    with Proxy(reached.port) as proxy:
        options = ("--create-stream", "--ack-wait", "4s")
        at_frozen = start_worker(rows, *options, nats=frozen.url, environment=UNCLOSED)
        at_half_open = start_worker(rows, *options, nats=proxy.url, environment=UNCLOSED)
        sides = (("frozen", frozen, at_frozen), ("half-open", reached, at_half_open))
        for _, _, worker in sides:
            worker.wait_for("pull.started")
        publishers = [
            start_publisher(server.url, prefix=prefix, malformed_every=50, rest=0.5)
            for prefix, server, _ in sides
        ]
        for number in range(times):
            for prefix, _, worker in sides:
                wait_for_more(rows, worker, prefix)
            connections = proxy.connections
            lost = len(at_frozen.logged("pull.lost"))
            proxy.make_half_open()
            frozen.send(signal.SIGSTOP)
            began = time.monotonic()
            at_frozen.wait_for("pull.lost", times=lost + 1, within=12)
            # As long as a firewall or a paused virtual machine may take, in the long form.
            until(began + (15 if number else 8))
            frozen.send(signal.SIGCONT)
            at_half_open.until(lambda: proxy.connections > connections, 35)  # noqa: B023
            for prefix, _, worker in sides:
                wait_for_more(rows, worker, prefix, within=20)
        for (_, server, worker), publisher in zip(sides, publishers, strict=True):
            with Broker(server.url) as broker:
                assert_published(broker, rows, publisher, worker)
            assert worker.stop() == 0


def test_a_connection_that_the_server_refuses_is_replaced_once_the_user_is_allowed_again(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(USERS.format(more=FLEET)).start()
    with Broker(server.login("all")) as broker:
        broker.make_stream()
        worker = start_worker(rows, nats=server.login("fleet"), environment=UNCLOSED)
        broker.publish(result_id="before")
        worker.until(lambda: rows.count() == 1 and broker.is_acked())
        server.configure(USERS.format(more=""))
        worker.wait_for_error(None, "authorization violation")
        broker.publish(result_id="meanwhile")
        refused = server.log.count("authentication error")
        worker.until(lambda: server.log.count("authentication error") > refused + 1)
        assert worker.is_running()
        assert rows.result_ids() == ["before"]
        server.configure(USERS.format(more=FLEET))
        worker.until(lambda: rows.count() == 2)
        assert_complete(broker, rows, ["before", "meanwhile"])
        assert worker.stop() == 0


def test_a_server_error_that_closes_the_client_for_good_is_logged_and_leads_to_a_new_client(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    endings = ("Maximum Payload Violation", "User Authentication Expired")
    with Proxy(server.port) as proxy, Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "2s", nats=proxy.url)
        for number, ending in enumerate(endings, start=1):
            worker.wait_for("pull.started", times=number)
            broker.publish(result_id=f"before-{number}")
            worker.until(lambda: rows.count() % 2 == 1)
            connections = proxy.connections
            proxy.send(f"-ERR '{ending}'\r\n".encode())
            broker.publish(result_id=f"after-{number}")
            worker.until(lambda: rows.count() % 2 == 0)
            assert proxy.connections > connections
            worker.wait_for_error(None, ending)
        assert_complete(broker, rows, rows.result_ids(), worker=worker)
        assert rows.count() == 2 * len(endings)
        assert worker.stop() == 0


@short_and_long("times", short=3, long=30, timeout=300)
def test_a_consumer_that_is_deleted_under_load_is_recreated_and_no_message_is_skipped(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    times: int,
    start_publisher: StartPublisher,
) -> None:
    worker = start_worker(rows, "--ack-wait", "2s")
    publisher = start_publisher(server.url, malformed_every=50, rest=0.1)
    for number in range(times):
        wait_for_more(rows, worker)
        stream.delete_consumer()
        worker.wait_for("consumer.recreated", times=number + 1, within=15)
    wait_for_more(rows, worker)
    result_ids = publisher.stop()
    assert_complete(stream, rows, result_ids, publisher.malformed, worker=worker)
    assert stream.consumer().config.filter_subject == "events.started.>"
    assert worker.stop() == 0
    assert_counted(worker)


@short_and_long("times", short=2, long=20, timeout=300)
def test_a_stream_that_is_recreated_under_load_is_read_from_its_first_message(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    times: int,
    start_publisher: StartPublisher,
) -> None:
    worker = start_worker(rows, "--ack-wait", "2s")
    for number in range(times):
        publisher = start_publisher(
            server.url, prefix=f"lost-{number}", malformed_every=50, rest=0.05
        )
        wait_for_more(rows, worker)
        publisher.stop()
        stream.delete_stream()
        stream.make_stream()
        # The first messages are there before the worker can notice the new stream.
        result_ids = [f"kept-{number}-{index:04}" for index in range(300)]
        malformed = f"malformed-{number}".encode()
        for name in result_ids[:10]:
            stream.publish(result_id=name)
        stream.publish(malformed)
        for name in result_ids[10:]:
            stream.publish(result_id=name)
        worker.wait_for("consumer.recreated", times=number + 1, within=20)
        worker.until(lambda: set(result_ids) <= set(rows.result_ids()), 20)  # noqa: B023
        worker.until(stream.is_acked)
        kept = [row["stream_sequence"] for row in rows.rejected() if row["payload"] == malformed]
        assert kept == [11]
    assert worker.stop() == 0
