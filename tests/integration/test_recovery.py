"""A database that was wiped or restored, or a recreated stream: missing history is replayed."""

import sqlite3
from contextlib import closing

import pytest

from tests.integration.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support import restoring
from tests.support.broker import Broker
from tests.support.outcome import recovery_lines
from tests.support.restoring import publish, wipe
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually


def everything(rows: Rows) -> tuple[list[Row], list[Row]]:
    """Return all runs in every column, and the columns of rejected events that a replay repeats."""
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
    before = everything(projected)
    wipe(projected)
    worker = run_until_idle(projected)
    assert everything(projected) == before
    (line,) = recovery_lines(worker)
    assert (line["event"], line["level"]) == ("database.wiped", "warning")
    assert (line["ack_floor"], line["committed"], line["replay_from"]) == (101, 0, 1)
    assert stream.is_acked()
    assert recovery_lines(run_until_idle(projected)) == []


def test_only_the_messages_after_a_backup_are_replayed_into_it(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    run_until_idle(projected)  # a restart stores the broker's ack floor
    yesterday = restoring.copy(projected, projected.path.with_name("yesterday.db"))
    publish(stream, 101, 200)
    stream.publish(b"not JSON either")
    run_until_idle(projected)
    before = everything(projected)
    restoring.put_back(projected, yesterday)
    assert projected.count() == 100

    worker = run_until_idle(projected)
    assert everything(projected) == before
    (line,) = recovery_lines(worker)
    assert line["event"] == "database.behind_stream"
    assert (line["committed"], line["ack_floor"]) == (101, 202)
    assert (line["caught_up_to"], line["replay_from"]) == (101, 102)
    assert worker.counters["messages"] == 101
    again = run_until_idle(projected)
    assert recovery_lines(again) == again.logged("consumer.differs") == []


def test_a_replay_continues_after_the_worker_was_killed(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 1, 10)
    run_until_idle(rows, "--ack-wait", "2s")
    yesterday = restoring.copy(rows, rows.path.with_name("yesterday.db"))
    publish(stream, 11, 6_000)
    run_until_idle(rows)
    restoring.put_back(rows, yesterday)
    killed = start_worker(rows, "--batch", "20", fault=("slow-commits", 0.01))
    killed.until(lambda: rows.count() > 500)
    killed.kill()
    assert rows.count() < 6_000
    worker = start_worker(rows)
    worker.until(lambda: rows.count() == 6_000 and stream.is_acked(), 40)
    assert recovery_lines(worker) == []
    assert worker.stop() == 0


def test_no_replay_only_reports_what_is_missing(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    wipe(projected)
    publish(stream, 101, 110)
    (line,) = recovery_lines(run_until_idle(projected, "--no-replay"))
    assert (line["event"], line["level"]) == ("database.wiped", "warning")
    assert (line["replay_from"], projected.count()) == (None, 10)
    assert recovery_lines(run_until_idle(projected)) == []


def test_rows_of_another_program_are_adopted(projected: Rows, run_until_idle: RunUntilIdle) -> None:
    projected.write("DELETE FROM checkpoints")
    projected.write("DELETE FROM execution_results WHERE result_id > 'run-0050'")
    (line,) = recovery_lines(run_until_idle(projected))
    assert (line["event"], line["level"]) == ("database.adopted", "warning")
    assert (line["ack_floor"], projected.count()) == (101, 50)
    assert recovery_lines(run_until_idle(projected)) == []


def test_tables_that_retention_emptied_are_not_a_wiped_database(
    projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    projected.write("DELETE FROM execution_results")
    projected.write("DELETE FROM rejected_events")
    worker = run_until_idle(projected)
    assert recovery_lines(worker) == []
    assert (projected.count(), worker.counters["messages"]) == (0, 0)


def test_a_replay_reports_how_many_messages_the_stream_no_longer_holds(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.purge(below=41)
    wipe(projected)
    worker = run_until_idle(projected)
    assert projected.result_ids() == [f"run-{number:04}" for number in range(41, 101)]
    (line,) = worker.logged("replay.incomplete")
    assert (line["level"], line["sequences_gone"], line["first_sequence"]) == ("warning", 40, 41)


def test_a_recreated_stream_resets_the_checkpoint(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.delete_stream()
    stream.make_stream()
    publish(stream, 101, 105)
    (line,) = recovery_lines(run_until_idle(projected))
    assert (line["event"], line["level"]) == ("stream.recreated", "warning")
    assert projected.count() == 105
    (checkpoint,) = projected.query("SELECT * FROM checkpoints")
    assert checkpoint["highest_sequence"] == 5
    assert recovery_lines(run_until_idle(projected)) == []


def test_other_subjects_and_purges_between_two_runs_are_not_missing_history(
    stream: Broker, projected: Rows, run_until_idle: RunUntilIdle
) -> None:
    others = [(f"events.finished.{number}", b"{}") for number in range(50)]
    stream.publish_many(others)
    stream.publish(result_id="last")
    assert recovery_lines(run_until_idle(projected)) == []
    stream.publish_many(others)
    for below in (60, 130, 203):  # at 203 the stream is empty
        stream.purge(below=below)
        worker = run_until_idle(projected)
        assert recovery_lines(worker) == worker.logged("replay.incomplete") == []
        assert worker.counters["messages"] == 0
    stream.publish(result_id="after the purge")
    assert recovery_lines(run_until_idle(projected)) == []
    assert projected.count() == 102


def test_messages_that_expire_between_two_runs_are_not_missing_history(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream(max_age=1.0)
        publish(broker, 1, 20)
        worker = run_until_idle(rows, nats=server.url)
        broker.publish(b"{}", subject="events.finished.x")
        eventually(lambda: broker.stream_info().state.messages == 0, 10)
        server.stop()
        server.start()
        again = start_worker(rows, nats=server.url)
        again.wait_for("worker.ready")
        broker.publish(result_id="later")  # any earlier it would expire while the worker starts
        again.until(lambda: rows.run("later") is not None)
        assert again.stop() == 0
        assert recovery_lines(worker) == recovery_lines(again) == []


def test_a_recreated_consumer_keeps_its_own_settings(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.make_consumer(ack_wait=7.0, max_ack_pending=1234, description="the fleet's")
    publish(stream, 1, 10)
    run_until_idle(rows)
    wipe(rows)
    (line,) = recovery_lines(run_until_idle(rows))
    assert line["event"] == "database.wiped"
    config = stream.consumer().config
    assert (config.ack_wait, config.max_ack_pending) == (7.0, 1234)
    assert config.description == "the fleet's"
    assert rows.count() == 10


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
    worker.until(lambda: rows.count() == 10 - pending)
    backup = restoring.copy(rows, rows.path.with_name("backup.db"))
    publish(stream, 11, 20)
    worker.until(lambda: rows.count() == 20 - pending)
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
    assert worker.logged("database.behind_stream")
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
    assert worker.logged("database.wiped")
    assert worker.stop() == 0
