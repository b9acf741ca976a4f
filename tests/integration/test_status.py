"""`projector status` with a real broker and a real file, and without either."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len

from tests.integration.conftest import Projector, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.restoring import copy, hold_ack_floor_back, publish, put_back, restore_into
from tests.support.rows import Rows
from tests.support.terminal import on_terminal
from tests.support.waiting import eventually
from worker.cli.main import main


@pytest.mark.every_engine
def test_status_shows_that_the_database_has_caught_up_and_what_is_pending_since(
    broker: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    broker.publish()
    broker.publish(b"not JSON")
    assert start_worker(rows, "--until-idle").exit_code() == 0
    done = projector("status", "--json")
    assert done.code == 0, done
    found = done.document
    assert (found["caught_up"], found["finding"], found["behind_seconds"]) == (True, "caught up", 0)
    assert (found["database"]["caught_up_to"], found["database"]["rejected"]) == (2, 1)
    assert found["database"]["in_flight"] == found["database"]["without_deadline"] == 1
    expected = {"pending": 0, "ack_pending": 0, "redelivered": 0, "delivered": 2, "ack_floor": 2}
    assert found["consumer"].items() >= expected.items()

    broker.publish_starts(events.start() for _ in range(3))
    broker.fetch(1, ack=False)
    found = projector("status", "--json").document
    assert (found["consumer"]["pending"], found["consumer"]["ack_pending"]) == (2, 1)
    assert 0 < found["behind_seconds"] < 30
    assert found["problems"] == []
    assert (found["caught_up"], found["finding"]) == (False, "behind; no worker runs")
    done = projector("status")
    assert done.code == 1
    assert re.search(r"starts +behind; no worker runs; 3 waiting, the oldest for", done.output)
    assert "1 in flight, 0 overdue, 1 without a deadline\n" in done.output
    assert "none: no program pulls" in done.output
    assert "rejected   1 events" in done.output


def test_status_reports_acked_events_that_are_missing_from_the_database_and_changes_nothing(
    broker: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    broker.publish()
    assert start_worker(rows, "--until-idle").exit_code() == 0
    rows.write("DELETE FROM checkpoints")
    rows.write("DELETE FROM execution_results")
    before, consumer = rows.path.read_bytes(), broker.consumer().created
    done = projector("status", "--json")
    assert (done.code, done.document["caught_up"]) == (1, False)
    assert "read the stream again from sequence 1" in done.document["finding"]
    assert (rows.path.read_bytes(), broker.consumer().created) == (before, consumer)


def test_status_recognizes_a_restored_backup_even_if_one_message_holds_back_the_ack_floor(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    hold_ack_floor_back(broker, 60.0)
    worker = start_worker(rows)
    eventually(lambda: rows.count() == 10, 10, lambda: worker.text)
    backup = copy(rows, tmp_path / "backup.db")
    publish(broker, 11, 20)
    eventually(lambda: rows.count() == 20, 10, lambda: worker.text)
    assert worker.stop() == 0
    put_back(rows, backup)
    done = projector("status", "--json")
    assert (done.code, done.document["caught_up"]) == (1, False)
    assert "read the stream again" in done.document["finding"]


def test_status_reports_a_missing_stream_or_consumer_and_creates_neither(
    broker: Broker, projector: Projector
) -> None:
    done = projector("status")
    assert done.code == 1
    assert "stream EVENTS does not exist" in done.output
    assert not broker.has_stream()
    broker.make_stream()
    done = projector("status")
    assert done.code == 1
    assert "consumer backend_events_projector does not exist" in done.output
    assert not broker.has_consumer()


def test_status_needs_no_database(broker: Broker, projector: Projector, tmp_path: Path) -> None:
    broker.make_stream()
    broker.make_consumer()
    missing, foreign = tmp_path / "none.db", tmp_path / "foreign.db"
    foreign.write_bytes(b"not a database" * 100)
    done = projector("status", "--json", PROJECTOR_DATABASE=f"sqlite:///{missing}")
    assert (done.code, done.document["consumer"]["pending"]) == (78, 0)
    (problem,) = done.document["problems"]
    assert "migrations are not applied" in problem
    assert projector("status", PROJECTOR_DATABASE=f"sqlite:///{foreign}").code == 65
    assert not missing.exists()


def test_status_watch_ends_when_interrupted(broker: Broker, rows: Rows, server: NatsServer) -> None:
    broker.make_stream()
    broker.make_consumer()
    program = str(Path(sys.executable).with_name("projector"))
    places = ("--database", rows.url, "--nats", server.url)
    watching = subprocess.Popen(
        [program, "status", "--watch", "50ms", "--json", *places], stdout=subprocess.PIPE
    )
    assert watching.stdout is not None
    first = json.loads(watching.stdout.readline())
    broker.publish()
    while (now := json.loads(watching.stdout.readline()))["consumer"]["pending"] == 0:
        pass
    watching.send_signal(signal.SIGINT)
    watching.communicate(timeout=10)
    assert (first["consumer"]["pending"], now["consumer"]["pending"]) == (0, 1)
    assert watching.returncode == 0


def test_status_refuses_invalid_options() -> None:
    assert main(["status", "--stream", "a.b"]) == 64
    assert main(["status", "--watch", "never"]) == 64


@pytest.mark.every_engine
def test_status_shows_a_worker_with_its_reason_its_rate_and_its_last_errors(
    broker: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    worker = start_worker(rows, pulling=True)
    broker.publish(b"not JSON")
    worker.wait_for("event.rejected")

    def shown() -> dict[str, Any]:
        found: list[dict[str, Any]] = projector("status", "--json").document["workers"]
        assert len(found) == 1
        return found[0]

    worker.until(lambda: shown()["per_second"] is not None)
    found = shown()
    expected = {"state": "idle", "reason": "", "restart_helps": False, "same_database": True}
    assert found.items() >= expected.items()
    worker.until(lambda: [one["event"] for one in shown()["errors"]][-1:] == ["event.rejected"])
    assert "not JSON" in shown()["errors"][-1]["error"]
    text = projector("status").output
    assert re.search(rf"pid {found['pid']} .* idle +[0-9]+ +no +0", text)
    assert "event.rejected  not JSON" in text
    assert projector("status", "--details").output.count("consumer backend_events_projector") == 1


def test_status_shows_why_a_worker_waits_and_which_process_has_the_lock(
    broker: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    worker = start_worker(rows, pulling=True)
    with rows.locked():
        broker.publish()
        for _ in range(50):
            found = projector("status", "--json").document
            if found["workers"][0]["state"] == "database_blocked":
                break
        (holder,) = found["lock_holders"]
        assert holder["pid"] == os.getpid()
        assert found["finding"] == "behind"
        text = projector("status").output
        assert f"process {os.getpid()} (" in text
        assert re.search(rf"pid {found['workers'][0]['pid']}: .*lock", text)
    worker.until(lambda: rows.count() == 1)
    assert projector("status", "--json").document["lock_holders"] == []


def test_a_watched_status_is_drawn_in_place_and_fits_80_columns(
    broker: Broker, rows: Rows, server: NatsServer, start_worker: StartWorker
) -> None:
    broker.make_stream()
    start_worker(rows, pulling=True)
    place = {"PROJECTOR_NATS_URL": server.url, "PROJECTOR_PROJECTION": "starts"}
    with on_terminal("status", "--watch", "0.2s", database=rows, **place) as terminal:
        terminal.wait_for(lambda text: text.count("WORKER") > 2)
        assert "\x1b[1A" in terminal.text  # up one line
        assert max(map(cell_len, terminal.plain.splitlines())) <= 80
        terminal.interrupt()
        assert terminal.exit_code() == 0


def test_status_is_not_caught_up_beside_an_idle_worker_whose_database_was_restored_in_place(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker, projector: Projector
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    publish(broker, 1, 5)
    worker.until(lambda: rows.count() == 5 and broker.is_acked())
    backup = copy(rows, tmp_path / "backup.db")
    publish(broker, 6, 10)
    worker.until(lambda: rows.count() == 10 and broker.is_acked())
    worker.until(lambda: projector("status", "--json").code == 0)
    restore_into(rows, backup)
    done = projector("status", "--json")
    assert (done.code, done.document["caught_up"]) == (1, False)
    assert "will read the stream again" in done.document["finding"]
    assert "once it is restarted" in done.document["finding"]
