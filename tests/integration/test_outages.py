"""The broker restarts or loses what it holds, workers die: the worker goes on by itself."""

import sqlite3
from contextlib import closing

from tests.integration.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import CONSUMER, Broker, Publisher
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually


def test_a_broker_that_is_stopped_and_killed_under_load_costs_no_row(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    worker = start_worker(rows, "--create-stream", "--ack-wait", "4s", nats=server.url)
    worker.wait_for("pull.started")
    publisher = Publisher(server.url)
    for end in (server.stop, server.kill):
        seen = rows.count()
        eventually(lambda seen=seen: rows.count() > seen + 500, 10, lambda: worker.text)  # type: ignore[misc]
        end()
        server.start()
    seen = rows.count()
    eventually(lambda: rows.count() > seen + 500, 10, lambda: worker.text)
    published = publisher.stop()
    with Broker(server.url) as broker:
        eventually(lambda: set(published) <= set(rows.result_ids()), 10, lambda: worker.text)
        eventually(broker.is_settled, 10, lambda: worker.text)
        in_stream = broker.stream_info().state.messages
    assert len(worker.logged("broker.disconnected")) >= 2
    assert len(worker.logged("worker.started")) == 1
    assert rows.rejected() == []
    assert worker.stop() == 0
    counters = worker.counters
    assert counters["runs_inserted"] == rows.count()
    assert counters["messages"] == counters["runs_inserted"] + counters["runs_duplicate"]
    assert counters["messages"] >= in_stream
    assert counters["settled"] + counters["acks_dropped"] == counters["messages"] + counters["naks"]


def test_a_durable_or_stream_that_is_made_anew_while_the_worker_runs_is_bound_anew(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    broker.publish(result_id="at first")
    eventually(lambda: rows.count() == 1, 5, lambda: worker.text)
    broker.delete_consumer()
    broker.publish(result_id="after the consumer")
    eventually(lambda: rows.count() == 2, 10, lambda: worker.text)
    worker.wait_for("consumer.recreated")
    eventually(broker.is_settled, 5)

    broker.delete_stream()
    broker.make_stream()
    broker.publish(b"no start")
    broker.publish(result_id="after the stream")
    eventually(lambda: rows.count() == 3, 15, lambda: worker.text)
    worker.wait_for("consumer.recreated", times=2)
    eventually(broker.is_settled, 5)
    assert broker.consumer().config.filter_subject == "events.started.>"
    broker.delete_stream()
    broker.make_stream()
    broker.publish(b"no start")
    eventually(lambda: len(rows.rejected()) == 2, 15, lambda: worker.text)
    assert [row["stream_sequence"] for row in rows.rejected()] == [1, 1]
    assert worker.stop() == 0


def test_a_durable_that_is_deleted_while_nothing_is_asked_of_it_is_noticed_as_well(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--max-outstanding", "10", "--retry-for", "20s")
    worker.wait_for("pull.started")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        for number in range(30):
            broker.publish(result_id=f"run-{number}")
        # All the room is taken, and so no request for messages is left on the broker.
        eventually(lambda: (d := broker.consumer()).num_ack_pending == 10 and not d.num_waiting, 10)
        broker.delete_consumer()
        other.execute("ROLLBACK")
    eventually(lambda: rows.count() == 30, 12, lambda: worker.text)
    assert worker.logged("consumer.recreated")
    assert worker.stop() == 0


def test_two_workers_share_one_durable_and_one_database(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    workers = [start_worker(rows, "--batch", "50") for _ in range(2)]
    for worker in workers:
        worker.wait_for("worker.ready")
    published = broker.publish_starts(events.start() for _ in range(6000))
    eventually(lambda: rows.count() == published and broker.is_settled(), 15)
    for worker in workers:
        assert worker.stop() == 0
        assert worker.counters["runs_inserted"] > 0
        assert worker.counters["acks_dropped"] == 0
        assert {line["level"] for line in worker.lines} <= {"info", "warning"}
        assert worker.logged("batch.failed") == []
    assert rows.count() == published
    assert sum(worker.counters["runs_inserted"] for worker in workers) == published
    assert broker.is_settled()


def test_a_worker_that_is_killed_leaves_its_share_to_the_other(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=2.0)
    options = (
        "--ack-wait",
        "2s",
        "--batch",
        "20",
        "--max-outstanding",
        "1000",
        "--retry-for",
        "20s",
    )
    killed, survivor = (start_worker(rows, *options) for _ in range(2))
    for worker in (killed, survivor):
        worker.wait_for("worker.ready")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        published = broker.publish_starts(
            events.start(result_id=f"run-{number:06}") for number in range(6000)
        )
        # Both have a share in hand, and nothing of it is written.
        eventually(lambda: broker.consumer().num_ack_pending == 2000, 10)
        killed.kill()
        other.execute("ROLLBACK")
    assert rows.count() < published
    eventually(lambda: rows.count() == published, 15, lambda: survivor.text)
    eventually(broker.is_settled, 10, lambda: survivor.text)
    assert survivor.stop() == 0
    assert rows.result_ids() == [f"run-{number:06}" for number in range(published)]
    assert broker.consumer(CONSUMER).num_redelivered == 0


def test_a_backlog_of_large_messages_does_not_make_the_broker_hang_up(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    before = len(server.log)
    for _ in range(100):
        broker.publish(b"x" * 1_000_000)
    worker = start_worker(rows, "--ack-wait", "5s", "--until-idle")

    assert worker.exit_code() == 0
    assert rows.count("rejected_events") == 100
    # A broker drops a client for which it has 64 MiB waiting, and with it all that was on its way.
    assert "Slow Consumer" not in server.log[before:]
    assert worker.logged("broker.disconnected") == []
    assert worker.counters["redelivered"] == 0
