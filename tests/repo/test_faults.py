"""Faults with real causes: nothing is written, the error is the right one, and writing resumes."""

import resource
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
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
from repo.execution_results import START_WRITER, Run
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from repo.sqlite.errors import translated
from repo.statements import statement
from tests.repo.conftest import OpenRepository
from tests.repo.rows import Repository, ask, count, reject_bad_pc, reject_of, run, runs, url, write

PATIENCE = 30.0


class WatchedEvent(threading.Event):
    """An event that records a wait, such as that of a retry between two attempts."""

    def __init__(self) -> None:
        super().__init__()
        self.waited_for = threading.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self.waited_for.set()
        return super().wait(timeout)


@contextmanager
def locked(path: Path) -> Iterator[sqlite3.Connection]:
    """Hold the write lock as another process would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield other


def write_three(repository: Repository) -> WriteResult:
    return write(repository, runs(3))


def large(count: int) -> list[Run]:
    return [run(f"r{index}", version="x" * 5000) for index in range(count)]


def cause_of(fault: pytest.ExceptionInfo[RepositoryError]) -> str:
    cause = fault.value.__cause__
    assert isinstance(cause, sqlite3.Error | OSError)
    return cause.sqlite_errorname if isinstance(cause, sqlite3.Error) else type(cause).__name__


def replace_by_copy(path: Path, template: Path) -> None:
    """Restore a backup as the manual says: delete the log and index, then rename the file."""
    copy = path.with_name("copy.db")
    shutil.copyfile(template, copy)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    copy.replace(path)


# --- locks ----------------------------------------------------------------------------------------


def test_a_lock_that_outlasts_the_retries_is_transient_and_nothing_is_written(
    repository: Repository, path: Path
) -> None:
    with locked(path), pytest.raises(TransientError) as fault:
        write_three(repository)
    assert cause_of(fault) == "SQLITE_BUSY"
    assert count(path, "execution_results") == 0
    assert write_three(repository).inserted == 3


@pytest.mark.parametrize("ending", ["unlocked", "given up"])
def test_a_retry_ends_as_soon_as_the_lock_is_released_or_the_worker_gives_up(
    database: Database, path: Path, ending: str
) -> None:
    give_up = WatchedEvent()

    def write_patiently() -> WriteResult:
        with Repository(database, START_WRITER, retry_for=3600, give_up=give_up) as patient:
            return write_three(patient)

    with ThreadPoolExecutor() as pool, locked(path) as other:
        writing = pool.submit(write_patiently)
        met_the_lock = give_up.waited_for.wait(PATIENCE)
        rows = count(path, "execution_results")
        other.execute("ROLLBACK") if ending == "unlocked" else give_up.set()
        assert met_the_lock
        assert rows == 0
        if ending == "unlocked":
            assert writing.result(PATIENCE).inserted == 3
        else:
            with pytest.raises(TransientError):
                writing.result(PATIENCE)
    assert count(path, "execution_results") == (3 if ending == "unlocked" else 0)


def test_nothing_is_attempted_after_giving_up(database: Database, path: Path) -> None:
    give_up = threading.Event()
    give_up.set()
    with (
        Repository(database, START_WRITER, retry_for=1, give_up=give_up) as repository,
        pytest.raises(TransientError),
    ):
        write_three(repository)
    assert count(path, "execution_results") == 0


# --- the disk -------------------------------------------------------------------------------------


class SmallDatabase(Database):
    """A disk with space for `pages` pages."""

    pages = 0

    def connect(self) -> Connection:
        connection = super().connect()
        connection.driver.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


@pytest.mark.parametrize("rejected", [0, 1])
def test_a_full_disk_rejects_nothing_and_writing_resumes_when_there_is_space(
    open_repository: OpenRepository, path: Path, rejected: int
) -> None:
    reject_bad_pc(path)
    database = SmallDatabase(url(path))
    ((database.pages,),) = ask(path, "PRAGMA page_count")
    repository = open_repository(database)
    batch = [*runs(rejected, bad=[0]), *large(50)[rejected:]]
    for _ in range(2):
        with pytest.raises(DiskError) as fault:
            write(repository, batch)
        assert cause_of(fault) == "SQLITE_FULL"
        assert count(path, "execution_results") == count(path, "rejected_events") == 0
    database.pages = 1_000_000
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (50 - rejected, rejected)


def test_a_write_that_the_system_denies_is_unavailable(repository: Repository, path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(UnavailableError) as fault:
            write(repository, large(50))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert cause_of(fault).startswith(("SQLITE_IOERR", "SQLITE_FULL"))
    assert count(path, "execution_results") == 0
    assert write(repository, large(50)).inserted == 50


def set_write_version(path: Path, version: int) -> None:
    """Set the header's write version; above 2, SQLite opens the file read-only, also for root."""
    with path.open("r+b") as file:
        file.seek(18)
        file.write(bytes([version]))


def test_a_read_only_database_is_unavailable(repository: Repository, path: Path) -> None:
    set_write_version(path, 3)
    with pytest.raises(UnavailableError) as fault:
        write_three(repository)
    assert cause_of(fault).startswith("SQLITE_READONLY")
    set_write_version(path, 2)
    assert write_three(repository).inserted == 3


# --- files that are missing or replaced -----------------------------------------------------------


def test_a_missing_file_is_unavailable_and_is_not_created(
    repository: Repository, path: Path
) -> None:
    away = path.rename(path.with_name("away.db"))
    with pytest.raises(UnavailableError) as fault:
        write_three(repository)
    assert cause_of(fault) == "FileNotFoundError"
    assert not path.exists()
    away.rename(path)
    assert write_three(repository).inserted == 3


def test_a_missing_folder_and_a_folder_instead_of_the_file_are_unavailable(
    open_repository: OpenRepository, tmp_path: Path
) -> None:
    for place in (tmp_path / "nowhere" / "x.db", tmp_path):
        with pytest.raises(UnavailableError):
            write_three(open_repository(Database(url(place))))


def test_a_file_deleted_under_the_connection_is_unavailable_until_it_is_back(
    repository: Repository, path: Path, template: Path
) -> None:
    write_three(repository)
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()
    for _ in range(2):
        with pytest.raises(UnavailableError):
            write_three(repository)
        assert not path.exists()
    shutil.copyfile(template, path)
    assert write_three(repository).inserted == 3
    assert count(path, "execution_results") == 3


def test_a_file_replaced_under_the_connection_takes_the_next_write(
    repository: Repository, path: Path, template: Path
) -> None:
    write_three(repository)
    replace_by_copy(path, template)
    with pytest.raises(UnavailableError, match="replaced or deleted"):
        write_three(repository)
    assert count(path, "execution_results") == 0
    assert write_three(repository).inserted == 3
    assert count(path, "execution_results") == 3


def test_a_file_replaced_between_the_rows_and_the_commit_is_unavailable(
    repository: Repository, path: Path, template: Path
) -> None:
    reject_bad_pc(path)
    batch = runs(3, bad=[1])

    def replace_and_reject(index: int, reason: str) -> object:
        replace_by_copy(path, template)
        return reject_of(batch)(index, reason)

    with pytest.raises(UnavailableError, match="replaced or deleted"):
        repository.write(batch, [], replace_and_reject)  # type: ignore[arg-type]
    assert count(path, "execution_results") == 0
    assert write(repository, batch).inserted == 3


def test_a_file_replaced_while_it_is_opened_takes_no_write_that_vanishes(
    repository: Repository, path: Path, template: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect = sqlite3.connect

    def connect_and_replace(*arguments: object, **options: object) -> sqlite3.Connection:
        monkeypatch.setattr("sqlite3.connect", connect)
        raw: sqlite3.Connection = connect(*arguments, **options)  # type: ignore[call-overload]
        replace_by_copy(path, template)
        return raw

    monkeypatch.setattr("sqlite3.connect", connect_and_replace)
    with pytest.raises(UnavailableError):
        write_three(repository)
    assert write_three(repository).inserted == 3
    assert count(path, "execution_results") == 3


def test_a_symbolic_link_that_changes_its_target_is_unavailable(
    open_repository: OpenRepository, path: Path, template: Path, tmp_path: Path
) -> None:
    link = tmp_path / "link.db"
    link.symlink_to(path)
    repository = open_repository(Database(url(link)))
    write_three(repository)
    other = Path(shutil.copyfile(template, tmp_path / "other.db"))
    link.unlink()
    link.symlink_to(other)
    with pytest.raises(UnavailableError):
        write_three(repository)
    assert write_three(repository).inserted == 3
    assert count(other, "execution_results") == 3


def test_a_log_deleted_under_the_connection_is_unavailable(
    repository: Repository, path: Path
) -> None:
    write_three(repository)
    path.with_name(path.name + "-wal").unlink()
    with pytest.raises(UnavailableError):
        write(repository, [run("r9")])


# --- corruption -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", [b"this is no database\n" * 100, b"SQLite format 3\x00" + b"\xff" * 4080]
)
def test_a_file_that_is_not_a_database_is_corrupt_and_left_unchanged(
    repository: Repository, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptDatabaseError) as fault:
        write_three(repository)
    assert cause_of(fault) == "SQLITE_NOTADB"
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["execution_results", "sqlite_autoindex_execution_results_1"])
def test_a_corrupt_page_ends_the_write_and_nothing_is_written(
    repository: Repository, path: Path, name: str
) -> None:
    ((page,),) = ask(path, "SELECT rootpage FROM sqlite_schema WHERE name = ?", (name,))
    ((size,),) = ask(path, "PRAGMA page_size")
    with path.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(CorruptDatabaseError) as fault:
        write_three(repository)
    assert cause_of(fault).startswith("SQLITE_CORRUPT")
    assert count(path, "rejected_events") == 0


# --- kinds of errors ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (sqlite3.SQLITE_BUSY_SNAPSHOT, TransientError),
        (sqlite3.SQLITE_LOCKED_SHAREDCACHE, TransientError),
        (sqlite3.SQLITE_INTERRUPT, TransientError),
        (sqlite3.SQLITE_PROTOCOL, TransientError),
        (sqlite3.SQLITE_SCHEMA, TransientError),
        (sqlite3.SQLITE_TOOBIG, RowRejected),
        (sqlite3.SQLITE_CONSTRAINT_NOTNULL, RowRejected),
        (sqlite3.SQLITE_MISMATCH, RowRejected),
        (sqlite3.SQLITE_ERROR, SchemaError),
        (sqlite3.SQLITE_PERM, UnavailableError),
        (sqlite3.SQLITE_READONLY_DBMOVED, UnavailableError),
        (sqlite3.SQLITE_IOERR_FSYNC, DiskError),
        (sqlite3.SQLITE_FULL, DiskError),
        (sqlite3.SQLITE_CANTOPEN, UnavailableError),
        (sqlite3.SQLITE_AUTH, UnavailableError),
        (sqlite3.SQLITE_NOMEM, UnavailableError),
        (sqlite3.SQLITE_CORRUPT_VTAB, CorruptDatabaseError),
        (sqlite3.SQLITE_NOTADB, CorruptDatabaseError),
    ],
)
def test_a_result_code_becomes_the_error_that_says_what_to_do(
    code: int, kind: type[RepositoryError]
) -> None:
    error = sqlite3.OperationalError("text")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_NAME"
    with pytest.raises(RepositoryError) as fault, translated():
        raise error
    assert type(fault.value) is kind
    assert str(fault.value) == "text (SQLITE_NAME)"
    assert fault.value.__cause__ is error


def test_misuse_of_the_driver_is_not_reported_as_a_fault(connection: Connection) -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        connection.fetch(statement("run_exists"), ())


def test_a_number_too_large_for_sqlite_is_rejected(connection: Connection) -> None:
    with pytest.raises(RowRejected) as fault:
        connection.fetch(statement("run_exists"), (2**63,))
    assert isinstance(fault.value.__cause__, OverflowError)
