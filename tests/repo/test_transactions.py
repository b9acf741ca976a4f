"""All of a transaction or nothing, one writer at a time, and the first error is the one raised."""

import sqlite3
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest

from repo.errors import RepositoryError, RowRejected, UnavailableError
from repo.execution_results import START_WRITER, insert_all
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from repo.statements import statement
from tests.repo.rows import Db, Repository, reject_of, run

DEADLINE = 30.0


class Stop(BaseException):
    """A BaseException that is not an Exception, such as KeyboardInterrupt."""


def insert_and_raise(connection: Connection, result_id: str, error: BaseException) -> None:
    insert_all(connection, [run(result_id)])
    raise error


def deny(connection: Connection, verb: str) -> None:
    """Let BEGIN, COMMIT or ROLLBACK fail."""

    def authorize(action: int, first: str | None, *_: str | None) -> int:
        denied = action == sqlite3.SQLITE_TRANSACTION and first == verb
        return sqlite3.SQLITE_DENY if denied else sqlite3.SQLITE_OK

    connection.driver.set_authorizer(authorize)


def number_of_runs(connection: Connection) -> int:
    return int(connection.driver.execute("SELECT count(*) FROM execution_results").fetchone()[0])


def test_a_write_holds_the_lock_and_is_visible_after_commit(connection: Connection, db: Db) -> None:
    with closing(sqlite3.connect(db.path, isolation_level=None, timeout=0)) as other:
        with connection.write():
            with pytest.raises(sqlite3.OperationalError, match="locked"):
                other.execute("BEGIN IMMEDIATE")
            insert_all(connection, [run("r1")])
            assert db.count() == 0
        assert db.count() == 1
        other.execute("BEGIN IMMEDIATE")


@pytest.mark.parametrize("error", [ValueError("mine"), RowRejected("mine"), Stop("mine")])
def test_an_error_in_a_transaction_undoes_it_and_is_raised_itself(
    connection: Connection, db: Db, error: BaseException
) -> None:
    with pytest.raises(type(error)) as caught, connection.write():
        insert_and_raise(connection, "r1", error)
    assert caught.value is error
    assert db.count() == 0
    with connection.write():
        insert_all(connection, [run("r2")])
    assert db.result_ids() == ["r2"]


def test_a_failing_rollback_never_masks_the_first_error(db: Db) -> None:
    connection = db.database.connect()
    deny(connection, "ROLLBACK")
    with pytest.raises(RepositoryError):
        connection.execute(statement("rollback"))
    with pytest.raises(ValueError, match="the first"), connection.write():
        insert_and_raise(connection, "r1", ValueError("the first"))
    connection.close()
    assert db.count() == 0


def test_a_failed_commit_leaves_nothing_and_frees_the_lock(connection: Connection, db: Db) -> None:
    deny(connection, "COMMIT")
    with pytest.raises(UnavailableError, match="not authorized"), connection.write():
        insert_all(connection, [run("r1")])
    connection.driver.set_authorizer(None)
    assert db.count() == 0
    with connection.write():
        insert_all(connection, [run("r2")])
    assert db.count() == 1


def test_an_error_undoes_a_savepoint_alone_and_one_that_is_not_kept_leaves_nothing(
    connection: Connection, db: Db
) -> None:
    with connection.write():
        insert_all(connection, [run("before")])
        with pytest.raises(RowRejected, match="mine"), connection.savepoint():
            insert_and_raise(connection, "inside", RowRejected("mine"))
        with connection.savepoint(keep=False):
            insert_all(connection, [run("tried")])
        with pytest.raises(ValueError, match="mine"), connection.savepoint(keep=False):
            insert_and_raise(connection, "tried too", ValueError("mine"))
        insert_all(connection, [run("after")])
    assert db.result_ids() == ["before", "after"]


def test_two_threads_of_one_process_wait_for_each_other_and_are_never_busy(db: Db) -> None:
    database = Database(db.url, busy_timeout=0)
    ready, opening = threading.Barrier(2), threading.Lock()

    def write_often(name: str) -> int:
        with Repository(database, START_WRITER, retry_for=0, give_up=threading.Event()) as writer:
            with opening:  # the first connection to a file recovers its log, which is a lock too
                writer.write([], [], reject_of([]))
            ready.wait(DEADLINE)
            batches = [[run(f"{name}-{i}-{row}") for row in range(10)] for i in range(100)]
            inserted = sum(writer.write(one, [], reject_of(one)).inserted for one in batches)
            ready.wait(DEADLINE)  # so that neither closes the file while the other writes
            return inserted

    with ThreadPoolExecutor() as pool:
        writing = [pool.submit(write_often, name) for name in "ab"]
        assert [one.result(DEADLINE) for one in writing] == [1000, 1000]
    assert db.count() == 2000


def test_reading_cannot_write_and_does_not_block_a_writer(connection: Connection, db: Db) -> None:
    with db.database.reading() as reader:
        assert number_of_runs(reader) == 0
        with pytest.raises(UnavailableError) as caught:
            insert_all(reader, [run("r1")])
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        with connection.write():
            assert number_of_runs(reader) == 0
            insert_all(connection, [run("r2")])
    assert db.result_ids() == ["r2"]


def test_reading_ends_with_its_block_also_after_an_error(db: Db) -> None:
    with pytest.raises(ValueError, match="mine"), db.database.reading() as connection:
        raise ValueError("mine")
    with pytest.raises(sqlite3.ProgrammingError):
        number_of_runs(connection)


def test_reading_a_missing_file_is_unavailable_and_creates_none(empty: Db) -> None:
    with pytest.raises(UnavailableError), empty.database.reading():
        pass
    assert list(empty.path.parent.iterdir()) == []


def test_a_connection_has_the_settings_that_an_ack_relies_on(connection: Connection) -> None:
    expected = {
        "journal_mode": "wal",
        "synchronous": 2,
        "cache_size": -65536,
        "wal_autocheckpoint": 16000,
        "journal_size_limit": 134217728,
        "busy_timeout": 20,
    }
    found = {name: connection.driver.execute(f"PRAGMA {name}").fetchone() for name in expected}
    assert found == {name: (value,) for name, value in expected.items()}


def test_closing_a_connection_undoes_what_was_not_committed(db: Db) -> None:
    connection = db.database.connect()
    connection.execute(statement("begin_write"))
    insert_all(connection, [run("r1")])
    connection.close()
    assert db.count() == 0


def test_a_repository_that_was_closed_opens_again_at_the_next_write(db: Db) -> None:
    db.repository.close()
    for name in ("r1", "r2"):
        assert db.write([run(name)]).inserted == 1
        db.repository.close()
        db.repository.close()
    assert db.result_ids() == ["r1", "r2"]
