"""A database that was wiped or restored, or a recreated stream: the stream is read again."""

import sqlite3
import time
from contextlib import closing

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support import events, restoring
from tests.support.broker import Broker
from tests.support.endpoints import Port
from tests.support.outcome import read_again, recovery_lines
from tests.support.restoring import publish, wipe
from tests.support.rows import Row, Rows
from tests.support.waiting import until
from tests.support.worker_process import WorkerProcess


def everything(rows: Rows) -> tuple[list[Row], list[Row]]:
    """Return all runs, and the rejected events without when they were written."""
    rejected = rows.query(
        "SELECT stream, stream_sequence, recorded_at, subject, payload, reason"
        " FROM rejected_events ORDER BY stream_sequence"
    )
    return rows.query("SELECT * FROM execution_results ORDER BY result_id"), rejected


@pytest.fixture
def projected(deployment: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    """A database with a hundred runs with deadlines, and a rejected event."""
    publish(deployment, 1, 100)
    deployment.publish(b"not JSON")
    run_until_idle(rows)
    assert (rows.count(), len(rows.rejected())) == (100, 1)
    return rows


# --- between two runs ---


def test_a_wiped_database_gets_its_whole_history_back_equal_in_every_column(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    before, consumer = everything(projected), stream.consumer()
    wipe(projected)
    worker = run_until_idle(projected)
    assert everything(projected) == before
    assert (read_again(worker), recovery_lines(worker)) == (101, [])
    now = stream.consumer()
    assert (now.created, now.delivered) == (consumer.created, consumer.delivered)
    assert read_again(run_until_idle(projected)) == 0


def test_only_the_messages_after_a_backup_are_read_again(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    yesterday = restoring.copy(projected, projected.path.with_name("yesterday.db"))
    publish(stream, 101, 200)
    stream.publish(b"not JSON either")
    run_until_idle(projected)
    before = everything(projected)
    restoring.put_back(projected, yesterday)
    assert projected.count() == 100

    worker = run_until_idle(projected)
    assert everything(projected) == before
    assert (read_again(worker), worker.counters["messages"]) == (101, 0)
    assert recovery_lines(worker) == []
    assert read_again(run_until_idle(projected)) == 0


def test_rows_that_another_program_wrote_first_hide_nothing(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    wipe(projected)
    for number in range(1, 31):
        projected.insert_finished(f"run-{number:04}")
    run_until_idle(projected)
    assert projected.count() == 100
    finished = "SELECT count(*) AS n FROM execution_results WHERE finished_at IS NOT NULL"
    assert projected.query(finished) == [{"n": 30}]


def test_what_another_program_projected_alone_is_caught_up_without_a_warning(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 101, 600)
    for number in range(101, 601):
        projected.insert_finished(f"run-{number:04}")
    stream.fetch(500, ack=True)
    publish(stream, 601, 610)
    worker = run_until_idle(projected)
    assert projected.count() == 610
    assert [line for line in worker.lines if line["level"] in ("warning", "error")] == []


def test_reading_again_continues_after_the_worker_was_killed(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 1, 6_000)
    run_until_idle(rows)
    wipe(rows)
    killed = start_worker(rows, "--batch", "20", fault=("slow-commits", 0.01))
    killed.until(lambda: rows.count() > 500)
    killed.kill()
    before = rows.count()
    assert before < 6_000
    worker = run_until_idle(rows)
    assert (rows.count(), stream.is_acked()) == (6_000, True)
    assert 0 < read_again(worker) <= 6_000 - before + 20
    assert recovery_lines(worker) == []


def test_more_bytes_than_one_request_may_bring_are_read_again(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.publish_starts(events.start(more="x" * 900_000) for _ in range(20))
    stream.make_consumer()
    stream.fetch(20, ack=True)
    worker = run_until_idle(rows)
    assert (rows.count(), read_again(worker)) == (20, 20)


def test_new_events_are_projected_while_a_long_history_is_read_again(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 1, 6_000)
    run_until_idle(rows)
    wipe(rows)
    options = ("--batch", "20", "--metrics-port", "0")
    worker = start_worker(rows, *options, fault=("slow-commits", 0.02), pulling=True)
    worker.wait_for("catch_up.started", messages=6_000)
    port = Port(worker)
    stream.publish(result_id="live")
    worker.until(lambda: rows.run("live") is not None)
    assert rows.count() < 5_000
    health = port.readyz()
    assert (health.status, health.state) == (503, "catching_up")
    assert " of 6000 messages" in health.document["reason"]
    assert port.metrics()["projector_caught_up"] == 0
    worker.wait_for("catch_up.finished", within=40)
    assert rows.count() == 6_001
    worker.until(lambda: port.metrics()["projector_caught_up"] == 1)


def test_tables_that_retention_emptied_are_not_filled_again(
    projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    projected.write("DELETE FROM execution_results")
    projected.write("DELETE FROM rejected_events")
    worker = run_until_idle(projected)
    assert (projected.count(), worker.counters["messages"], read_again(worker)) == (0, 0, 0)


def test_a_recreated_stream_starts_a_new_checkpoint(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.delete_stream()
    stream.make_stream()
    publish(stream, 101, 105)
    (line,) = recovery_lines(run_until_idle(projected))
    assert (line["event"], line["level"]) == ("stream.recreated", "warning")
    assert projected.count() == 105
    (checkpoint,) = projected.query("SELECT * FROM checkpoints")
    assert checkpoint["caught_up_to"] == 5
    assert recovery_lines(run_until_idle(projected)) == []


def test_messages_that_the_consumer_gave_up_are_projected_at_the_next_start(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.make_consumer(max_deliver=1, ack_wait=1.0)
    publish(stream, 1, 10)
    stream.fetch(4, ack=False)
    worker = run_until_idle(rows)
    assert rows.count() == 10
    (line,) = worker.logged("consumer.differs", setting="max_deliver")
    assert "lose messages" in line["error"]


# --- what the stream no longer holds ---


def lost(worker: WorkerProcess) -> list[tuple[int, int, int]]:
    """Return first, last and number of each range that a worker reported as lost."""
    lines = worker.logged("messages.lost_to_limits", level="warning")
    return [(line["first"], line["last"], line["sequences"]) for line in lines]


def test_what_the_stream_lost_since_the_checkpoint_is_reported_once(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle, projector: Projector
) -> None:
    publish(stream, 101, 140)  # the sequences 102 to 141
    stream.purge(below=122)
    worker = run_until_idle(projected)
    assert (lost(worker), worker.counters["lost_sequences"]) == ([(102, 121, 20)], 20)
    assert projected.count() == 120
    assert lost(run_until_idle(projected)) == []
    database = projector("status", "--json").document["database"]
    assert database["lost_sequences"] == 20
    findings = projector("check", "--json").document["findings"]
    assert [one["level"] for one in findings if one["name"] == "lost"] == ["warning"]


def test_what_the_stream_lost_exactly_up_to_the_checkpoint_is_not_reported(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 101, 110)
    stream.purge(below=102)
    assert lost(run_until_idle(projected)) == []
    stream.publish(result_id="run-0200")
    stream.publish(result_id="run-0201")
    stream.purge(below=113)
    assert lost(run_until_idle(projected)) == [(112, 112, 1)]


@pytest.mark.parametrize("below", [51, 13])
def test_what_limits_take_while_the_worker_is_blocked_is_reported(
    stream: Broker, rows: Rows, start_worker: StartWorker, below: int
) -> None:
    options = ("--max-outstanding", "10", "--retry-for", "60s")
    worker = start_worker(rows, *options, pulling=True)
    publish(stream, 1, 1)
    worker.until(lambda: rows.count() == 1 and stream.is_acked())
    with rows.locked():
        publish(stream, 2, 101)
        worker.until(lambda: stream.consumer().num_ack_pending == 10)
        until(time.monotonic() + 2.5)  # until the worker has seen how far that is
        stream.purge(below=below)
        worker.until(lambda: lost(worker) == [(12, below - 1, below - 12)])
    worker.until(lambda: rows.count() == 101 - (below - 12) and stream.is_acked(), 30)
    assert lost(worker) == [(12, below - 1, below - 12)]


def test_what_limits_take_from_a_blocked_worker_is_reported_although_later_messages_came_first(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--max-outstanding", "10", "--retry-for", "60s", pulling=True)
    publish(stream, 1, 1)
    worker.until(lambda: rows.count() == 1 and stream.is_acked())
    with rows.locked():
        publish(stream, 2, 101)
        worker.until(lambda: stream.consumer().num_ack_pending == 10)
        until(time.monotonic() + 2.5)  # until the worker has seen how far that is
        stream.purge(below=51)
    worker.until(lambda: rows.count() == 62 and stream.is_acked(), 30)
    worker.until(lambda: lost(worker) == [(12, 50, 39)])


def test_other_subjects_that_are_purged_under_a_worker_are_not_reported(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    publish(stream, 1, 10)
    worker = start_worker(rows, pulling=True)
    stream.publish_many([(f"events.finished.{number}", b"{}") for number in range(50)])
    worker.until(lambda: rows.query("SELECT caught_up_to AS n FROM checkpoints")[0]["n"] == 60)
    stream.purge(below=61)
    stream.publish(result_id="later")
    worker.until(lambda: rows.run("later") is not None)
    assert worker.stop() == 0
    assert lost(worker) == []


def test_a_wiped_database_beside_a_workqueue_reports_what_is_gone(
    broker: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    broker.make_stream(retention="workqueue")
    publish(broker, 1, 50)
    worker = run_until_idle(rows)
    assert (rows.count(), lost(worker)) == (50, [])
    assert worker.logged("catch_up.impossible")
    assert lost(run_until_idle(rows)) == []
    wipe(rows)
    publish(broker, 51, 60)
    worker = run_until_idle(rows)
    assert (rows.count(), lost(worker)) == (10, [(1, 50, 50)])


# --- with a worker that has the database open, or has had it ---


@pytest.mark.parametrize(
    ("how", "ack_floor"),
    [
        *(("beside its old log", "moves"), ("in the open file", "moves")),
        *(
            (how, "held back")
            for how in ("without its old log", "in the open file", "while stopped")
        ),
    ],
)
def test_a_backup_that_is_restored_gets_the_missing_rows_back(
    stream: Broker, rows: Rows, start_worker: StartWorker, how: str, ack_floor: str
) -> None:
    pending = 1 if ack_floor == "held back" else 0
    if pending:
        restoring.hold_ack_floor_back(stream, 12.0)
    else:
        publish(stream, 1, 10)
    worker = start_worker(rows)
    worker.until(lambda: rows.count() == 10)
    backup = restoring.copy(rows, rows.path.with_name("backup.db"))
    publish(stream, 11, 20)
    worker.until(lambda: rows.count() == 20)
    worker.until(lambda: stream.consumer().num_ack_pending == pending)
    before, _ = everything(rows)

    if how == "while stopped":
        worker.stop()
    ways = {"in the open file": restoring.restore_into, "beside its old log": restoring.replace}
    ways.get(how, restoring.put_back)(rows, backup)
    if how == "while stopped":
        worker = start_worker(rows)
    publish(stream, 21, 25)
    worker.until(lambda: rows.count() == 25, 25)
    worker.until(stream.is_acked)
    after, _ = everything(rows)
    assert [row for row in after if row in before] == before
    worker.until(lambda: read_again(worker) >= 10)
    # The log of one file must never be applied to another one.
    assert bool(worker.logged("database.log_renamed")) == (how == "beside its old log")
    assert [worker.is_running(), worker.stop()] == [True, 0]
    with closing(sqlite3.connect(rows.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_database_that_is_wiped_under_the_worker_is_waited_for_and_filled_again(
    stream: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    before = everything(projected)
    worker = start_worker(projected)
    worker.wait_for("worker.ready")
    restoring.delete(projected)
    stream.publish(result_id="run-9999")
    worker.wait_for("database.unavailable", times=2)
    assert not stream.is_acked()
    projected.migrate()
    worker.until(lambda: projected.count() == 101 and stream.is_acked(), 15)
    assert everything(projected)[0][:100] == before[0]
    worker.until(lambda: read_again(worker) >= 101)
    assert worker.stop() == 0
