"""Faults with real causes: nothing is written, the kind is right, and it works again after."""

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
    translated,
)
from repo.repository import Repository
from repo.sqlite.database import Connection, Database
from tests.repo.conftest import OpenRepository
from tests.repo.rows import ask, count, refusal_of, refuse_bad_pc, run, runs, url

PATIENCE = 30.0


class WatchedEvent(threading.Event):
    """An event that tells when somebody waits for it, as a retry does between two attempts."""

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
    batch = runs(3)
    return repository.write(batch, [], refusal_of(batch))


def cause_of(fault: pytest.ExceptionInfo[RepositoryError]) -> str:
    cause = fault.value.__cause__
    assert isinstance(cause, sqlite3.Error | OSError)
    return cause.sqlite_errorname if isinstance(cause, sqlite3.Error) else type(cause).__name__


def replace_by_copy(path: Path, template: Path) -> None:
    """Restore a backup as the manual says: old log and index away, then the file in one move."""
    copy = path.with_name("copy.db")
    shutil.copyfile(template, copy)
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    copy.replace(path)


def test_a_lock_that_outlasts_the_retries_is_a_passing_fault_and_nothing_is_written(
    repository: Repository, path: Path
) -> None:
    with locked(path), pytest.raises(TransientError) as fault:
        write_three(repository)
    assert cause_of(fault) == "SQLITE_BUSY"
    assert count(path, "execution_results") == 0
    assert write_three(repository).inserted == 3


def test_a_write_succeeds_as_soon_as_the_lock_goes(database: Database, path: Path) -> None:
    give_up = WatchedEvent()

    def write() -> WriteResult:
        with Repository(database, retry_for=PATIENCE, give_up=give_up) as repository:
            return write_three(repository)

    with ThreadPoolExecutor() as pool, locked(path) as other:
        writing = pool.submit(write)
        met_the_lock = give_up.waited_for.wait(PATIENCE)
        rows = count(path, "execution_results")
        other.execute("ROLLBACK")
        assert met_the_lock
        assert rows == 0
        assert writing.result(PATIENCE).inserted == 3
    assert count(path, "execution_results") == 3


def test_giving_up_ends_the_retries_with_a_passing_fault(database: Database, path: Path) -> None:
    give_up = WatchedEvent()

    def write() -> WriteResult:
        with Repository(database, retry_for=3600, give_up=give_up) as repository:
            return write_three(repository)

    with ThreadPoolExecutor() as pool, locked(path):
        writing = pool.submit(write)
        met_the_lock = give_up.waited_for.wait(PATIENCE)
        give_up.set()
        assert met_the_lock
        with pytest.raises(TransientError):
            writing.result(PATIENCE)
    assert count(path, "execution_results") == 0


def test_who_has_given_up_tries_no_more_and_writes_nothing(database: Database, path: Path) -> None:
    give_up = threading.Event()
    give_up.set()
    with (
        Repository(database, retry_for=1, give_up=give_up) as repository,
        pytest.raises(TransientError),
    ):
        write_three(repository)
    assert count(path, "execution_results") == 0


class SmallDatabase(Database):
    """A disk with room for `pages` pages."""

    pages = 0

    def connect(self) -> Connection:
        connection = super().connect()
        connection.execute(f"PRAGMA max_page_count = {self.pages}")
        return connection


def test_a_full_disk_is_a_fault_of_the_place_and_works_again_once_there_is_room(
    open_repository: OpenRepository, path: Path
) -> None:
    database = SmallDatabase(url(path))
    ((database.pages,),) = ask(path, "PRAGMA page_count")
    repository = open_repository(database)
    batch = [run(f"r{index}", version="x" * 5000) for index in range(50)]
    for _ in range(2):
        with pytest.raises(UnavailableError) as fault:
            repository.write(batch, [], refusal_of(batch))
        assert not isinstance(fault.value, SchemaError)
        assert cause_of(fault) == "SQLITE_FULL"
        assert count(path, "execution_results") == count(path, "rejected_events") == 0
    database.pages = 1_000_000
    assert repository.write(batch, [], refusal_of(batch)).inserted == 50


def test_a_disk_that_fills_up_amid_rows_that_are_written_apart_rejects_nothing(
    open_repository: OpenRepository, path: Path
) -> None:
    refuse_bad_pc(path)
    database = SmallDatabase(url(path))
    ((database.pages,),) = ask(path, "PRAGMA page_count")
    repository = open_repository(database)
    batch = [
        run("r0", pc_id="bad"),
        *(run(f"r{index}", version="x" * 5000) for index in range(1, 50)),
    ]
    with pytest.raises(UnavailableError) as fault:
        repository.write(batch, [], refusal_of(batch))
    assert cause_of(fault) == "SQLITE_FULL"
    assert count(path, "execution_results") == count(path, "rejected_events") == 0
    database.pages = 1_000_000
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (49, 1)


def test_a_write_that_the_system_refuses_is_a_fault_of_the_place(
    repository: Repository, path: Path
) -> None:
    batch = [run(f"r{index}", version="x" * 5000) for index in range(50)]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size, hard))
    try:
        with pytest.raises(UnavailableError) as fault:
            repository.write(batch, [], refusal_of(batch))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert cause_of(fault).startswith(("SQLITE_IOERR", "SQLITE_FULL"))
    assert count(path, "execution_results") == 0
    assert repository.write(batch, [], refusal_of(batch)).inserted == 50


def set_write_version(path: Path, version: int) -> None:
    """Set the header's write version; above 2, SQLite opens the file read-only, also for root."""
    with path.open("r+b") as file:
        file.seek(18)
        file.write(bytes([version]))


def test_a_read_only_database_is_a_fault_of_the_place(repository: Repository, path: Path) -> None:
    set_write_version(path, 3)
    with pytest.raises(UnavailableError) as fault:
        write_three(repository)
    assert cause_of(fault).startswith("SQLITE_READONLY")
    set_write_version(path, 2)
    assert write_three(repository).inserted == 3


def test_a_missing_file_is_a_fault_of_the_place_and_is_not_made(
    repository: Repository, path: Path
) -> None:
    away = path.rename(path.with_name("away.db"))
    with pytest.raises(UnavailableError) as fault:
        write_three(repository)
    assert cause_of(fault) == "FileNotFoundError"
    assert not path.exists()
    away.rename(path)
    assert write_three(repository).inserted == 3


def test_a_missing_folder_and_a_folder_in_the_files_place_are_faults_of_the_place(
    open_repository: OpenRepository, tmp_path: Path
) -> None:
    for place in (tmp_path / "nowhere" / "x.db", tmp_path):
        with pytest.raises(UnavailableError):
            write_three(open_repository(Database(url(place))))


def test_a_file_deleted_under_the_connection_is_a_fault_of_the_place_until_it_is_back(
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


def test_a_file_replaced_between_the_rows_and_the_commit_is_a_fault_of_the_place(
    repository: Repository, path: Path, template: Path
) -> None:
    refuse_bad_pc(path)
    batch = runs(3, bad=[1])
    refusal = refusal_of(batch)

    def replace_and_refuse(index: int, reason: str) -> object:
        replace_by_copy(path, template)
        return refusal(index, reason)

    with pytest.raises(UnavailableError, match="replaced or deleted"):
        repository.write(batch, [], replace_and_refuse)  # type: ignore[arg-type]
    assert count(path, "execution_results") == 0
    assert repository.write(batch, [], refusal).inserted == 3


def test_a_symbolic_link_that_moves_to_another_file_is_a_fault_of_the_place(
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


@pytest.mark.parametrize(
    "content", [b"this is no database\n" * 100, b"SQLite format 3\x00" + b"\xff" * 4080]
)
def test_a_file_that_is_no_database_is_unusable(
    repository: Repository, path: Path, content: bytes
) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptDatabaseError) as fault:
        write_three(repository)
    assert cause_of(fault) == "SQLITE_NOTADB"
    assert path.read_bytes() == content


@pytest.mark.parametrize("name", ["execution_results", "sqlite_autoindex_execution_results_1"])
def test_a_damaged_page_makes_the_database_unusable_and_nothing_is_written(
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
def test_a_result_code_becomes_the_kind_of_fault_that_says_what_to_do(
    code: int, kind: type[RepositoryError]
) -> None:
    error = sqlite3.OperationalError("said")
    error.sqlite_errorcode = code
    error.sqlite_errorname = "SQLITE_NAME"
    with pytest.raises(RepositoryError) as fault, translated():
        raise error
    assert type(fault.value) is kind
    assert str(fault.value) == "said (SQLITE_NAME)"
    assert fault.value.__cause__ is error


def test_misuse_of_the_driver_is_not_hidden_as_a_fault_of_the_database(
    connection: Connection,
) -> None:
    with pytest.raises(sqlite3.ProgrammingError):
        connection.execute("SELECT ?", ())


def test_a_number_too_large_for_sqlite_is_refused(connection: Connection) -> None:
    with pytest.raises(RowRejected) as fault:
        connection.execute("SELECT ?", (2**63,))
    assert isinstance(fault.value.__cause__, OverflowError)


def test_a_log_deleted_under_the_connection_is_a_fault_of_the_place(
    repository: Repository, path: Path
) -> None:
    write_three(repository)
    path.with_name(path.name + "-wal").unlink()
    batch = [run("r9")]
    with pytest.raises(UnavailableError):
        repository.write(batch, [], refusal_of(batch))


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
