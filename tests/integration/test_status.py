"""`projector status` against a real broker and a real file, with one of them away as well."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.nats_server import NatsServer
from tests.support.restoring import copy, hold_ack_floor_back, publish, put_back
from tests.support.rows import Rows
from tests.support.waiting import eventually
from worker.cli.main import main

Status = Callable[..., Done]

PROJECTOR = (str(Path(sys.executable).with_name("projector")),)


@pytest.fixture
def status(rows: Rows, server: NatsServer, tmp_path: Path) -> Status:
    def run(*arguments: object, **environment: str) -> Done:
        places = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}
        return run_projector("status", *arguments, cwd=tmp_path, **{**places, **environment})

    return run


def test_what_was_projected_is_in_step_and_what_came_since_is_pending(
    broker: Broker, rows: Rows, start_worker: StartWorker, status: Status
) -> None:
    broker.make_stream()
    broker.publish()
    broker.publish(b"no start")
    assert start_worker(rows, "--until-idle").exit_code() == 0
    done = status("--json")
    assert done.code == 0, done
    found = done.document
    assert (found["caught_up"], found["finding"], found["behind_seconds"]) == (True, "in step", 0)
    assert (found["database"]["highest_sequence"], found["database"]["rejected"]) == (2, 1)
    assert found["database"]["in_flight"] == found["database"]["without_deadline"] == 1
    assert found["consumer"]["floor"] == 2

    broker.publish_starts(events.start() for _ in range(3))
    broker.fetch(1, ack=False)
    found = status("--json").document
    assert (found["consumer"]["pending"], found["consumer"]["ack_pending"]) == (2, 1)
    assert 0 < found["behind_seconds"] < 30
    assert found["problems"] == []
    text = status().output
    assert "database and broker: in step" in text
    assert "1, 0 overdue, 1 without deadline" in text
    assert "no worker asks" in text


def test_a_database_that_lacks_what_was_settled_is_not_in_step_and_stays_as_it_is(
    broker: Broker, rows: Rows, start_worker: StartWorker, status: Status
) -> None:
    broker.make_stream()
    broker.publish()
    assert start_worker(rows, "--until-idle").exit_code() == 0
    rows.write("DELETE FROM checkpoints")
    rows.write("DELETE FROM execution_results")
    before, consumer = rows.path.read_bytes(), broker.consumer().created
    done = status("--json")
    assert done.code == 1
    assert done.document["caught_up"] is False
    assert "a worker replays them from sequence 1 on" in done.document["finding"]
    assert rows.path.read_bytes() == before
    assert broker.consumer().created == consumer


def test_a_floor_that_one_message_holds_back_hides_no_restored_backup(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker, status: Status
) -> None:
    broker.make_stream()
    hold_ack_floor_back(broker, 60.0)
    worker = start_worker(rows)
    eventually(lambda: rows.count() == 9, 10, lambda: worker.text)
    backup = copy(rows, tmp_path / "backup.db")
    publish(broker, 11, 20)
    eventually(lambda: rows.count() == 19, 10, lambda: worker.text)
    assert worker.stop() == 0
    done = status("--json")
    assert (done.code, done.document["caught_up"]) == (0, True)
    assert done.document["consumer"]["floor"] == 0
    put_back(rows, backup)
    done = status("--json")
    assert (done.code, done.document["caught_up"]) == (1, False)
    assert "an older file" in done.document["finding"]


def test_nothing_set_up_on_the_broker_is_told_and_nothing_is_made(
    broker: Broker, rows: Rows, status: Status
) -> None:
    done = status()
    assert done.code == 1
    assert "there is no stream" in done.output
    assert not broker.has_stream()
    broker.make_stream()
    done = status()
    assert done.code == 1
    assert "there is no consumer" in done.output
    assert not broker.has_consumer()


def test_without_a_database_the_broker_is_told(
    broker: Broker, rows: Rows, status: Status, tmp_path: Path
) -> None:
    broker.make_stream()
    broker.make_consumer()
    done = status("--json", PROJECTOR_DATABASE=f"sqlite:///{tmp_path}/none.db")
    assert done.code == 78
    assert done.document["consumer"]["pending"] == 0
    (problem,) = done.document["problems"]
    assert "migrations are not applied" in problem
    (tmp_path / "no.db").write_bytes(b"no database at all" * 100)
    assert status(PROJECTOR_DATABASE=f"sqlite:///{tmp_path}/no.db").code == 65
    assert not (tmp_path / "none.db").exists()


def test_a_watch_tells_again_until_it_is_interrupted(
    broker: Broker, rows: Rows, server: NatsServer
) -> None:
    broker.make_stream()
    broker.make_consumer()
    places = ("--database", rows.url, "--nats", server.url)
    watching = subprocess.Popen(
        [*PROJECTOR, "status", "--watch", "50ms", "--json", *places], stdout=subprocess.PIPE
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


def test_options_are_checked_as_for_the_worker() -> None:
    assert main(["status", "--stream", "a.b"]) == 64
    assert main(["status", "--watch", "never"]) == 64
