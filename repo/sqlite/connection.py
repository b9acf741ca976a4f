"""Connections and transactions: one database file, one connection a thread, one writer at a time.

A `DatabaseFile` may be shared by threads; a `Connection` belongs to the thread that opened it.
"""

import os
import re
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote

from repo.engine import Rows, Values
from repo.errors import (
    CorruptDatabaseError,
    RepositoryError,
    RowRejected,
    SchemaError,
    TransactionAborted,
    UnavailableError,
)
from repo.observer import NOBODY, Observer
from repo.sqlite.errors import TRANSLATED
from repo.sqlite.files import FileIdentity, WriteAheadLog, exists, file_identity, place
from repo.statements import Statement, statement, text, texts

ENGINE = "sqlite"

_SETTINGS = (
    statement("set_synchronous", ENGINE),
    statement("set_cache_size", ENGINE),
    statement("set_checkpoint_interval", ENGINE),
    statement("set_journal_size_limit", ENGINE),
)
_GET_JOURNAL_MODE = statement("get_journal_mode", ENGINE)
_QUICK_CHECK = statement("quick_check", ENGINE)
_BEGIN_WRITE = statement("begin_write", ENGINE)
_COMMIT = statement("commit", ENGINE)
_ROLLBACK = statement("rollback", ENGINE)
_OPEN_SAVEPOINT = statement("open_savepoint", ENGINE)
_UNDO_SAVEPOINT = statement("undo_savepoint", ENGINE)
_RELEASE_SAVEPOINT = statement("release_savepoint", ENGINE)

_TEXTS = texts(ENGINE)
_ON_TABLES = re.compile(r"\b(FROM|INTO|UPDATE)\b")
_COMMENT_OR_LITERAL = re.compile(r"--.*|'[^']*'")
_NAMED = re.compile(r":(\w+)")

# After each statement, and each row that one returns, a thread waits for its turn in the
# interpreter, milliseconds where others are busy: the fewer statements the better.
_LEAST = 100
_SIZES = (1000, _LEAST)
# So many rows one by one cost less than a hundred at once.
_FEW = 5


class DatabaseFile:
    """A database file and the lock of this process's writers.

    `busy_timeout` is how many seconds one attempt waits for another process's lock.
    """

    def __init__(
        self, path: Path, *, busy_timeout: float = 1.0, observer: Observer = NOBODY
    ) -> None:
        self.path = path
        self.busy_timeout = busy_timeout
        self.observer = observer
        self.log = WriteAheadLog(path)
        # SQLite's own wait is unfair: several waiting threads of one process make commits late.
        self.write_lock = threading.Lock()

    def connect(self) -> "Connection":
        """Open the file, which must exist, for reading and writing."""
        self.log.set_aside_if_stale()
        return self._open("rw")

    def place(self) -> str:
        """Return the place of the file that the path names; raises UnavailableError without one."""
        return place(self.path, file_identity(self.path))

    @contextmanager
    def reading(self) -> Iterator["Connection"]:
        """Open the file, which must exist, for reading only, and close it at the end."""
        with closing(self._open("ro")) as connection:
            yield connection

    def check_writable(self) -> None:
        """Take and release the write lock, if the file exists; raises what prevents a write."""
        if exists(self.path):
            with closing(self.connect()) as connection, connection.write():
                pass

    def _open(self, mode: str) -> "Connection":
        # Before the open: a file that takes the other's place meanwhile must not pass for it.
        identity = file_identity(self.path)
        self.log.check_access(writing=mode == "rw")
        # mode=rw: a missing file is an error, not a new and empty database.
        with TRANSLATED:
            raw = sqlite3.connect(
                f"file:{quote(os.fsencode(self.path))}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=self.busy_timeout,
            )
        return Connection(raw, self, identity)


class Connection:
    """One thread's connection. It takes statements by name; errors are those of `repo.errors`.

    `place` names the database that was opened; a copy of it has another one. `max_values` is how
    many values one statement may bind, `driver` is the driver's own connection, for this package
    and tests.
    """

    def __init__(
        self, driver: sqlite3.Connection, database: DatabaseFile, identity: FileIdentity
    ) -> None:
        self.identity = identity
        self.place = place(database.path, identity)
        self.max_values = driver.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self.driver = driver
        self._database = database
        self._log_path = database.log.path()
        self._log_identity: FileIdentity | None = None
        try:
            self._verify_same_file()
            for setting in _SETTINGS:
                self.execute(setting)
            self._has_log = self.journal_mode() == "wal"
        except BaseException:
            driver.close()
            raise

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        with TRANSLATED:
            self.driver.close()

    def execute(self, name: Statement, values: Values = ()) -> int:
        """Run one statement and return how many rows it changed."""
        return self._execute(_TEXTS[name], values).rowcount

    def execute_many(self, name: Statement, rows: Sequence[Values]) -> int:
        """Run one statement for each of the rows and return how many rows it changed."""
        with TRANSLATED:
            return self.driver.executemany(_TEXTS[name], rows).rowcount

    def execute_all(self, many: Statement, one: Statement, rows: Rows) -> int:
        """Run a statement for each row, `many` for hundreds of them.

        Returns how many rows were changed.
        """
        changed = done = 0
        for some in self._hundreds(rows):
            changed += self._execute(text(ENGINE, many, len(some)), _joined(some)).rowcount
            done += len(some)
        if done < len(rows):
            changed += self.execute_many(one, rows[done:])
        return changed

    def fetch(self, name: Statement, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run one query and return all rows that it finds.

        No open cursor is left, which would hold back a checkpoint.
        """
        return self._fetch(_TEXTS[name], values)

    def fetch_all(self, many: Statement, rows: Rows) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds for all given rows, hundreds at once; the last may repeat."""
        done = 0
        for some in self._hundreds(rows):
            yield from self._fetch_for(many, some)
            done += len(some)
        rest = list(rows[done:])
        if len(rest) > _FEW:
            rest += rest[-1:] * (_LEAST - len(rest))
            yield from self._fetch_for(many, rest)
        else:
            for row in rest:
                yield from self.fetch(many, row)

    def _execute(self, sql: str, values: Values) -> sqlite3.Cursor:
        with TRANSLATED:
            return self.driver.execute(sql, values)

    def _fetch(self, sql: str, values: Values) -> list[tuple[Any, ...]]:
        with TRANSLATED:
            return self.driver.execute(sql, values).fetchall()

    def _fetch_for(self, many: Statement, rows: Rows) -> list[tuple[Any, ...]]:
        return self._fetch(text(ENGINE, many, len(rows)), _joined(rows))

    def _hundreds(self, rows: Rows) -> Iterator[Rows]:
        """Yield the rows by the hundreds of one statement, as far as there are as many."""
        start = 0
        for size in _SIZES:
            while len(rows) - start >= size and self.max_values >= size * len(rows[0]):
                yield rows[start : start + size]
                start += size

    def plan(self, name: Statement) -> list[str]:
        """Return the steps of the engine's plan for a statement; none if it is not about tables.

        Raises SchemaError if the statement does not fit the tables as they are.
        """
        code = _COMMENT_OR_LITERAL.sub("", _TEXTS[name])
        if not _ON_TABLES.search(code):
            return []
        values = dict.fromkeys(_NAMED.findall(code)) or [None] * code.count("?")
        with TRANSLATED:
            rows = self.driver.execute(f"EXPLAIN QUERY PLAN {_TEXTS[name]}", values)
            return [str(row[3]) for row in rows]

    def storable_text(self, text: str) -> str:
        """Return the text: this engine stores any."""
        return text

    def is_current(self) -> bool:
        """Return whether the path still names the file that was opened."""
        try:
            return file_identity(self._database.path) == self.identity
        except UnavailableError:
            return False

    def journal_mode(self) -> str:
        """Return the file's journal mode; "wal" is what the migrations set."""
        return str(self.fetch(_GET_JOURNAL_MODE)[0][0])

    def check_pages(self) -> None:
        """Read every page; raises CorruptDatabaseError with the first corruption."""
        if (found := self.fetch(_QUICK_CHECK)) != [("ok",)]:
            raise CorruptDatabaseError(str(found[0][0]))

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the body as one write transaction.

        Returns only when the commit is in the very file that the path names; raises
        UnavailableError otherwise. On an error everything is undone and that first error is raised.
        """
        with self._database.write_lock:
            self.execute(_BEGIN_WRITE)
            observer = self._database.observer
            observer.writing()
            try:
                yield
                began = time.monotonic()
                self.execute(_COMMIT)
                observer.committed(time.monotonic() - began)
            except BaseException:
                if self.driver.in_transaction:
                    # A failing rollback must not hide its cause; closing undoes it all as well.
                    with suppress(RepositoryError):
                        self.execute(_ROLLBACK)
                raise
            finally:
                observer.written()
        self._verify_same_file()
        self._verify_same_log()

    def hold_counts(self, exec_ids: Sequence[str]) -> bool:
        """Do nothing: only one connection writes at a time."""
        del exec_ids
        return False

    def try_hold_counts(self, exec_ids: Sequence[str]) -> list[str]:
        """Return all of them, in order: only one connection writes at a time."""
        return sorted(exec_ids)

    def held_executions(self, exec_ids: Sequence[str]) -> set[str]:
        """Return none: only one connection writes at a time."""
        del exec_ids
        return set()

    def exclude_other_upkeep(self) -> None:
        """Do nothing: only one connection writes at a time."""

    @contextmanager
    def savepoint(self, *, keep: bool = True) -> Iterator[None]:
        """Run the body so that an error undoes only the body; the error is raised.

        Raises TransactionAborted instead if the rejection has undone the whole transaction. Unless
        `keep` is set, the body is undone even if it works.
        """
        self.execute(_OPEN_SAVEPOINT)
        try:
            yield
        except BaseException as error:
            if self.driver.in_transaction:
                self._close_savepoint(keep=False)
            elif isinstance(error, RowRejected | SchemaError):
                raise TransactionAborted(str(error)) from error
            raise
        self._close_savepoint(keep=keep)

    def _close_savepoint(self, *, keep: bool) -> None:
        if not keep:
            self.execute(_UNDO_SAVEPOINT)
        self.execute(_RELEASE_SAVEPOINT)

    def _verify_same_file(self) -> None:
        # A file that is replaced under an open connection goes on taking commits that vanish.
        path = self._database.path
        if file_identity(path) != self.identity:
            raise UnavailableError(f"the database file was replaced or deleted: {path}")

    def _verify_same_log(self) -> None:
        # So does a log that is deleted. The engine deletes it only when the last connection closes.
        if not self._has_log:
            return
        identity = file_identity(self._log_path)
        if self._log_identity is None:
            self._log_identity = identity
            self._database.log.belongs_to(self.identity, identity)
        elif self._log_identity != identity:
            raise UnavailableError(f"the write-ahead log was replaced or deleted: {self._log_path}")


def _joined(rows: Rows) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(rows))
