"""Databases that are restored just when the broker's figures say little of what is settled."""

import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.restoring import copy, hold_the_floor_back, publish, put_back, restore_into, wipe
from tests.support.rows import Rows
from tests.support.waiting import eventually, until


@pytest.mark.parametrize("how", ["replaced", "in the open file", "while stopped"])
def test_a_floor_that_one_message_holds_back_hides_no_restored_backup(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker, how: str
) -> None:
    hold_the_floor_back(broker, 12.0)
    worker = start_worker(rows)
    eventually(lambda: rows.count() == 9, 5, lambda: worker.text)
    backup = copy(rows, tmp_path / "backup.db")
    publish(broker, 11, 20)
    eventually(lambda: rows.count() == 19, 5)
    eventually(lambda: broker.consumer().num_ack_pending == 1, 5)
    if how == "while stopped":
        worker.stop()
    if how == "in the open file":
        restore_into(rows, backup)
    else:
        put_back(rows, backup)
    if how == "while stopped":
        worker = start_worker(rows)
    publish(broker, 21, 25)
    eventually(lambda: rows.count() == 25, 25, lambda: worker.text)
    assert worker.logged("database.behind_stream")
    eventually(broker.is_settled, 10)


def test_acks_that_were_held_back_hide_no_restored_backup(
    make_server: MakeServer, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--retry-for", "60s", nats=server.url)
        publish(broker, 1, 100)
        eventually(lambda: rows.count() == 100, 5, lambda: worker.text)
        eventually(broker.is_settled, 5)
        backup = copy(rows, tmp_path / "backup.db")
        with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            publish(broker, 101, 150)
            eventually(lambda: broker.consumer().num_ack_pending == 50, 5)
            server.stop()
            other.execute("ROLLBACK")
        eventually(lambda: rows.count() == 150, 10)
        put_back(rows, backup)
        server.start()
        worker.wait_for("pull.started", times=2, within=20)
        publish(broker, 151, 160)
        eventually(lambda: rows.count() == 160, 20, lambda: worker.text)
        eventually(broker.is_settled, 10)
    assert worker.logged("database.behind_stream")


def test_a_question_to_a_server_that_died_says_nothing_of_the_next_binding(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, "--ack-wait", "4s", "--retry-for", "30s", nats=server.url)
        worker.wait_for("worker.ready")
        with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            publish(broker, 1, 1)
            eventually(lambda: broker.consumer().num_ack_pending == 1, 5)
            server.send(signal.SIGSTOP)
            until(time.monotonic() + 1.4)  # from now on a decision is not settled without a look
            other.execute("ROLLBACK")
        eventually(lambda: rows.count() == 1, 5, lambda: worker.text)
        server.kill()
        server.start()
        worker.wait_for("pull.started", times=2, within=20)
        until(time.monotonic() + 5)  # by now the look has failed
        publish(broker, 2, 11)
        eventually(lambda: rows.count() == 11, 10, lambda: worker.text)
        eventually(broker.is_settled, 10, lambda: worker.text)


def test_idle_is_told_only_when_database_and_broker_are_in_step(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    publish(broker, 1, 100)
    assert start_worker(rows, "--until-idle").exit_code() == 0
    wipe(rows)
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        worker = start_worker(rows, "--until-idle", "--busy-timeout", "0.1s", "--retry-for", "0.2s")
        worker.wait_for("database.unavailable", times=2)
        assert worker.is_running()
        other.execute("ROLLBACK")
    assert worker.exit_code() == 0
    assert rows.count() == 100


def test_a_copy_of_another_streams_time_that_is_put_into_the_open_file_is_noticed(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    publish(broker, 1, 10)
    eventually(lambda: rows.count() == 10, 5)
    backup = copy(rows, tmp_path / "backup.db")
    broker.delete_stream()
    broker.make_stream()
    worker.wait_for("stream.recreated", within=15)
    publish(broker, 11, 30)
    eventually(lambda: rows.count() == 30, 10)
    restore_into(rows, backup)
    publish(broker, 31, 35)
    eventually(lambda: rows.count() == 35, 15, lambda: worker.text)


def test_what_is_in_hand_of_a_stream_that_is_gone_is_projected_at_the_stop(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--retry-for", "30s", "--batch", "10")
    worker.wait_for("worker.ready")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        publish(broker, 1, 300)
        eventually(lambda: broker.consumer().num_ack_pending == 300, 5)
        broker.delete_stream()
        worker.wait_for("pull.lost")
        other.execute("ROLLBACK")
    assert worker.stop() == 0
    assert rows.count() == 300
