"""A stop loses nothing and leaves nothing stuck; --until-idle stops when all is done."""

import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker, Publisher
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually

BACKLOG = 4000


@contextmanager
def locked(rows: Rows) -> Iterator[None]:
    """Hold the write lock of the database, as another program would."""
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_under_load_drains_and_the_successor_finds_nothing_stuck(
    server: NatsServer,
    broker: Broker,
    rows: Rows,
    start_worker: StartWorker,
    number: signal.Signals,
) -> None:
    broker.make_stream()
    backlog = [f"backlog-{i:06}" for i in range(BACKLOG)]
    broker.publish_starts(events.start(result_id=name) for name in backlog)
    publisher = Publisher(server.url)
    first = start_worker(rows, "--ack-wait", "30s", "--batch", "20")
    eventually(lambda: rows.count() > BACKLOG // 4, 10, lambda: first.text)
    first.send(number)
    assert first.exit_code(within=10) == 0
    before = rows.count()
    published = backlog + publisher.stop()
    assert before < len(published)
    assert first.logged("worker.drain_incomplete") == []
    assert first.counters["acks_dropped"] == 0
    assert first.counters["runs_inserted"] == before

    began = time.monotonic()
    successor = start_worker(rows, "--ack-wait", "30s", "--until-idle")
    assert successor.exit_code(within=20) == 0
    assert time.monotonic() - began < 15
    assert rows.result_ids() == sorted(published)
    assert first.counters["runs_inserted"] + successor.counters["runs_inserted"] == len(published)
    assert broker.is_settled()


def test_a_second_signal_ends_the_process_at_once(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--retry-for", "20s", "--drain-timeout", "20s")
    worker.wait_for("pull.started")
    with locked(rows):
        broker.publish()
        eventually(lambda: broker.has_consumer() and broker.consumer().num_ack_pending == 1, 5)
        worker.send(signal.SIGTERM)
        worker.wait_for("worker.draining")
        worker.send(signal.SIGINT)
        assert worker.exit_code(within=2) == 128 + signal.SIGINT
    assert worker.logged("worker.stopped") == []
    assert rows.count() == 0


def test_past_the_drain_timeout_what_is_left_goes_to_the_successor(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--retry-for", "20s", "--drain-timeout", "1s")
    worker.wait_for("pull.started")
    with locked(rows):
        for number in range(10):
            broker.publish(result_id=f"run-{number}")
        eventually(lambda: broker.has_consumer() and broker.consumer().num_ack_pending == 10, 5)
        worker.send(signal.SIGTERM)
        assert worker.exit_code(within=4) == 0
        assert rows.count() == 0
    assert worker.counters["runs_inserted"] == 0
    assert worker.counters["naks"] == worker.counters["settled"] == 10

    successor = start_worker(rows, "--until-idle")
    assert successor.exit_code(within=10) == 0
    assert rows.count() == 10


def test_a_stop_while_the_broker_is_away_ends_quickly_with_0(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    connected = start_worker(rows, "--create-stream", nats=server.url)
    connected.wait_for("pull.started")
    server.stop()
    connected.wait_for("broker.disconnected")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        never = start_worker(rows, nats=server.url)
        hanging = start_worker(rows, nats=f"nats://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(5)
        accepted, _ = silent.accept()
        with accepted:
            never.wait_for("broker.error")
            workers = (connected, never, hanging)
            for worker in workers:
                worker.send(signal.SIGTERM)
            began = time.monotonic()
            for worker in workers:
                assert worker.exit_code(within=6) == 0
            assert time.monotonic() - began < 6
    for worker in workers:
        assert worker.logged("worker.stopped", exit_code=0)
        assert worker.logged("worker.failed") == []


def test_until_idle_ends_with_0_on_an_empty_stream(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--until-idle")

    assert worker.exit_code(within=5) == 0
    assert worker.counters["messages"] == 0


def test_a_locked_database_means_no_ack_a_pause_and_a_delayed_redelivery(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--retry-for", "0.3s", "--busy-timeout", "0.1s", "--batch", "10")
    worker.wait_for("worker.ready")
    with locked(rows):
        for number in range(50):
            broker.publish(result_id=f"run-{number}")
        fault = worker.wait_for("batch.failed")
        assert fault["level"] == "warning"
        assert "locked" in fault["error"]
        worker.wait_for("database.unavailable", times=3)
        # Paused: what was not begun is in hand and not given back again and again.
        assert len(worker.logged("batch.failed")) <= 3
        consumer = broker.consumer()
        assert (consumer.num_ack_pending or 0) + (consumer.num_pending or 0) == 50
        assert len(worker.logged("worker.not_ready")) == 1
    eventually(broker.is_settled, 10, lambda: worker.text)
    assert len(worker.logged("worker.ready")) == 2
    assert worker.stop() == 0
    assert rows.count() == 50
    assert rows.rejected() == []
    assert worker.logged("database.recovered")
    assert worker.counters["redelivered"] >= 1
    assert worker.counters["runs_inserted"] == worker.counters["messages"] == 50
    assert worker.counters["settled"] == 50 + worker.counters["naks"]
    assert broker.is_settled()


def test_a_lock_that_is_gone_soon_is_waited_for_without_giving_anything_back(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--busy-timeout", "0.1s", "--retry-for", "20s")
    worker.wait_for("pull.started")
    with locked(rows):
        broker.publish(result_id="patient")
        eventually(lambda: broker.has_consumer() and broker.consumer().num_ack_pending == 1, 5)
        began = time.monotonic()
        eventually(lambda: time.monotonic() - began > 0.5, 1)
        assert broker.consumer().num_ack_pending == 1
    eventually(broker.is_settled, 10, lambda: worker.text)
    assert worker.stop() == 0
    assert rows.result_ids() == ["patient"]
    assert worker.counters["naks"] == worker.counters["database_faults"] == 0
