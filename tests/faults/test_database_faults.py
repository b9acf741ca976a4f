"""The database is locked, full, gone, drifted or damaged: no message is lost or blamed for it."""

import contextlib
import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from pathlib import Path

import pytest

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker, Publisher
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_whole, deliveries, last_delivered
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.seeds import new_seed
from tests.support.waiting import eventually, until
from tests.support.worker_process import PROJECTOR, Line, WorkerProcess

Fault = Callable[[Rows, WorkerProcess, Path], AbstractContextManager[None]]

# Root may write whatever the file's mode says. Without its capabilities it is an ordinary owner.
UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all", PROJECTOR)


# --- locked ---------------------------------------------------------------------------------------


@short_and_long("ack_waits", short=3, long=30, timeout=150)
def test_a_lock_longer_than_every_retry_costs_no_ack_no_storm_and_no_needless_redelivery(
    broker: Broker, rows: Rows, start_worker: StartWorker, ack_waits: int
) -> None:
    ack_wait, batch, in_flight, messages = 1.5, 50, 300, 900
    broker.make_stream()
    broker.make_consumer(ack_wait=ack_wait)
    result_ids = [f"run-{number:04}" for number in range(messages)]
    options = (
        "--batch",
        str(batch),
        "--max-outstanding",
        str(in_flight),
        "--ack-wait",
        f"{ack_wait}s",
    )
    worker = start_worker(rows, *options, "--busy-timeout", "0.1s", "--retry-for", "0.5s")
    worker.wait_for("pull.started")
    with rows.locked():
        broker.publish_starts(events.start(result_id=name) for name in result_ids)
        fault = worker.wait_for("batch.failed")
        began = time.monotonic()
        assert fault["level"] == "warning"
        assert "locked" in fault["error"]
        until(began + ack_waits * ack_wait)
        assert worker.is_running()
        assert rows.count() == 0
        assert _acked(broker) == 0
        # What is in hand bounds what was pulled; what failed comes again, and nothing else.
        assert last_delivered(broker) <= in_flight + batch
        faults = len(_faults(worker))
        assert faults <= 20 + ack_waits
    assert_whole(broker, rows, result_ids, within=25, otherwise=lambda: worker.text)
    # Two threads may each have had a batch; from then on one message at a time is tried.
    assert deliveries(broker) - messages <= 2 * batch + faults, worker.text
    assert "locked" in worker.wait_for("worker.not_ready")["error"]
    worker.wait_for("worker.ready", times=2)
    assert worker.stop() == 0
    assert worker.counters["acks_dropped"] == 0


@short_and_long("locks", short=3, long=40, timeout=600)
def test_locks_of_any_length_while_events_stream_in_cost_nothing(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker, locks: int
) -> None:
    lengths = random.Random(new_seed())
    broker.make_stream()
    publisher = Publisher(server.url, malformed_every=50, rest=0.2)
    worker = start_worker(rows, "--ack-wait", "3s", "--busy-timeout", "0.1s", "--retry-for", "0.5s")
    for _ in range(locks):
        seen = rows.count()
        eventually(lambda seen=seen: rows.count() > seen, 20, lambda: worker.text)  # type: ignore[misc]
        with rows.locked():
            until(time.monotonic() + lengths.uniform(0.0, 2.0))
    result_ids = publisher.stop()
    assert_whole(
        broker, rows, result_ids, publisher.malformed, within=40, otherwise=lambda: worker.text
    )
    assert worker.stop() == 0


# --- the place ------------------------------------------------------------------------------------


@contextmanager
def _no_more_pages(_rows: Rows, _worker: WorkerProcess, limit: Path) -> Iterator[None]:
    limit.write_text("1")
    yield
    limit.unlink()


@contextmanager
def _no_larger_files(rows: Rows, worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    """Let no write go beyond a size that the database and its log have already: an I/O error."""
    unlimited = resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE)
    wal = rows.path.with_name(rows.path.name + "-wal")
    size = max(rows.path.stat().st_size, wal.stat().st_size, 200_000)
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    yield
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def _table_away(table: str, rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    rows.write(f"ALTER TABLE {table} RENAME TO put_away")
    yield
    rows.write(f"ALTER TABLE put_away RENAME TO {table}")


@contextmanager
def _column_renamed(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    rows.write("ALTER TABLE execution_results RENAME COLUMN pc_id TO machine_id")
    yield
    rows.write("ALTER TABLE execution_results RENAME COLUMN machine_id TO pc_id")


@contextmanager
def _every_row_refused(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    """As where another program has added a rule that no start can meet."""
    rows.write(
        "CREATE TRIGGER drifted BEFORE INSERT ON execution_results"
        " BEGIN SELECT RAISE(ABORT, 'tenant is required'); END"
    )
    yield
    rows.write("DROP TRIGGER drifted")


@contextmanager
def _file_away(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    aside = rows.path.with_name("aside.db")
    rows.path.rename(aside)
    yield
    aside.rename(rows.path)


@contextmanager
def _read_only(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    """An open file stays writable whatever its mode becomes; so another takes its place."""
    copy = rows.copy(rows.path.with_name("copy.db"))
    with closing(sqlite3.connect(copy)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    copy.chmod(0o444)
    copy.rename(rows.path)
    yield
    for file in rows.path.parent.glob(rows.path.name + "*"):
        file.chmod(0o644)  # the engine makes its own files with the mode of the database


PLACE_FAULTS: dict[str, tuple[Fault, str]] = {
    "full": (_no_more_pages, "full"),
    "io-error": (_no_larger_files, "i/o"),
    "no-runs-table": (partial(_table_away, "execution_results"), "no such table"),
    "no-rejected-table": (partial(_table_away, "rejected_events"), "no such table"),
    "renamed-column": (_column_renamed, "pc_id"),
    "every-row-refused": (_every_row_refused, "tenant is required"),
    "file-deleted": (_file_away, "no such file"),
    "read-only": (_read_only, "readonly"),
}


@pytest.mark.parametrize("kind", PLACE_FAULTS)
def test_a_fault_of_the_place_rejects_nothing_acks_nothing_and_ends_by_itself(
    broker: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path, kind: str
) -> None:
    fault, told = PLACE_FAULTS[kind]
    limit = tmp_path / "pages"
    environment, command = faulty("page-limit", limit) if kind == "full" else ({}, ())
    if kind == "read-only" and os.geteuid() == 0:
        command = UNPRIVILEGED
    broker.make_stream()
    worker = start_worker(
        rows, "--ack-wait", "2s", "--batch", "50", environment=environment, command=command
    )
    before = [f"before-{number:02}" for number in range(20)]
    broker.publish_starts(events.start(result_id=name) for name in before)
    eventually(lambda: rows.count() == 20, 10, lambda: worker.text)
    eventually(broker.is_settled, 5)
    during = [f"during-{number:04}" for number in range(600)]
    with fault(rows, worker, limit):
        broker.publish(b"no start")
        broker.publish_starts(events.start(result_id=name, version="x" * 1000) for name in during)
        eventually(lambda: len(_faults(worker)) >= 2, 15, lambda: worker.text)
        assert {line["level"] for line in _faults(worker)} == {"warning"}
        worker.wait_for_error(None, told)
        assert worker.is_running()
        # In a full file there may be room for a few more.
        assert _acked(broker) <= max(len(before), _written(rows))
    assert_whole(
        broker, rows, [*before, *during], [b"no start"], within=25, otherwise=lambda: worker.text
    )
    _, _, reason = worker.logged("batch.failed")[0]["error"].partition(" <- ")[0].partition(": ")
    assert reason in worker.wait_for("worker.not_ready")["error"]
    worker.wait_for("worker.ready", times=2)
    assert worker.stop() == 0


def test_a_row_at_a_time_that_is_refused_by_a_drifted_schema_is_not_the_fault_of_its_data(
    broker: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--batch", "1", "--ack-wait", "2s")
    worker.wait_for("pull.started")
    with _every_row_refused(rows, worker, tmp_path):
        for number in range(3):
            broker.publish(result_id=f"run-{number}")
        eventually(lambda: len(_faults(worker)) >= 2, 15, lambda: worker.text)
        assert rows.rejected() == []
        assert _acked(broker) == 0
    assert_whole(broker, rows, [f"run-{number}" for number in range(3)], within=25)
    assert worker.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB. To be asked for before the workers that use it, which have to end first."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_disk_that_is_really_full_is_waited_for(
    small_disk: Path, broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    small = Rows(Path(shutil.copy(rows.path, small_disk / "projector.db")))
    broker.make_stream()
    worker = start_worker(small, "--ack-wait", "2s", "--batch", "50")
    broker.publish(result_id="before")
    eventually(lambda: small.count() == 1, 10, lambda: worker.text)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    during = [f"during-{number:03}" for number in range(200)]
    broker.publish_starts(events.start(result_id=name) for name in during)
    eventually(lambda: len(_faults(worker)) >= 2, 15, lambda: worker.text)
    worker.wait_for_error("batch.failed", "full")
    assert _acked(broker) <= _written(small)
    assert worker.is_running()
    ballast.unlink()
    assert_whole(broker, small, ["before", *during], within=25, otherwise=lambda: worker.text)
    assert worker.stop() == 0


@short_and_long("times", short=2, long=15, timeout=400)
def test_a_database_that_is_replaced_under_load_holds_all_that_is_acked_from_then_on(
    server: NatsServer,
    broker: Broker,
    rows: Rows,
    start_worker: StartWorker,
    times: int,
) -> None:
    empty = Path(shutil.copy(rows.path, rows.path.with_name("empty.db")))
    broker.make_stream()
    publisher = Publisher(server.url, malformed_every=50, rest=0.2)
    worker = start_worker(rows, "--ack-wait", "2s", "--batch", "50")
    written: set[str] = set()
    rejected: set[bytes] = set()
    for number in range(times):
        eventually(lambda: rows.count() > 300, 20, lambda: worker.text)
        # Nothing may be committed between the look into the old file and its replacement.
        worker.send(signal.SIGSTOP)
        written |= set(rows.result_ids())
        rejected |= {row["payload"] for row in rows.rejected()}
        Path(shutil.copy(empty, empty.with_name("next.db"))).rename(rows.path)
        worker.send(signal.SIGCONT)
        worker.wait_for("pull.started", times=number + 2, within=15)
    eventually(lambda: rows.count() > 300, 20, lambda: worker.text)
    result_ids = publisher.stop()
    eventually(broker.is_settled, 60, lambda: worker.text)
    assert set(result_ids) - written - set(rows.result_ids()) == set(), worker.text
    found = rejected | {row["payload"] for row in rows.rejected()}
    assert found == set(publisher.malformed)
    assert len(_faults(worker)) >= times
    assert worker.stop() == 0


# --- the end --------------------------------------------------------------------------------------


def _damaged(rows: Rows, path: Path) -> Path:
    """Return a copy whose table of runs begins with a page of rubbish."""
    rows.copy(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'execution_results'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xde\xad" * (size // 2))
    return path


def _foreign(_rows: Rows, path: Path) -> Path:
    path.write_bytes(b"Dear reader, " * 1000)
    return path


@pytest.mark.parametrize("make", [_damaged, _foreign], ids=["damaged", "foreign"])
def test_a_file_that_is_damaged_or_foreign_ends_the_worker_with_65_and_nothing_acked(
    broker: Broker,
    rows: Rows,
    start_worker: StartWorker,
    tmp_path: Path,
    make: Callable[[Rows, Path], Path],
) -> None:
    broker.make_stream()
    running = start_worker(rows, "--ack-wait", "2s")
    broker.publish(result_id="before")
    eventually(lambda: rows.count() == 1, 10, lambda: running.text)
    eventually(broker.is_settled, 5)
    whole = rows.copy(tmp_path / "whole.db")
    make(rows, tmp_path / "bad.db").rename(rows.path)
    for number in range(20):
        broker.publish(result_id=f"after-{number}")
    broker.publish(b"no start")
    assert running.exit_code(within=20) == 65
    assert running.logged("worker.failed")[0]["level"] == "critical"
    at_start = start_worker(rows, "--ack-wait", "2s")
    assert at_start.exit_code(within=20) == 65
    assert _acked(broker) == 1

    for leftover in rows.path.parent.glob(rows.path.name + "-*"):
        leftover.unlink()
    whole.rename(rows.path)
    assert start_worker(rows, "--until-idle").exit_code() == 0
    wanted = ["before", *(f"after-{number}" for number in range(20))]
    assert_whole(broker, rows, wanted, [b"no start"])


def _faults(worker: WorkerProcess) -> list[Line]:
    """Return each time that the worker has told of the database, be it a batch or a look."""
    return worker.logged("batch.failed") + worker.logged("database.unavailable")


def _acked(broker: Broker) -> int:
    """Return up to which stream sequence everything is acked."""
    floor = broker.consumer().ack_floor
    assert floor is not None
    return floor.stream_seq


def _written(rows: Rows) -> int:
    """Return how many messages are rows or rejected events; what is not there holds none."""
    written = 0
    for table in ("execution_results", "rejected_events", "put_away"):
        with contextlib.suppress(sqlite3.OperationalError):
            written += rows.count(table)
    return written
