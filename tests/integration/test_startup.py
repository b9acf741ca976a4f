"""The check of the schema at the start, and the log from start to stop."""

import os
import re
import shlex
import shutil
import signal
import sqlite3
import subprocess
import tempfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.integration.conftest import RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.commands import others_environment
from tests.support.endpoints import NotifySocket
from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR

# A user without an entry in /etc/passwd. It may read the interpreter, wherever that is installed.
_STRANGER = 54321
OTHER_USER = (
    *("setpriv", f"--reuid={_STRANGER}", f"--regid={_STRANGER}", "--clear-groups"),
    *("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", PROJECTOR),
)

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}(\d{3})?)?\+00:00")
_LEVELS = {"debug", "info", "warning", "error", "critical"}


def test_pending_migrations_are_exit_78_with_the_command_that_applies_them(
    stream: Broker, tmp_path: Path, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    rows = Rows(tmp_path / "new one.db")
    failing = start_worker(rows)
    assert failing.exit_code() == 78
    assert not rows.path.exists()
    (failed,) = failing.logged("worker.failed")
    assert failed == failing.lines[-1]
    assert "migrations are not applied" in failed["error"]
    assert "exc_info" not in failed
    _, _, command = failed["error"].partition("run: ")
    applied = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=others_environment(), timeout=20, check=False
    )
    assert applied.returncode == 0
    assert run_until_idle(rows).logged("database.migrated") == []


def test_two_workers_that_both_migrate_start_together(
    stream: Broker, tmp_path: Path, start_worker: StartWorker
) -> None:
    stream.publish()
    rows = Rows(tmp_path / "new.db")
    workers = [start_worker(rows, "--migrate", "--until-idle") for _ in range(2)]
    assert [worker.exit_code() for worker in workers] == [0, 0]
    assert rows.count() == 1


def test_a_stop_ends_a_wait_for_another_migration_at_once(
    tmp_path: Path, start_worker: StartWorker, notify: NotifySocket
) -> None:
    rows = Rows(tmp_path / "new.db")
    with closing(sqlite3.connect(rows.path)) as connection, connection:
        connection.execute("CREATE TABLE yoyo_lock (locked INT PRIMARY KEY, ctime TIMESTAMP, pid)")
        lock = "INSERT INTO yoyo_lock VALUES (1, '2100-01-01T00:00:00', ?)"
        connection.execute(lock, (os.getpid(),))
    worker = start_worker(rows, "--migrate", environment={"NOTIFY_SOCKET": notify.address})
    line = worker.wait_for("database.migrating")
    assert f"waiting for process {os.getpid()}, which has been migrating" in line["step"]
    assert notify.lines().count("EXTEND_TIMEOUT_USEC=30000000") >= 2
    worker.send(signal.SIGTERM)
    assert worker.exit_code(within=3) == 0
    assert rows.count("yoyo_lock") == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_long_migration_shows_its_progress_and_is_undone_by_a_stop_or_a_kill(
    stream: Broker,
    tmp_path: Path,
    start_worker: StartWorker,
    notify: NotifySocket,
    number: signal.Signals,
) -> None:
    rows = Rows(tmp_path / "new.db")
    worker = start_worker(
        rows,
        "--migrate",
        environment={"NOTIFY_SOCKET": notify.address},
        fault=("slow-statement", 10**12),
    )
    line = worker.wait_for("database.migrating")
    assert re.search(r"applying \d+_02_schema \(1 of 1\)|\(2 of 2\)", line["step"])
    assert line["seconds"] > 1
    assert line["wal_bytes"] >= 0
    assert notify.lines().count("EXTEND_TIMEOUT_USEC=30000000") >= 2
    worker.send(number)
    assert worker.exit_code(within=3) == (0 if number == signal.SIGTERM else -number)
    assert worker.logged("worker.failed") == []
    successor = start_worker(rows, "--migrate", "--until-idle")
    assert successor.exit_code() == 0
    freed = successor.logged("database.lock_freed", pid=worker.process.pid)
    assert len(freed) == (number == signal.SIGKILL)
    assert rows.count() == 0


def test_every_log_line_is_json_and_the_counters_of_the_stop_line_add_up(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    for number in range(20):
        stream.publish(result_id=f"run-{number % 15}")
    stream.publish(b"not JSON")
    worker = run_until_idle(rows, "--log-level", "debug")
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
    assert counters["messages"] == counters["acks_sent"] == 21
    assert counters["runs_inserted"] == rows.count() == 15
    assert (counters["runs_duplicate"], counters["rejected"]) == (5, 1)
    assert counters["redelivered"] == counters["naks"] == counters["acks_dropped"] == 0
    assert counters["batches"] == len(worker.logged("batch.projected"))
    assert sum(line["batch_size"] for line in worker.logged("batch.projected")) == 21
    assert len(worker.logged("run.projected")) == 20


def test_an_event_in_the_text_format_is_one_line_whatever_its_fields_hold(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.publish(manifest_id="two\nlines \x1b[31m")
    worker = run_until_idle(rows, log_format="text")
    lines = worker.text.splitlines()
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ [A-Z]+ +[a-z_]+\.[a-z_]+"
    assert all(re.match(form, line) for line in lines), lines
    (missing,) = [line for line in lines if "deadline.missing" in line]
    assert r"manifest_id='two\nlines \x1b[31m'" in missing
    assert "worker.stopped" in lines[-1]
    assert "runs_inserted=1" in lines[-1]


def test_a_worker_needs_no_name_no_home_and_no_folder_but_that_of_its_data(
    stream: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can start a process of another user")
    data = Path(tempfile.mkdtemp())
    try:
        database = Rows(data / "projector.db")
        shutil.copyfile(rows.path, database.path)
        for path in (data, database.path):
            os.chown(path, _STRANGER, _STRANGER)
        stream.publish()
        environment = {"HOME": "", "USER": "", "LOGNAME": "", "USERNAME": ""}
        worker = start_worker(
            database, "--migrate", "--until-idle", command=OTHER_USER, environment=environment
        )
        assert worker.exit_code() == 0, worker.text
        assert database.count() == 1
        assert database.path.stat().st_uid == _STRANGER
        assert {path.name for path in tmp_path.iterdir()} == {rows.path.name, "worker-1.log"}
    finally:
        shutil.rmtree(data)
