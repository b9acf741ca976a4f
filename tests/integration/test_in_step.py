"""Database and broker belong together, or history is replayed: wiped, restored, made anew."""

import shutil
import signal
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support.broker import Broker, Publisher
from tests.support.restoring import copy, publish, put_back, restore_into, wipe
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually
from tests.support.worker_process import Line, WorkerProcess
from worker.schema import migrate

FOUND = ("database.wiped", "database.behind_stream", "database.adopted", "stream.recreated")


def found(worker: WorkerProcess) -> list[Line]:
    """Return what the worker says of a database that is not in step."""
    return [line for line in worker.lines if line["event"] in FOUND]


def project(start_worker: StartWorker, rows: Rows, *options: str) -> WorkerProcess:
    """Project everything that is pending and stop."""
    worker = start_worker(rows, "--until-idle", *options)
    assert worker.exit_code() == 0, worker.text
    return worker


def everything(rows: Rows) -> tuple[list[Row], list[Row]]:
    """Return all runs in every column, and what of the rejected events a replay writes again."""
    rejected = rows.query(
        "SELECT stream, stream_sequence, recorded_at, subject, payload, reason"
        " FROM rejected_events ORDER BY stream_sequence"
    )
    return rows.query("SELECT * FROM execution_results ORDER BY result_id"), rejected


@pytest.fixture
def projected(broker: Broker, rows: Rows, start_worker: StartWorker) -> Rows:
    """A hundred runs and a rejected event, projected with deadlines."""
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    publish(broker, 1, 100)
    broker.publish(b"no start")
    project(start_worker, rows)
    assert (rows.count(), len(rows.rejected())) == (100, 1)
    return rows


def test_a_wiped_file_gets_its_whole_history_back_equal_in_every_column(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    before = everything(projected)
    wipe(projected)
    worker = project(start_worker, projected)
    assert everything(projected) == before
    (told,) = found(worker)
    assert (told["event"], told["level"]) == ("database.wiped", "warning")
    assert (told["ack_floor"], told["committed"], told["replay_from"]) == (101, 0, 1)
    assert broker.is_settled()
    assert found(project(start_worker, projected)) == []


def test_an_older_backup_gets_the_gap_back_from_the_low_water_mark(
    broker: Broker, projected: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    project(start_worker, projected)  # a restart reads the broker's floor, and keeps it
    yesterday = copy(projected, tmp_path / "yesterday.db")
    publish(broker, 101, 200)
    broker.publish(b"no start either")
    project(start_worker, projected)
    before = everything(projected)
    assert len(before[0]) == 200
    put_back(projected, yesterday)
    assert projected.count() == 100

    worker = project(start_worker, projected)
    assert everything(projected) == before
    (told,) = found(worker)
    assert told["event"] == "database.behind_stream"
    assert (told["committed"], told["ack_floor"]) == (101, 202)
    assert (told["caught_up_to"], told["replay_from"]) == (101, 102)
    assert worker.counters["messages"] == 101
    assert worker.logged("consumer.differs") == []
    again = project(start_worker, projected)
    assert found(again) == again.logged("consumer.differs") == []


def test_a_replay_that_is_killed_goes_on_where_it_was(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    publish(broker, 1, 10)
    project(start_worker, rows, "--ack-wait", "2s")
    yesterday = copy(rows, tmp_path / "yesterday.db")
    publish(broker, 11, 12_000)
    project(start_worker, rows)
    put_back(rows, yesterday)
    killed = start_worker(rows, "--batch", "20")
    eventually(lambda: rows.count() > 500, 10, lambda: killed.text)
    killed.kill()
    assert rows.count() < 12_000
    worker = start_worker(rows)
    eventually(lambda: rows.count() == 12_000, 40, lambda: worker.text)
    eventually(broker.is_settled, 40)
    assert found(worker) == []
    assert worker.stop() == 0


def test_no_replay_only_says_what_is_missing(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    wipe(projected)
    publish(broker, 101, 110)
    worker = project(start_worker, projected, "--no-replay")
    (told,) = found(worker)
    assert (told["event"], told["level"]) == ("database.wiped", "warning")
    assert told["replay_from"] is None
    assert projected.count() == 10
    assert found(project(start_worker, projected)) == []


def test_rows_of_another_program_are_adopted_as_they_are(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    projected.write("DELETE FROM checkpoints")
    projected.write("DELETE FROM execution_results WHERE result_id > 'run-0050'")
    worker = project(start_worker, projected)
    (told,) = found(worker)
    assert (told["event"], told["level"]) == ("database.adopted", "warning")
    assert (told["ack_floor"], projected.count()) == (101, 50)
    assert found(project(start_worker, projected)) == []


def test_a_table_that_retention_emptied_is_no_wiped_file(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    projected.write("DELETE FROM execution_results")
    projected.write("DELETE FROM rejected_events")
    worker = project(start_worker, projected)
    assert found(worker) == []
    assert (projected.count(), worker.counters["messages"]) == (0, 0)


def test_what_expired_meanwhile_is_named_and_the_rest_is_replayed(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    broker.purge(below=41)
    wipe(projected)
    worker = project(start_worker, projected)
    assert projected.result_ids() == [f"run-{number:04}" for number in range(41, 101)]
    (gone,) = worker.logged("replay.incomplete")
    assert (gone["level"], gone["sequences_gone"], gone["first_sequence"]) == ("warning", 40, 41)


def test_a_stream_that_was_made_anew_starts_the_checkpoint_anew(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    broker.delete_stream()
    broker.make_stream()
    publish(broker, 101, 105)
    worker = project(start_worker, projected)
    (told,) = found(worker)
    assert (told["event"], told["level"]) == ("stream.recreated", "warning")
    assert projected.count() == 105
    (checkpoint,) = projected.query("SELECT * FROM checkpoints")
    assert checkpoint["highest_sequence"] == 5
    assert found(project(start_worker, projected)) == []


def test_a_restart_after_other_subjects_a_purge_and_expiry_is_in_step(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    for number in range(50):
        broker.publish(b"{}", subject=f"events.finished.{number}")
    broker.publish(result_id="last")
    assert found(project(start_worker, projected)) == []
    for number in range(50):
        broker.publish(b"{}", subject=f"events.finished.{number}")
    for below in (60, 130, 203):  # up to where nothing is left
        broker.purge(below=below)
        worker = project(start_worker, projected)
        assert found(worker) == worker.logged("replay.incomplete") == []
        assert worker.counters["messages"] == 0
    broker.publish(result_id="after the purge")
    assert found(project(start_worker, projected)) == []
    assert projected.count() == 102


def test_messages_that_expire_while_the_worker_is_off_are_no_older_backup(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream(max_age=1.0)
        publish(broker, 1, 20)
        worker = start_worker(rows, "--until-idle", nats=server.url)
        assert worker.exit_code() == 0
        broker.publish(b"{}", subject="events.finished.x")
        eventually(lambda: broker.stream_info().state.messages == 0, 10)
        server.stop()
        server.start()
        again = start_worker(rows, nats=server.url)
        again.wait_for("worker.ready")
        broker.publish(result_id="later")  # not before: it would expire while the worker starts
        eventually(lambda: rows.run("later") is not None, 10)
        assert again.stop() == 0
        assert found(worker) == found(again) == []


def test_crashes_and_two_workers_under_load_are_never_taken_for_a_backup(
    server: Any, broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=2.0)
    publisher = Publisher(server.url)
    workers = []
    for round_ in range(3):
        pair = [start_worker(rows, "--batch", "50", "--ack-wait", "2s") for _ in range(2)]
        seen = rows.count()
        eventually(lambda seen=seen: rows.count() > seen + 500, 15)  # type: ignore[misc]
        for worker in pair:
            worker.send(signal.SIGKILL if round_ % 2 else signal.SIGTERM)
            worker.exit_code()
        workers += pair
    published = publisher.stop()
    workers.append(project(start_worker, rows))
    assert set(published) <= set(rows.result_ids())
    assert [found(worker) for worker in workers] == [[]] * 7


def test_the_durable_keeps_its_own_settings_when_it_is_made_anew(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=7.0, max_ack_pending=1234, description="the fleet's")
    publish(broker, 1, 10)
    project(start_worker, rows)
    wipe(rows)
    worker = project(start_worker, rows)
    assert [line["event"] for line in found(worker)] == ["database.wiped"]
    config = broker.consumer().config
    assert (config.ack_wait, config.max_ack_pending) == (7.0, 1234)
    assert config.description == "the fleet's"
    assert rows.count() == 10


def test_a_durable_that_was_made_to_begin_later_is_left_as_it_is(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    publish(broker, 1, 10)
    broker.make_consumer(deliver_policy="by_start_sequence", opt_start_seq=6)
    worker = project(start_worker, rows)
    assert found(worker) == []
    assert rows.count() == 5
    assert [line["setting"] for line in worker.logged("consumer.differs")] == ["deliver_policy"]


def test_a_file_that_is_replaced_under_the_worker_is_compared_and_replayed(
    broker: Broker, projected: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    yesterday = copy(projected, tmp_path / "yesterday.db")
    worker = start_worker(projected)
    publish(broker, 101, 120)
    eventually(lambda: projected.count() == 120, 10, lambda: worker.text)
    before = everything(projected)
    # With the old write-ahead log left where it is, which a copy must not be mixed with.
    shutil.copyfile(yesterday, tmp_path / "restored")
    (tmp_path / "restored").replace(projected.path)
    broker.publish(result_id="run-9999")
    eventually(lambda: worker.logged("database.behind_stream"), 15, lambda: worker.text)
    eventually(lambda: projected.count() == 121, 15, lambda: worker.text)
    eventually(broker.is_settled, 15, lambda: worker.text)
    assert everything(projected)[0][:120] == before[0]
    assert worker.logged("database.log_renamed")
    assert [worker.is_running(), worker.stop()] == [True, 0]
    with closing(sqlite3.connect(projected.path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_file_that_is_wiped_under_the_worker_is_waited_for_and_filled_again(
    broker: Broker, projected: Rows, start_worker: StartWorker
) -> None:
    before = everything(projected)
    worker = start_worker(projected)
    worker.wait_for("worker.ready")
    for suffix in ("", "-wal", "-shm"):
        projected.path.with_name(projected.path.name + suffix).unlink(missing_ok=True)
    broker.publish(result_id="run-9999")
    worker.wait_for("database.unavailable", times=2)
    assert not broker.is_settled()
    migrate(projected.url)
    eventually(lambda: projected.count() == 101, 15, lambda: worker.text)
    eventually(broker.is_settled, 15, lambda: worker.text)
    assert everything(projected)[0][:100] == before[0]
    assert worker.logged("database.wiped")
    assert worker.stop() == 0


def test_an_older_copy_that_is_put_into_the_open_file_is_noticed_and_replayed(
    broker: Broker, projected: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    yesterday = copy(projected, tmp_path / "yesterday.db")
    worker = start_worker(projected)
    publish(broker, 101, 120)
    eventually(lambda: projected.count() == 120, 10, lambda: worker.text)
    before = everything(projected)
    restore_into(projected, yesterday)
    assert projected.count() == 100
    broker.publish(result_id="run-9999")
    eventually(lambda: projected.count() == 121, 15, lambda: worker.text)
    assert everything(projected)[0][:120] == before[0]
    assert worker.logged("database.behind_stream")
    assert worker.stop() == 0
