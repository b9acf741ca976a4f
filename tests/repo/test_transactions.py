"""All of a transaction or nothing, one writer at a time, and the first error is the one raised."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from repo.errors import RepositoryError, RowRejected, UnavailableError
from repo.execution_results import START_WRITER, insert
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from repo.statements import statement
from tests.repo.rows import Repository, ask, count, run, url, write

DEADLINE = 30.0


class Stop(BaseException):
    """A BaseException that is not an Exception, such as KeyboardInterrupt."""


def insert_and_raise(connection: Connection, result_id: str, error: BaseException) -> None:
    insert(connection, run(result_id))
    raise error


def deny_rollback(action: int, first: str | None, *_: str | None) -> int:
    denied = action == sqlite3.SQLITE_TRANSACTION and first == "ROLLBACK"
    return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK


def test_a_write_is_visible_to_others_after_its_commit(connection: Connection, path: Path) -> None:
    with connection.write():
        insert(connection, run("r1"))
        assert count(path, "execution_results") == 0
    assert count(path, "execution_results") == 1


def test_a_write_has_the_lock_from_its_beginning(connection: Connection, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=0)) as other:
        with connection.write(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        other.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("error", [ValueError("mine"), RowRejected("mine"), Stop("mine")])
def test_an_error_in_a_transaction_undoes_it_and_is_raised_itself(
    connection: Connection, path: Path, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, connection.write():
        insert_and_raise(connection, "r1", error)
    assert caught.value is error
    assert count(path, "execution_results") == 0
    with connection.write():
        insert(connection, run("r2"))
    assert ask(path, "SELECT result_id FROM execution_results") == [("r2",)]


def test_a_failing_rollback_never_masks_the_first_error(database: Database, path: Path) -> None:
    connection = database.connect()
    connection.driver.set_authorizer(deny_rollback)
    with pytest.raises(RepositoryError):
        connection.execute(statement("rollback"))
    with pytest.raises(ValueError, match="the first"), connection.write():
        insert_and_raise(connection, "r1", ValueError("the first"))
    connection.close()
    assert count(path, "execution_results") == 0


def test_a_commit_that_fails_leaves_nothing_and_frees_the_lock(
    connection: Connection, path: Path
) -> None:
    def deny_commit(action: int, first: str | None, *_: str | None) -> int:
        denied = action == sqlite3.SQLITE_TRANSACTION and first == "COMMIT"
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    connection.driver.set_authorizer(deny_commit)
    with pytest.raises(UnavailableError, match="not authorized"), connection.write():
        insert(connection, run("r1"))
    connection.driver.set_authorizer(None)
    assert count(path, "execution_results") == 0
    with connection.write():
        insert(connection, run("r2"))
    assert count(path, "execution_results") == 1


def test_an_error_in_a_savepoint_undoes_the_savepoint_alone(
    connection: Connection, path: Path
) -> None:
    with connection.write():
        insert(connection, run("before"))
        with pytest.raises(RowRejected, match="mine"), connection.savepoint():
            insert_and_raise(connection, "inside", RowRejected("mine"))
        insert(connection, run("after"))
    assert ask(path, "SELECT result_id FROM execution_results ORDER BY rowid") == [
        ("before",),
        ("after",),
    ]


def test_a_trial_leaves_nothing_whether_it_works_or_not(connection: Connection, path: Path) -> None:
    with connection.write():
        insert(connection, run("before"))
        with connection.savepoint(keep=False):
            insert(connection, run("tried"))
        with pytest.raises(ValueError, match="mine"), connection.savepoint(keep=False):
            insert_and_raise(connection, "tried too", ValueError("mine"))
        insert(connection, run("after"))
    assert ask(path, "SELECT result_id FROM execution_results ORDER BY rowid") == [
        ("before",),
        ("after",),
    ]


def test_two_threads_of_one_process_never_meet_a_busy_database(path: Path) -> None:
    database = Database(url(path), busy_timeout=0)
    ready, opening = threading.Barrier(2), threading.Lock()

    def write_often(name: str) -> int:
        with Repository(
            database, START_WRITER, retry_for=0, give_up=threading.Event()
        ) as repository:
            with opening:  # the first connection to a file recovers its log, which is a lock too
                write(repository, [])
            ready.wait(DEADLINE)
            inserted = 0
            for index in range(100):
                batch = [run(f"{name}-{index}-{row}") for row in range(10)]
                inserted += write(repository, batch).inserted
            ready.wait(DEADLINE)  # so that neither closes the file while the other writes
            return inserted

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write_often, name) for name in "ab"]
        assert [one.result(DEADLINE) for one in writing] == [1000, 1000]
    assert count(path, "execution_results") == 2000


def test_a_writer_waits_for_the_other_writer_of_its_process(path: Path) -> None:
    database = Database(url(path), busy_timeout=0)
    begun, finish = threading.Event(), threading.Event()

    def hold() -> None:
        connection = database.connect()
        with connection.write():
            insert(connection, run("held"))
            begun.set()
            finish.wait(DEADLINE)
        connection.close()

    def follow() -> int:
        begun.wait(DEADLINE)
        connection = database.connect()
        finish.set()
        with connection.write():
            found = connection.driver.execute("SELECT count(*) FROM execution_results").fetchall()
        connection.close()
        return int(found[0][0])

    with ThreadPoolExecutor() as pool:
        holding, following = pool.submit(hold), pool.submit(follow)
        holding.result(DEADLINE)
        assert following.result(DEADLINE) == 1


def test_reading_cannot_write(database: Database, path: Path) -> None:
    with database.reading() as connection:
        assert connection.driver.execute("SELECT count(*) FROM executions").fetchall() == [(0,)]
        with pytest.raises(UnavailableError) as caught:
            insert(connection, run("r1"))
    assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
    assert count(path, "execution_results") == 0


def test_reading_ends_with_its_block_also_after_an_error(database: Database) -> None:
    with pytest.raises(ValueError, match="mine"), database.reading() as connection:
        raise ValueError("mine")
    with pytest.raises(sqlite3.ProgrammingError):
        connection.driver.execute("SELECT 1").fetchall()


def test_reading_a_missing_file_is_unavailable_and_creates_none(tmp_path: Path) -> None:
    missing = tmp_path / "missing.db"
    with pytest.raises(UnavailableError), Database(url(missing)).reading():
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_reader_does_not_hold_back_a_writer(
    database: Database, connection: Connection, path: Path
) -> None:
    with database.reading() as reader, connection.write():
        assert reader.driver.execute("SELECT count(*) FROM execution_results").fetchall() == [(0,)]
        insert(connection, run("r1"))
    assert count(path, "execution_results") == 1


def test_a_connection_has_the_settings_that_an_ack_relies_on(connection: Connection) -> None:
    assert connection.journal_mode() == "wal"
    assert connection.driver.execute("PRAGMA synchronous").fetchall() == [(2,)]
    assert connection.driver.execute("PRAGMA cache_size").fetchall() == [(-65536,)]
    assert connection.driver.execute("PRAGMA wal_autocheckpoint").fetchall() == [(8000,)]
    assert connection.driver.execute("PRAGMA journal_size_limit").fetchall() == [(67108864,)]
    assert connection.driver.execute("PRAGMA busy_timeout").fetchall() == [(20,)]


def test_closing_a_connection_undoes_what_was_not_committed(database: Database, path: Path) -> None:
    connection = database.connect()
    connection.execute(statement("begin_write"))
    insert(connection, run("r1"))
    connection.close()
    assert count(path, "execution_results") == 0


def test_a_repository_that_was_closed_opens_again_at_the_next_write(
    repository: Repository, path: Path
) -> None:
    repository.close()
    for name in ("r1", "r2"):
        batch = [run(name)]
        assert write(repository, batch).inserted == 1
        repository.close()
        repository.close()
    assert count(path, "execution_results") == 2
