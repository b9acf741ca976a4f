"""The broker dies, freezes or leaves while the worker runs: it is noticed, and mended by itself."""

import signal
import time

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker, Publisher
from tests.support.outcome import assert_whole
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.waiting import eventually, until
from tests.support.worker_process import UNCLOSED, WorkerProcess

# What was published again and again for want of an answer makes a long queue.
SETTLED = 60.0

USERS = "authorization {{ users: [ {{ user: all, password: x }}{more} ] }}"
FLEET = ", { user: fleet, password: y }"


@short_and_long("kills", short=2, long=25, timeout=500)
def test_a_broker_that_is_killed_and_comes_back_is_pulled_from_again_within_seconds(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, kills: int
) -> None:
    server = make_server().start()
    worker = start_worker(rows, "--create-stream", "--ack-wait", "4s", nats=server.url)
    worker.wait_for("pull.started")
    publisher = Publisher(server.url, malformed_every=50, rest=0.1)
    for number in range(kills):
        _rows_arrive(rows, worker)
        server.kill()
        server.start()
        worker.wait_for("pull.started", times=number + 2, within=10)
    _rows_arrive(rows, worker)
    result_ids = publisher.stop()
    with Broker(server.url) as broker:
        eventually(broker.is_settled, SETTLED, lambda: worker.text)
        in_stream = broker.stream_info().state.messages
    # A group of events that was not confirmed is published again: there may be more than rows.
    assert set(result_ids) <= set(rows.result_ids())
    assert set(publisher.malformed) <= {row["payload"] for row in rows.rejected()}
    assert in_stream >= rows.count() + len(rows.rejected())
    assert len(worker.logged("broker.disconnected")) >= kills
    assert worker.stop() == 0


@short_and_long("times", short=1, long=5, timeout=400)
def test_frozen_brokers_and_half_open_connections_are_noticed_and_gone_on_without(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    # Both at once, each with a broker and a consumer of its own, since each takes its time.
    frozen, reached = make_server().start(), make_server().start()
    with Proxy(reached.port) as proxy:
        options = ("--create-stream", "--ack-wait", "4s")
        at_frozen = start_worker(rows, *options, nats=frozen.url, environment=UNCLOSED)
        at_half_open = start_worker(rows, *options, nats=proxy.url, environment=UNCLOSED)
        workers = {"frozen": at_frozen, "half-open": at_half_open}
        for worker in workers.values():
            worker.wait_for("pull.started")
        publishers = {
            prefix: Publisher(server.url, prefix=prefix, malformed_every=50, rest=0.5)
            for prefix, server in (("frozen", frozen), ("half-open", reached))
        }
        for _ in range(times):
            for prefix, worker in workers.items():
                _rows_arrive(rows, worker, prefix)
            connections = proxy.connections
            lost = len(at_frozen.logged("pull.lost"))
            proxy.make_half_open()
            frozen.send(signal.SIGSTOP)
            began = time.monotonic()
            at_frozen.wait_for("pull.lost", times=lost + 1, within=12)
            until(began + 15)
            frozen.send(signal.SIGCONT)
            eventually(
                lambda connections=connections: proxy.connections > connections,  # type: ignore[misc]
                35,
                lambda: at_half_open.text,
            )
            for prefix, worker in workers.items():
                _rows_arrive(rows, worker, prefix, within=20)
        for prefix, server in (("frozen", frozen), ("half-open", reached)):
            worker, publisher = workers[prefix], publishers[prefix]
            result_ids = publisher.stop()
            with Broker(server.url) as broker:
                eventually(broker.is_settled, SETTLED, lambda worker=worker: worker.text)  # type: ignore[misc]
            # What had no answer was published again: it may be there twice, and makes one row.
            assert set(result_ids) <= set(rows.result_ids())
            assert set(publisher.malformed) <= {row["payload"] for row in rows.rejected()}
            assert worker.stop() == 0


def test_a_broker_in_lame_duck_mode_is_left_and_found_again(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server('lame_duck_duration: "30s"\nlame_duck_grace_period: "1s"').start()
    worker = start_worker(rows, "--create-stream", "--ack-wait", "4s", nats=server.url)
    publisher = Publisher(server.url, malformed_every=50, rest=0.1)
    eventually(lambda: rows.count() > 200, 10, lambda: worker.text)
    server.send(signal.SIGUSR2)
    eventually(server.ended, 20, lambda: server.log)
    server.stop()
    assert worker.is_running()
    server.start()
    _rows_arrive(rows, worker, within=15)
    result_ids = publisher.stop()
    with Broker(server.url) as broker:
        eventually(broker.is_settled, SETTLED, lambda: worker.text)
    assert set(result_ids) <= set(rows.result_ids())
    assert set(publisher.malformed) <= {row["payload"] for row in rows.rejected()}
    assert worker.stop() == 0


def test_a_connection_that_the_server_ends_for_good_is_made_anew_once_it_is_allowed(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(USERS.format(more=FLEET)).start()
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
        url = f"nats://fleet:y@127.0.0.1:{server.port}"
        worker = start_worker(rows, nats=url, environment=UNCLOSED)
        broker.publish(result_id="before")
        eventually(lambda: rows.count() == 1, 5, lambda: worker.text)
        server.configure(USERS.format(more=""))
        worker.wait_for_error(None, "authorization violation")
        broker.publish(result_id="meanwhile")
        refused = server.log.count("authentication error")
        eventually(lambda: server.log.count("authentication error") > refused + 1, 10)
        assert worker.is_running()
        assert rows.result_ids() == ["before"]
        server.configure(USERS.format(more=FLEET))
        eventually(lambda: rows.count() == 2, 15, lambda: worker.text)
        assert_whole(broker, rows, ["before", "meanwhile"])
        assert worker.stop() == 0


def test_a_server_error_that_closes_the_client_for_good_is_told_and_leads_to_a_new_client(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Proxy(server.port) as proxy, Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "2s", nats=proxy.url)
        endings = ("Maximum Payload Violation", "User Authentication Expired")
        for number, ending in enumerate(endings, start=1):
            worker.wait_for("pull.started", times=number)
            broker.publish(result_id=f"before-{number}")
            eventually(lambda: rows.count() % 2 == 1, 5, lambda: worker.text)
            connections = proxy.connections
            proxy.say(f"-ERR '{ending}'\r\n".encode())
            broker.publish(result_id=f"after-{number}")
            eventually(lambda: rows.count() % 2 == 0, 15, lambda: worker.text)
            assert proxy.connections > connections
            worker.wait_for_error(None, ending)
        assert_whole(broker, rows, rows.result_ids(), otherwise=lambda: worker.text)
        assert rows.count() == 2 * len(endings)
        assert worker.stop() == 0


@short_and_long("times", short=3, long=30, timeout=300)
def test_a_durable_that_is_deleted_under_load_is_bound_anew_and_nothing_is_skipped(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "2s", nats=server.url)
        publisher = Publisher(server.url, malformed_every=50, rest=0.1)
        for number in range(times):
            _rows_arrive(rows, worker)
            broker.delete_consumer()
            worker.wait_for("consumer.recreated", times=number + 1, within=15)
        _rows_arrive(rows, worker)
        result_ids = publisher.stop()
        assert_whole(broker, rows, result_ids, publisher.malformed, otherwise=lambda: worker.text)
        assert worker.stop() == 0


@short_and_long("times", short=2, long=20, timeout=300)
def test_a_stream_that_is_deleted_and_made_again_under_load_is_read_from_its_beginning(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "2s", nats=server.url)
        for number in range(times):
            publisher = Publisher(
                server.url, prefix=f"lost-{number}", malformed_every=50, rest=0.05
            )
            _rows_arrive(rows, worker)
            publisher.stop()
            broker.delete_stream()
            broker.make_stream()
            # At once, before the worker can have noticed: the first sequences of the new stream.
            wanted = [f"kept-{number}-{index:04}" for index in range(300)]
            for name in wanted[:10]:
                broker.publish(result_id=name)
            malformed = f"malformed-{number}".encode()
            broker.publish(malformed)
            for name in wanted[10:]:
                broker.publish(result_id=name)
            worker.wait_for("consumer.recreated", times=number + 1, within=20)
            eventually(
                lambda wanted=wanted: set(wanted) <= set(rows.result_ids()),  # type: ignore[misc]
                20,
                lambda: worker.text,
            )
            eventually(broker.is_settled, 10, lambda: worker.text)
            assert [
                row["stream_sequence"] for row in rows.rejected() if row["payload"] == malformed
            ] == [11]
        assert worker.stop() == 0


def _rows_arrive(
    rows: Rows, worker: WorkerProcess, prefix: str = "", *, within: float = 10
) -> None:
    """Return when 200 more of the rows with a prefix are there."""

    def arrived() -> int:
        sql = "SELECT count(*) AS n FROM execution_results WHERE result_id LIKE ? || '%'"
        return int(rows.query(sql, prefix)[0]["n"])

    seen = arrived()
    eventually(lambda: arrived() > seen + 200, within, lambda: worker.text)
