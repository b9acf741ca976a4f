"""A database is restored, or an answer is lost, while the broker's figures are out of date."""

import signal
import time
from pathlib import Path

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.outcome import read_again
from tests.support.restoring import copy, publish, put_back, restore_into
from tests.support.rows import Rows
from tests.support.waiting import until


def test_acks_that_were_not_sent_do_not_hide_a_restored_backup(
    make_server: MakeServer, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--retry-for", "60s", nats=server.url)
        publish(broker, 1, 100)
        worker.until(lambda: rows.count() == 100 and broker.is_acked())
        backup = copy(rows, tmp_path / "backup.db")
        with rows.locked():
            publish(broker, 101, 150)
            worker.until(lambda: broker.consumer().num_ack_pending == 50)
            server.stop()
        worker.until(lambda: rows.count() == 150)
        put_back(rows, backup)
        server.start()
        worker.wait_for("pull.started", times=2, within=20)
        publish(broker, 151, 160)
        worker.until(lambda: rows.count() == 160 and broker.is_acked(), 20)
    worker.until(lambda: read_again(worker) >= 50)


def test_a_request_to_a_server_that_died_does_not_affect_the_next_connection(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "4s", "--retry-for", "30s", nats=server.url)
        worker.wait_for("worker.ready")
        with rows.locked():
            publish(broker, 1, 1)
            worker.until(lambda: broker.consumer().num_ack_pending == 1)
            until(time.monotonic() + 0.5)  # by now a pool thread has it
            server.send(signal.SIGSTOP)
            until(time.monotonic() + 1.4)  # from now on the worker asks the broker before it acks
        worker.until(lambda: rows.count() == 1)
        server.kill()
        server.start()
        worker.wait_for("pull.started", times=2, within=20)
        until(time.monotonic() + 5)  # by now its request has timed out
        publish(broker, 2, 11)
        worker.until(lambda: rows.count() == 11 and broker.is_acked())


def test_a_backup_from_before_the_stream_was_recreated_is_noticed_in_the_open_file(
    stream: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    worker = start_worker(rows)
    publish(stream, 1, 10)
    worker.until(lambda: rows.count() == 10)
    backup = copy(rows, tmp_path / "backup.db")
    stream.delete_stream()
    stream.make_stream()
    worker.wait_for("stream.recreated", within=15)
    publish(stream, 11, 30)
    worker.until(lambda: rows.count() == 30)
    restore_into(rows, backup)
    publish(stream, 31, 35)
    worker.until(lambda: rows.count() == 35)


def test_outstanding_messages_of_a_deleted_stream_are_projected_at_the_stop(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--retry-for", "30s", "--batch", "10")
    worker.wait_for("worker.ready")
    with rows.locked():
        publish(stream, 1, 300)
        worker.until(lambda: stream.consumer().num_ack_pending == 300)
        stream.delete_stream()
        worker.wait_for("pull.lost")
    assert worker.stop() == 0
    assert rows.count() == 300
