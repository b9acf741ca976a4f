"""Faults with real causes: nothing is written, the error is the right one, and writing resumes."""

import shutil
import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from repo.batch_writer import WriteResult
from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    RepositoryError,
    RowRejected,
    SchemaError,
    TransientError,
    UnavailableError,
)
from repo.execution_results import START_WRITER
from repo.rejected import RejectedEvent
from repo.sqlite.checks import Disk, disk_of
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from repo.sqlite.errors import TRANSLATED
from repo.statements import statement
from tests.repo.rows import Db, Repository, reject_bad_pc, reject_of, run, runs
from tests.support.forbidden import forbid

PATIENCE = 30.0

KINDS: dict[type[RepositoryError], str] = {
    TransientError: "BUSY_SNAPSHOT LOCKED_SHAREDCACHE INTERRUPT PROTOCOL SCHEMA",
    RowRejected: "TOOBIG CONSTRAINT_NOTNULL MISMATCH",
    SchemaError: "ERROR",
    DiskError: "IOERR_FSYNC FULL",
    UnavailableError: "PERM READONLY READONLY_DBMOVED CANTOPEN AUTH NOMEM",
    CorruptDatabaseError: "CORRUPT_VTAB NOTADB",
}


class WatchedEvent(threading.Event):
    """An event that records a wait, such as that of a retry between two attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_for.set()
        return super().wait(timeout)


def cause_of(fault: pytest.ExceptionInfo[RepositoryError]) -> str:
    cause = fault.value.__cause__
    assert isinstance(cause, sqlite3.Error | OSError)
    return cause.sqlite_errorname if isinstance(cause, sqlite3.Error) else type(cause).__name__


def replace_by_copy(path: Path, template: Path) -> None:
    """Restore a backup as the manual says: delete the log and index, then rename the file."""
    copy = Path(shutil.copyfile(template, path.with_name("copy.db")))
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    copy.replace(path)


def assert_takes_writes(db: Db) -> None:
    assert db.write(runs(3)).inserted == 3
    assert db.count() == 3


# --- locks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["unlocked", "given up"])
def test_a_retry_ends_when_the_lock_is_released_or_the_worker_stops(db: Db, ending: str) -> None:
    give_up = WatchedEvent()

    def write_patiently() -> WriteResult:
        with Repository(db.database, START_WRITER, retry_for=3600, give_up=give_up) as patient:
            return patient.write(runs(3), [], reject_of(runs(3)))

    lock = closing(sqlite3.connect(db.path, isolation_level=None))
    with ThreadPoolExecutor() as pool, lock as other:
        other.execute("BEGIN IMMEDIATE")
        writing = pool.submit(write_patiently)
        met_the_lock = give_up.waited_for.wait(PATIENCE)
        rows = db.count()
        other.execute("ROLLBACK") if ending == "unlocked" else give_up.set()
        assert met_the_lock
        assert rows == 0
        if ending == "unlocked":
            assert writing.result(PATIENCE).inserted == 3
        else:
            with pytest.raises(TransientError):
                writing.result(PATIENCE)
    assert db.count() == (3 if ending == "unlocked" else 0)


def test_nothing_is_attempted_after_giving_up(db: Db) -> None:
    give_up = threading.Event()
    give_up.set()
    stopped = Repository(db.database, START_WRITER, retry_for=1, give_up=give_up)
    with stopped, pytest.raises(TransientError):
        stopped.write(runs(3), [], reject_of(runs(3)))
    assert db.count() == 0


# --- the disk -------------------------------------------------------------------------------------


class SmallDatabase(Database):
    """A disk with space for `pages` pages."""

    pages = 0

    def connect(self) -> Connection:
        connection = super().connect()
        connection.driver.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


@pytest.mark.parametrize("rejected", [0, 1])
def test_a_full_disk_rejects_nothing_and_writing_then_resumes(db: Db, rejected: int) -> None:
    reject_bad_pc(db)
    db.database = small = SmallDatabase(db.url)
    ((small.pages,),) = db.ask("PRAGMA page_count")
    batch = [one._replace(version="x" * 5000) for one in runs(50, bad=range(rejected))]
    for _ in range(2):
        with pytest.raises(DiskError) as fault:
            db.write(batch)
        assert cause_of(fault) == "SQLITE_FULL"
        assert db.count() == db.count("rejected_events") == 0
    small.pages = 1_000_000
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (50 - rejected, rejected)


def test_a_missing_file_has_the_disk_of_its_folder(tmp_path: Path) -> None:
    disk = disk_of(tmp_path / "none.db")
    assert disk.kind == disk_of(tmp_path).kind  # empty in a chroot, whose root is not a mount
    assert disk.free_bytes > 0
    assert 0 < disk.free_share <= 1


def test_a_folder_without_permission_is_unavailable_and_named(
    db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    forbid(db.path.parent, monkeypatch)
    for look in (lambda: disk_of(db.path), db.database.check_writable):
        with pytest.raises(UnavailableError, match=f"Permission denied: '{db.path}'"):
            look()


def test_network_disks_and_disks_in_memory_are_recognised() -> None:
    assert disk_of(Path("/proc/self")).kind == "proc"
    assert Disk("nfs4", 1, 0.5).is_network
    assert not Disk("ext4", 1, 0.5).is_network
    assert Disk("tmpfs", 1, 0.5).is_volatile


# --- files that are missing or replaced -----------------------------------------------------------


def test_a_missing_folder_and_a_folder_instead_of_the_file_are_unavailable(tmp_path: Path) -> None:
    for place in (tmp_path / "nowhere" / "x.db", tmp_path):
        with Db(place) as db, pytest.raises(UnavailableError):
            db.write(runs(3))


def test_a_deleted_file_is_unavailable_and_is_not_created(db: Db, template: Path) -> None:
    db.write(runs(3))
    for suffix in ("", "-wal", "-shm"):
        db.path.with_name(db.path.name + suffix).unlink()
    for _ in range(2):  # under the connection, and before one is opened
        with pytest.raises(UnavailableError) as fault:
            db.write(runs(3))
        assert cause_of(fault) == "FileNotFoundError"
        assert not db.path.exists()
    shutil.copyfile(template, db.path)
    assert_takes_writes(db)


def test_a_file_replaced_before_the_commit_is_unavailable(db: Db, template: Path) -> None:
    reject_bad_pc(db)
    batch = runs(3, bad=[1])

    def replace_and_reject(index: int, reason: str) -> RejectedEvent:
        replace_by_copy(db.path, template)
        return reject_of(batch)(index, reason)

    with pytest.raises(UnavailableError, match="replaced or deleted"):
        db.repository.write(batch, [], replace_and_reject)
    assert db.count() == 0
    assert_takes_writes(db)


def test_a_file_replaced_while_it_is_opened_takes_no_write_that_vanishes(
    db: Db, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_and_replace(*arguments: object, **options: object) -> sqlite3.Connection:
        monkeypatch.setattr("sqlite3.connect", connect)
        raw: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        replace_by_copy(db.path, template)
        return raw

    monkeypatch.setattr("sqlite3.connect", connect_and_replace)
    with pytest.raises(UnavailableError):
        db.write(runs(3))
    assert_takes_writes(db)


def test_a_symbolic_link_that_changes_its_target_is_unavailable(db: Db, template: Path) -> None:
    link = db.path.with_name("link.db")
    link.symlink_to(db.path)
    with Db(link) as linked:
        linked.write(runs(3))
        link.unlink()
        link.symlink_to(shutil.copyfile(template, db.path.with_name("other.db")))
        with pytest.raises(UnavailableError):
            linked.write(runs(3))
        assert_takes_writes(linked)


@pytest.mark.parametrize("replaced", [False, True])
def test_a_log_deleted_or_replaced_while_in_use_is_unavailable(db: Db, replaced: bool) -> None:
    db.write(runs(3))
    log = db.path.with_name(db.path.name + "-wal")
    log.rename(log.with_name("log"))  # so that another file cannot get its inode
    if replaced:
        log.touch()
    with pytest.raises(UnavailableError):
        db.write([run("r9")])


# --- kinds of errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind, names in KINDS.items() for name in names.split()]
)
def test_a_result_code_becomes_the_error_that_says_what_to_do(
    kind: type[RepositoryError], name: str
) -> None:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = getattr(sqlite3, f"SQLITE_{name}")
    error.sqlite_errorname = f"SQLITE_{name}"
    with pytest.raises(RepositoryError) as fault, TRANSLATED:
        raise error
    assert type(fault.value) is kind
    assert str(fault.value).partition(";")[0] == f"text (SQLITE_{name})"
    assert fault.value.__cause__ is error


def test_misuse_of_the_driver_is_not_reported_as_a_fault(connection: Connection) -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        connection.fetch(statement("find_execution"), ())


def test_a_number_too_large_for_sqlite_is_rejected(connection: Connection) -> None:
    with pytest.raises(RowRejected) as fault:
        connection.fetch(statement("find_execution"), (2**63,))
    assert isinstance(fault.value.__cause__, OverflowError)
