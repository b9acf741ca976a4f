"""What the worker checks before it starts, and what it logs from start to stop."""

import re
import shlex
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

from tests.integration.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.environment import others_environment
from tests.support.rows import Rows

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}(\d{3})?)?\+00:00")
_LEVELS = {"debug", "info", "warning", "error", "critical"}


def test_pending_migrations_are_refused_with_the_command_that_applies_them(
    broker: Broker, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    rows = Rows(tmp_path / "new one.db")
    refused = start_worker(rows)
    assert refused.exit_code() == 78
    assert not rows.path.exists()
    (failed,) = refused.logged("worker.failed")
    assert "migrations are not applied" in failed["error"]
    assert "exc_info" not in failed
    _, _, command = failed["error"].partition("run: ")

    applied = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=others_environment(), timeout=20, check=False
    )
    assert applied.returncode == 0
    started = start_worker(rows, "--until-idle")
    assert started.exit_code() == 0
    assert started.logged("database.migrated") == []


def test_with_migrate_the_worker_applies_the_migrations_itself_and_starts(
    broker: Broker, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish()
    rows = Rows(tmp_path / "new.db")
    workers = [start_worker(rows, "--migrate", "--until-idle") for _ in range(2)]

    for worker in workers:
        assert worker.exit_code() == 0
    assert rows.count() == 1


def test_with_migrate_a_locked_database_is_waited_for(
    broker: Broker, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    rows = Rows(tmp_path / "locked.db")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("CREATE TABLE of_another_program (x)")
        other.execute("BEGIN IMMEDIATE")
        stopped = start_worker(rows, "--migrate", "--busy-timeout", "0.1s")
        waiting = start_worker(rows, "--migrate", "--busy-timeout", "0.1s", "--until-idle")
        for worker in (stopped, waiting):
            assert "locked" in worker.wait_for("batch.failed")["error"]
        assert stopped.stop(within=5) == 0
        other.execute("COMMIT")
    assert waiting.exit_code() == 0


def test_a_file_that_is_no_database_ends_the_worker_with_65_and_stays_as_it_is(
    tmp_path: Path, broker: Broker, start_worker: StartWorker
) -> None:
    path = tmp_path / "letter.db"
    path.write_bytes(b"Dear reader, " * 1000)
    before = path.read_bytes()
    plain = start_worker(f"sqlite:///{path}")
    migrating = start_worker(f"sqlite:///{path}", "--migrate")

    for worker in (plain, migrating):
        assert worker.exit_code() == 65
        assert "not a database" in worker.logged("worker.failed")[0]["error"]
    assert path.read_bytes() == before


def test_every_log_line_is_json_and_the_totals_of_the_stop_line_add_up(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    for number in range(20):
        broker.publish(result_id=f"run-{number % 15}")
    broker.publish(b"no start")
    worker = start_worker(rows, "--until-idle", "--log-level", "debug")

    assert worker.exit_code() == 0
    assert worker.text.endswith("\n")
    for line in worker.lines:
        assert list(line)[:4] == ["time", "level", "logger", "event"]
        assert _TIME.fullmatch(line["time"]), line
        assert line["level"] in _LEVELS
        assert line["logger"]
        assert line["event"]
    (started,) = worker.logged("worker.started")
    assert set(started["versions"]) == {"worker", "python", "sqlite", "nats-py", "server"}
    assert all(re.match(r"\d+\.\d+", version) for version in started["versions"].values())
    assert started["settings"]["stream"] == "EVENTS"
    assert started["settings"]["database"] == rows.url
    assert started["settings"]["ack_wait"] == 30
    stopped = worker.lines[-1]
    assert stopped["event"] == "worker.stopped"
    assert stopped["exit_code"] == 0
    counters = stopped["counters"]
    assert counters["messages"] == 21
    assert counters["runs_inserted"] == rows.count() == 15
    assert counters["runs_duplicate"] == 5
    assert counters["rejected"] == 1
    assert counters["redelivered"] == counters["naks"] == counters["acks_dropped"] == 0
    assert counters["settled"] == 21
    assert counters["batches"] == len(worker.logged("batch.projected"))
    assert sum(line["batch_size"] for line in worker.logged("batch.projected")) == 21
    missing = [count for name, count in counters.items() if name.startswith("deadline_missing_")]
    assert sum(missing) == 20
    assert len(worker.logged("run.projected")) == 20


def test_logs_as_text_are_one_line_an_event_whatever_the_event_holds(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish(manifest_id="two\nlines \x1b[31m")
    worker = start_worker(rows, "--until-idle", log_format="text")

    assert worker.exit_code() == 0
    lines = worker.text.splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\d [A-Z]+ +[a-z_]+\.[a-z_]+", line) for line in lines), lines
    (missing,) = [line for line in lines if "deadline.missing" in line]
    assert r"manifest_id='two\nlines \x1b[31m'" in missing
    assert "worker.stopped" in lines[-1]
    assert "runs_inserted=1" in lines[-1]
