"""One consumer, one database; and where it is not so, still nothing is lost."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support import restoring
from tests.support.beside import beside
from tests.support.broker import Broker
from tests.support.endpoints import OBSERVED, Port
from tests.support.restoring import publish
from tests.support.rows import Rows
from tests.support.worker_process import WorkerProcess


@pytest.fixture
def other(rows: Rows) -> Rows:
    """An empty database of another worker."""
    other = Rows(rows.path.with_name("other.db"))
    shutil.copyfile(rows.path, other.path)
    return other


@contextmanager
def stranger(stream: Broker) -> Iterator[None]:
    """Fetch and ack in a loop, as a program does that announces nothing."""
    with Broker(stream.url) as own:

        def fetch(ending: threading.Event) -> None:
            while not ending.is_set():
                own.fetch_some(20)

        with beside(fetch):
            yield


def is_count(rows: Rows, count: int) -> bool:
    return rows.count() == count


def test_an_empty_database_does_not_join_a_running_worker(
    stream: Broker, rows: Rows, other: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, pulling=True)
    publish(stream, 1, 50)
    worker.until(lambda: rows.count() == 50)
    consumer = stream.consumer()
    second = start_worker(other)
    assert second.exit_code() == 78
    error = second.wait_for("worker.failed")["error"]
    assert f"pid {worker.process.pid}, database {rows.url}" in error
    assert "--consumer NAME" in error
    publish(stream, 51, 60)
    worker.until(lambda: rows.count() == 60 and stream.is_acked())
    assert stream.consumer().created == consumer.created
    assert other.count() == 0
    assert worker.stop() == 0
    assert not worker.logged("consumer.shared")


def test_an_empty_database_does_not_join_a_program_that_announces_nothing(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_consumer()
    with stranger(stream):
        worker = start_worker(rows)
        assert worker.exit_code() == 78
    error = worker.wait_for("worker.failed")["error"]
    assert "its pull requests wait" in error
    assert "--consumer NAME" in error


def test_an_empty_database_starts_once_its_predecessor_has_gone(
    stream: Broker, rows: Rows, other: Rows, start_worker: StartWorker
) -> None:
    publish(stream, 1, 10)
    worker = start_worker(rows, pulling=True)
    worker.until(lambda: rows.count() == 10)
    worker.kill()
    second = start_worker(other)
    second.until(lambda: other.count() == 10)
    assert second.stop() == 0
    assert not second.logged("consumer.shared")


def both_complete(
    stream: Broker, first: Rows, second: Rows, workers: list[WorkerProcess], last: int
) -> None:
    """Publish for a while, and assert that both databases get every run."""
    for number in range(last - 99, last + 1, 10):
        publish(stream, number, number + 9)
    workers[0].until(lambda: first.count() == last and second.count() == last, 25)
    for worker in workers:
        line = worker.wait_for("consumer.shared", within=15, level="error")
        others = [one for one in workers if one is not worker]
        assert any(f"pid {one.process.pid}," in line["error"] for one in others), line


def hard_link(rows: Rows, other: Rows) -> None:
    # Two connections that close at once may leave the checkpoint in the log of the other path.
    with closing(sqlite3.connect(rows.path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.path.unlink()
    other.path.hardlink_to(rows.path)


def copy(rows: Rows, other: Rows) -> None:
    other.path.unlink()
    restoring.copy(rows, other.path)
    other.write("PRAGMA journal_mode = WAL")


@pytest.mark.parametrize("make", [copy, hard_link])
def test_two_databases_on_one_consumer_both_get_every_run_and_an_error(
    stream: Broker,
    rows: Rows,
    other: Rows,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
    projector: Projector,
    *,
    make: Callable[[Rows, Rows], None],
) -> None:
    publish(stream, 1, 20)
    run_until_idle(rows)
    make(rows, other)
    first = start_worker(rows, *OBSERVED, pulling=True)
    second = start_worker(other, pulling=True)
    both_complete(stream, rows, other, [first, second], 120)
    assert Port(first).wait_for("consumer_shared", 200).document["reason"]
    status = projector("status", "--json")
    assert status.code == 1
    assert "consumer_shared" in status.document["finding"]
    pids = {one["pid"]: one["same_database"] for one in status.document["workers"]}
    assert pids == {first.process.pid: True, second.process.pid: False}
    findings = projector("check", "--json").document["findings"]
    (found,) = [one for one in findings if one["name"] == "workers"]
    assert (found["level"], str(second.process.pid) in found["text"]) == ("error", True)


def test_a_worker_that_starts_beside_a_stray_one_completes_both_databases(
    stream: Broker, rows: Rows, other: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 1, 20)
    run_until_idle(rows)
    stray = start_worker(other, pulling=True)
    first = start_worker(rows, pulling=True)
    both_complete(stream, rows, other, [first, stray], 120)


def test_a_stranger_that_acks_half_of_the_messages_costs_no_row(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, *OBSERVED, pulling=True)
    publish(stream, 1, 10)
    worker.until(lambda: rows.count() == 10)
    worker.wait_for("worker.ready")
    last = 10
    with stranger(stream):
        # What it takes within seconds of the bind could be a predecessor's.
        while not (shared := worker.logged("consumer.shared", level="error")):
            assert last < 4_000, worker.text
            publish(stream, last + 1, last + 20)
            last += 20
            worker.until(partial(is_count, rows, last), 25)
    (line,) = shared
    assert "an unknown program" in line["error"]
    assert Port(worker).metrics()["projector_foreign_deliveries_total"] > 0
    assert worker.stop() == 0


def test_two_workers_on_one_database_are_no_mistake(
    stream: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    workers = [start_worker(rows, pulling=True), start_worker(rows, pulling=True)]
    for number in range(1, 1001, 50):
        publish(stream, number, number + 49)
    workers[0].until(lambda: rows.count() == 1000 and stream.is_acked())
    status = projector("status", "--json").document
    assert [one["same_database"] for one in status["workers"]] == [True, True]
    assert status["caught_up"]
    publish(stream, 1001, 1010)
    workers[0].until(lambda: rows.count() == 1010)
    assert [worker.stop() for worker in workers] == [0, 0]
    assert [worker.logged("consumer.shared") for worker in workers] == [[], []]


def test_a_killed_worker_raises_no_false_alarm_in_its_successor(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    killed = start_worker(rows, "--ack-wait", "3s", fault=("slow-commits", 0.3), pulling=True)
    publish(stream, 1, 3_000)
    killed.until(lambda: rows.count() > 0)
    killed.kill()
    worker = start_worker(rows, "--ack-wait", "3s")
    worker.until(lambda: rows.count() == 3_000, 30)
    worker.until(stream.is_acked, 30)
    assert worker.stop() == 0
    assert not worker.logged("consumer.shared")


def test_a_restore_beside_an_idle_second_worker_hides_nothing(
    stream: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    publish(stream, 1, 10)
    workers = [start_worker(rows, pulling=True), start_worker(rows, pulling=True)]
    workers[0].until(lambda: rows.count() == 10 and stream.is_acked())
    backup = rows.path.with_name("backup.db")
    assert projector("backup", backup).code == 0
    publish(stream, 11, 60)
    workers[0].until(lambda: rows.count() == 60 and stream.is_acked())
    restoring.put_back(rows, backup)
    publish(stream, 61, 62)
    workers[0].until(lambda: rows.count() == 62, 25)
    assert [worker.stop() for worker in workers] == [0, 0]
