"""The database is locked, full, missing, altered or corrupt: no message is lost or rejected."""

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

from tests.conftest import RunUntilIdle, StartPublisher, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import run_projector
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_complete
from tests.support.restoring import copy, put_back
from tests.support.rows import Rows
from tests.support.scale import new_seed, short_and_long
from tests.support.waiting import until
from tests.support.worker_process import PROJECTOR, Line, WorkerProcess

Make = Callable[[Rows, Path], None]
Fault = Callable[[Rows, WorkerProcess, Path], AbstractContextManager[None]]

# Root may write to any file. Without its capabilities it is an ordinary owner.
UNPRIVILEGED = ("setpriv", "--inh-caps=-all", "--bounding-set=-all", PROJECTOR)


def faults(worker: WorkerProcess) -> list[Line]:
    """Return the lines that report a failed batch or an unavailable database."""
    return worker.logged("batch.failed") + worker.logged("database.unavailable")


def written(rows: Rows) -> int:
    """Return the number of messages in the tables that exist."""
    number = 0
    for table in ("execution_results", "rejected_events", "put_away"):
        with contextlib.suppress(sqlite3.OperationalError):
            number += rows.count(table)
    return number


# --- locked ---


@short_and_long("ack_waits", short=3, long=30, timeout=150)
def test_a_lock_that_outlasts_every_retry_causes_no_ack_no_rejection_and_few_redeliveries(
    stream: Broker, rows: Rows, start_worker: StartWorker, ack_waits: int
) -> None:
    ack_wait, batch, outstanding, messages = 1.5, 50, 300, 900
    stream.make_consumer(ack_wait=ack_wait)
    result_ids = [f"run-{number:04}" for number in range(messages)]
    worker = start_worker(
        rows,
        *("--batch", str(batch), "--max-outstanding", str(outstanding)),
        *("--ack-wait", f"{ack_wait}s", "--busy-timeout", "0.1s", "--retry-for", "0.5s"),
        pulling=True,
    )
    with rows.locked():
        stream.publish_starts(events.start(result_id=name) for name in result_ids)
        failed = worker.wait_for("batch.failed")
        began = time.monotonic()
        assert failed["level"] == "warning"
        assert "locked" in failed["error"]
        until(began + ack_waits * ack_wait)
        assert worker.is_running()
        assert rows.count() == stream.ack_floor() == 0
        # The outstanding messages bound what is pulled; only a failed batch is delivered again.
        assert stream.delivered().stream_seq <= outstanding + batch
        failures = len(faults(worker))
        assert failures <= 20 + ack_waits
        assert len(worker.logged("worker.not_ready")) == 1
    assert_complete(stream, rows, result_ids, within=25, worker=worker)
    # Two threads may each have had a batch; after that the worker tries one message at a time.
    assert stream.delivered().consumer_seq - messages <= 2 * batch + failures, worker.text
    assert "locked" in worker.wait_for("worker.not_ready")["error"]
    worker.wait_for("worker.ready", times=2)
    assert worker.logged("database.recovered")
    assert worker.stop() == 0
    counters = worker.counters
    assert counters["acks_dropped"] == counters["rejected"] == 0
    assert counters["redelivered"] >= 1
    assert counters["acks_sent"] == messages + counters["naks"]


@short_and_long("locks", short=3, long=40, timeout=600)
def test_locks_of_any_length_under_load_lose_no_message(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    locks: int,
    start_publisher: StartPublisher,
) -> None:
    lengths = random.Random(new_seed())
    publisher = start_publisher(server.url, malformed_every=50, rest=0.2)
    worker = start_worker(rows, "--ack-wait", "3s", "--busy-timeout", "0.1s", "--retry-for", "0.5s")
    for _ in range(locks):
        seen = rows.count()
        worker.until(lambda: rows.count() > seen, 20)  # noqa: B023
        with rows.locked():
            until(time.monotonic() + lengths.uniform(0.0, 2.0))
    result_ids = publisher.stop()
    assert_complete(stream, rows, result_ids, publisher.malformed, within=40, worker=worker)
    assert worker.stop() == 0


# --- full, missing or altered ---


@contextmanager
def _no_more_pages(_rows: Rows, _worker: WorkerProcess, limit: Path) -> Iterator[None]:
    limit.write_text("1")
    yield
    limit.unlink()


@contextmanager
def _no_larger_files(rows: Rows, worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    """Let every write that grows the database or its log fail with an I/O error."""
    unlimited = resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE)
    wal = rows.path.with_name(rows.path.name + "-wal")
    size = max(rows.path.stat().st_size, wal.stat().st_size, 200_000)
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, (size, unlimited[1]))
    yield
    resource.prlimit(worker.process.pid, resource.RLIMIT_FSIZE, unlimited)


@contextmanager
def _altered(change: str, undo: str, rows: Rows, *_: object) -> Iterator[None]:
    """Change the schema, as another program may."""
    rows.write(change)
    yield
    rows.write(undo)


_RENAME = "ALTER TABLE {} RENAME TO {}"
_RENAME_COLUMN = "ALTER TABLE execution_results RENAME COLUMN {} TO {}"
_EVERY_ROW_REJECTED = partial(
    _altered,
    "CREATE TRIGGER drifted BEFORE INSERT ON execution_results"
    " BEGIN SELECT RAISE(ABORT, 'tenant is required'); END",
    "DROP TRIGGER drifted",
)


def _renamed(old: str, new: str, rename: str = _RENAME) -> Fault:
    return partial(_altered, rename.format(old, new), rename.format(new, old))


@contextmanager
def _file_renamed(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    aside = rows.path.with_name("aside.db")
    rows.path.rename(aside)
    yield
    aside.rename(rows.path)


@contextmanager
def _read_only(rows: Rows, _worker: WorkerProcess, _limit: Path) -> Iterator[None]:
    """Replace the file by a read-only one, because an open file stays writable."""
    read_only = copy(rows, rows.path.with_name("copy.db"))
    with closing(sqlite3.connect(read_only)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
    read_only.chmod(0o444)
    read_only.rename(rows.path)
    yield
    for file in rows.path.parent.glob(rows.path.name + "*"):
        file.chmod(0o644)  # SQLite gives its other files the mode of the database


FAULTS: dict[str, tuple[Fault, str]] = {
    "full": (_no_more_pages, "full"),
    "io-error": (_no_larger_files, "i/o"),
    "no-runs-table": (_renamed("execution_results", "put_away"), "no such table"),
    "no-rejected-table": (_renamed("rejected_events", "put_away"), "no such table"),
    "renamed-column": (_renamed("pc_id", "machine_id", _RENAME_COLUMN), "pc_id"),
    "every-row-rejected": (_EVERY_ROW_REJECTED, "tenant is required"),
    "file-deleted": (_file_renamed, "no such file"),
    "read-only": (_read_only, "read-only"),
}


# A batch of one message must not blame that message when every row is rejected.
@pytest.mark.parametrize(
    ("kind", "batch"), [*((kind, "50") for kind in FAULTS), ("every-row-rejected", "1")]
)
def test_a_fault_of_the_whole_database_rejects_and_acks_nothing_until_it_is_over(
    stream: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path, kind: str, *, batch: str
) -> None:
    fault, cause = FAULTS[kind]
    limit = tmp_path / "pages"
    as_root = kind == "read-only" and os.geteuid() == 0
    worker = start_worker(
        rows,
        *("--ack-wait", "2s", "--batch", batch),
        command=UNPRIVILEGED if as_root else (PROJECTOR,),
        fault=("page-limit", limit) if kind == "full" else None,
    )
    before = [f"before-{number:02}" for number in range(20)]
    stream.publish_starts(events.start(result_id=name) for name in before)
    worker.until(lambda: rows.count() == 20 and stream.is_acked())
    during = [f"during-{number:04}" for number in range(600)]
    with fault(rows, worker, limit):
        stream.publish(b"not JSON")
        stream.publish_starts(events.start(result_id=name, version="x" * 1000) for name in during)
        worker.until(lambda: len(faults(worker)) >= 2)
        assert {line["level"] for line in faults(worker)} == {"warning"}
        worker.wait_for_error(None, cause)
        assert worker.is_running()
        # A full database may have room for a few more rows.
        assert stream.ack_floor() <= max(len(before), written(rows))
    assert_complete(stream, rows, [*before, *during], [b"not JSON"], within=25, worker=worker)
    _, _, reason = worker.logged("batch.failed")[0]["error"].partition(" <- ")[0].partition(": ")
    reason = reason.partition(", with ")[0]  # the free space differs from one to the other
    assert reason in worker.wait_for("worker.not_ready")["error"]
    worker.wait_for("worker.ready", times=2)
    assert worker.stop() == 0


@pytest.mark.parametrize("read_only", ["database", "log", "index", "folder"])
def test_a_file_that_is_read_only_at_the_start_is_named_and_nothing_is_left_beside_it(
    stream: Broker, rows: Rows, start_worker: StartWorker, read_only: str
) -> None:
    stream.publish(result_id="patient")
    folder = rows.path.parent / "data"
    folder.mkdir()
    rows = Rows(rows.path.rename(folder / rows.path.name))
    names = {"log": "-wal", "index": "-shm"}
    blocked = folder if read_only == "folder" else Path(f"{rows.path}{names.get(read_only, '')}")
    blocked.touch()
    before = sorted(folder.iterdir())
    mode = blocked.stat().st_mode
    blocked.chmod(mode & 0o555)
    unprivileged = UNPRIVILEGED if os.geteuid() == 0 else (PROJECTOR,)
    worker = start_worker(rows, command=unprivileged)
    reading = subprocess.run(
        [*unprivileged, "runs", "--database", rows.url], check=False, capture_output=True, text=True
    )
    assert f"read-only for this process: {blocked}\n" in reading.stderr
    assert reading.returncode == 78
    worker.wait_for_error("database.unavailable", f"read-only for this process: {blocked}")
    assert sorted(folder.iterdir()) == before
    blocked.chmod(mode)
    worker.wait_for("pull.started")
    assert_complete(stream, rows, ["patient"], within=25, worker=worker)
    assert worker.stop() == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 2 MiB. A test names it before `start_worker`, whose workers have to end first."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small disk is not permitted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_worker_waits_for_space_on_a_disk_that_is_really_full(
    small_disk: Path, stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    small = Rows(Path(shutil.copy(rows.path, small_disk / "projector.db")))
    worker = start_worker(small, "--ack-wait", "2s", "--batch", "50")
    stream.publish(result_id="before")
    worker.until(lambda: small.count() == 1)
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(b"x" * 4096)
    during = [f"during-{number:03}" for number in range(200)]
    stream.publish_starts(events.start(result_id=name) for name in during)
    worker.until(lambda: len(faults(worker)) >= 2)
    worker.wait_for_error("batch.failed", "full")
    assert stream.ack_floor() <= written(small)
    assert worker.is_running()
    ballast.unlink()
    assert_complete(stream, small, ["before", *during], within=25, worker=worker)
    assert worker.stop() == 0


def test_a_full_folder_of_temporary_files_is_named_and_the_migration_goes_on_with_space(
    small_disk: Path, stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    rows.write(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT 50000)"
        " INSERT INTO execution_results (result_id, request_id, pc_id)"
        " SELECT n, 'r', hex(zeroblob(100)) FROM numbers"
    )
    rows.write("DROP INDEX execution_results_pc_id")
    rows.write("DELETE FROM _yoyo_migration WHERE migration_id GLOB '*_02_*'")
    environment = {"SQLITE_TMPDIR": str(small_disk)}
    worker = start_worker(rows, "--migrate", environment=environment)
    done = run_projector("migrate", "--database", rows.url, cwd=rows.path.parent, **environment)
    assert done.code == 75
    for text in (worker.wait_for_error("database.unavailable", "full")["error"], done.errors):
        assert f"SQLite's temporary files are in {small_disk}, with " in text
        assert "disk of the database" not in text
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    worker.wait_for("database.migrated", within=20)
    assert worker.stop() == 0


@short_and_long("times", short=2, long=15, timeout=400)
def test_a_database_that_is_replaced_under_load_holds_all_messages_acked_from_then_on(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    times: int,
    start_publisher: StartPublisher,
) -> None:
    empty = Path(shutil.copy(rows.path, rows.path.with_name("empty.db")))
    publisher = start_publisher(server.url, malformed_every=50, rest=0.2)
    worker = start_worker(rows, "--ack-wait", "2s", "--batch", "50")
    result_ids: set[str] = set()
    rejected: set[bytes] = set()
    for number in range(times):
        worker.until(lambda: rows.count() > 300, 20)
        # A stopped process commits nothing between the look at the old file and its replacement.
        worker.send(signal.SIGSTOP)
        result_ids |= set(rows.result_ids())
        rejected |= {row["payload"] for row in rows.rejected()}
        Path(shutil.copy(empty, empty.with_name("next.db"))).rename(rows.path)
        worker.send(signal.SIGCONT)
        worker.wait_for("pull.started", times=number + 2, within=15)
    worker.until(lambda: rows.count() > 300, 20)
    published = publisher.stop()
    worker.until(stream.is_acked, 60)
    assert set(published) - result_ids - set(rows.result_ids()) == set(), worker.text
    rejected |= {row["payload"] for row in rows.rejected()}
    assert rejected == set(publisher.malformed)
    assert len(faults(worker)) >= times
    assert worker.stop() == 0


# --- corrupt ---


def _corrupt(rows: Rows, path: Path) -> None:
    """Write a copy in which the first page of the table of runs is overwritten."""
    copy(rows, path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        (page,) = connection.execute(
            "SELECT rootpage FROM sqlite_schema WHERE name = 'execution_results'"
        ).fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xde\xad" * (size // 2))


def _foreign(_rows: Rows, path: Path) -> None:
    path.write_bytes(b"Dear reader, " * 1000)


@pytest.mark.parametrize("make", [_corrupt, _foreign], ids=["corrupt", "foreign"])
def test_a_corrupt_or_foreign_file_is_exit_65_and_no_message_is_acked(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle, make: Make
) -> None:
    running = start_worker(rows, "--ack-wait", "2s")
    stream.publish(result_id="before")
    running.until(lambda: rows.count() == 1 and stream.is_acked())
    intact, bad = copy(rows, rows.path.with_name("intact.db")), rows.path.with_name("bad.db")
    make(rows, bad)
    content = bad.read_bytes()
    bad.rename(rows.path)
    for number in range(20):
        stream.publish(result_id=f"after-{number}")
    stream.publish(b"not JSON")
    assert running.exit_code(within=20) == 65
    assert running.logged("worker.failed")[0]["level"] == "critical"
    for options in ((), ("--migrate",)):
        at_start = start_worker(rows, "--ack-wait", "2s", *options)
        assert at_start.exit_code() == 65
        assert at_start.logged("worker.failed")
    assert stream.ack_floor() == 1
    if make is _foreign:
        assert rows.path.read_bytes() == content

    put_back(rows, intact)
    run_until_idle(rows)
    result_ids = ["before", *(f"after-{number}" for number in range(20))]
    assert_complete(stream, rows, result_ids, [b"not JSON"])
