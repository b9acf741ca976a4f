"""Connections and transactions: one database file, one connection a thread, one writer at a time.

A `Database` may be shared by threads; a `Connection` belongs to the thread that opened it.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from repo.errors import (
    RepositoryError,
    RowRejected,
    SchemaError,
    TransactionAborted,
    UnavailableError,
    translated,
)
from repo.observer import NOBODY, Observer
from repo.sqlite.files import FileIdentity, WriteAheadLog, file_identity, is_there
from repo.statements import statement

_SETTINGS = (
    statement("set_synchronous"),
    statement("set_cache_size"),
    statement("set_checkpoint_interval"),
    statement("set_journal_size_limit"),
)
_GET_JOURNAL_MODE = statement("get_journal_mode")
_BEGIN_WRITE = statement("begin_write")
_COMMIT = statement("commit")
_ROLLBACK = statement("rollback")
_OPEN_SAVEPOINT = statement("open_savepoint")
_UNDO_SAVEPOINT = statement("undo_savepoint")
_RELEASE_SAVEPOINT = statement("release_savepoint")

URL_PREFIX = "sqlite:///"
ENGINE = "sqlite"
ENGINE_VERSION = sqlite3.sqlite_version

Values = Sequence[Any] | Mapping[str, Any]


class Database:
    """A database file, named by the URL that yoyo takes, and the lock of this process's writers.

    `busy_timeout` is how many seconds one attempt waits for another process's lock.
    """

    def __init__(self, url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> None:
        self.url = url
        self.path = database_path(url)
        self.busy_timeout = busy_timeout
        self.observer = observer
        # SQLite's own wait is unfair: several waiting threads of one process make commits late.
        self._write_lock = threading.Lock()
        self.log = WriteAheadLog(self.path)

    def connect(self) -> "Connection":
        """Open the file, which must exist, for reading and writing."""
        self.log.set_aside_if_stale()
        return self._open("rw")

    def check_writable(self) -> None:
        """Take and give back the write lock, if the file is there; raises what is in the way."""
        if is_there(self.path):
            connection = self.connect()
            try:
                with connection.write():
                    pass
            finally:
                connection.close()

    @contextmanager
    def reading(self) -> Iterator["Connection"]:
        """Open the file, which must exist, for reading only, and close it at the end."""
        connection = self._open("ro")
        try:
            yield connection
        finally:
            connection.close()

    def _open(self, mode: str) -> "Connection":
        # Before the open: a file that takes the other's place meanwhile must not pass for it.
        identity = file_identity(self.path)
        if mode == "rw" and not os.access(self.path, os.W_OK):
            # The engine would open it all the same, and leave a log that stays readonly for good.
            raise UnavailableError(f"the database file is readonly for this process: {self.path}")
        # mode=rw: a missing file is an error, not a new and empty database.
        with translated():
            raw = sqlite3.connect(
                f"file:{self.url.removeprefix(URL_PREFIX)}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=self.busy_timeout,
            )
        return Connection(raw, self, identity)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the lock of this process's writers."""
        with self._write_lock:
            yield


class Connection:
    """One thread's connection. Statements come from `sql/`; errors are this package's.

    `file` is the identity of the file that was opened, `most_values` how many placeholders a
    statement may have.
    """

    def __init__(
        self,
        raw: sqlite3.Connection,
        database: Database,
        identity: FileIdentity,
    ) -> None:
        self.file = identity
        self.most_values = raw.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
        self._raw = raw
        self._database = database
        self._log_path = database.log.path()
        self._log_identity: FileIdentity | None = None
        try:
            self._verify_same_file()
            for setting in _SETTINGS:
                self.execute(setting)
            self._has_log = self.journal_mode() == "wal"
        except BaseException:
            raw.close()
            raise

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        with translated():
            self._raw.close()

    def execute(self, sql: str, values: Sequence[Any] = ()) -> int:
        """Run one statement and return how many rows it changed."""
        with translated():
            return self._raw.execute(sql, values).rowcount

    def execute_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> int:
        """Run one statement for each of the rows and return how many rows it changed."""
        with translated():
            return self._raw.executemany(sql, rows).rowcount

    def fetch(self, sql: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run one query and return all its rows, so that no open cursor holds back a checkpoint."""
        with translated():
            return self._raw.execute(sql, values).fetchall()

    def is_current(self) -> bool:
        """Tell whether the path still names the file that was opened."""
        try:
            return file_identity(self._database.path) == self.file
        except UnavailableError:
            return False

    def journal_mode(self) -> str:
        """Return the file's journal mode; "wal" is what the migrations set."""
        return str(self.fetch(_GET_JOURNAL_MODE)[0][0])

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run what is inside as one write transaction.

        Commits at the end, and only returns when the commit is in the very file that the path
        names; raises UnavailableError otherwise. On an error everything is undone, and that first
        error is the one that is raised.
        """
        with self._database.writing():
            self.execute(_BEGIN_WRITE)
            try:
                yield
                began = time.monotonic()
                self._database.observer.committing()
                self.execute(_COMMIT)
                self._database.observer.committed(time.monotonic() - began)
            except BaseException:
                self._roll_back()
                raise
        self._verify_same_file()
        self._verify_same_log()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run what is inside such that on an error it alone is undone; the error is raised.

        Raises TransactionAborted instead where a refusal has undone the whole transaction.
        """
        with self._undoing_on_error():
            yield
        self.execute(_RELEASE_SAVEPOINT)

    @contextmanager
    def trial(self) -> Iterator[None]:
        """Run what is inside, and undo it whether it works or not; its error is raised."""
        with self._undoing_on_error():
            yield
        self._undo_savepoint()

    @contextmanager
    def _undoing_on_error(self) -> Iterator[None]:
        self.execute(_OPEN_SAVEPOINT)
        try:
            yield
        except BaseException as error:
            if self._raw.in_transaction:
                self._undo_savepoint()
            elif isinstance(error, RowRejected | SchemaError):
                raise TransactionAborted(str(error)) from error
            raise

    def _undo_savepoint(self) -> None:
        self.execute(_UNDO_SAVEPOINT)
        self.execute(_RELEASE_SAVEPOINT)

    def _roll_back(self) -> None:
        if self._raw.in_transaction:
            # A failing rollback must not hide why it was needed; closing undoes it as well.
            with suppress(RepositoryError):
                self.execute(_ROLLBACK)

    def _verify_same_file(self) -> None:
        # A file that is replaced under an open connection goes on taking commits that vanish.
        path = self._database.path
        if file_identity(path) != self.file:
            raise UnavailableError(f"the database file was replaced or deleted: {path}")

    def _verify_same_log(self) -> None:
        # So does a log that is deleted. The engine removes it only when nobody is connected.
        if not self._has_log:
            return
        path = self._log_path
        identity = file_identity(path)
        if self._log_identity not in (None, identity):
            raise UnavailableError(f"the write-ahead log was replaced or deleted: {path}")
        if self._log_identity is None:
            self._log_identity = identity
            self._database.log.belongs_to(self.file, identity)


def database_path(url: str) -> Path:
    """Return the file that a database URL names.

    The forms are yoyo's: `sqlite:///relative.db` and `sqlite:////absolute.db`. Raises ValueError
    for any other, and for a `?` or `#`, at which yoyo cuts the path off.
    """
    name = url.removeprefix(URL_PREFIX)
    if name == url or not name or name.endswith("/") or "?" in name or "#" in name:
        raise ValueError("expected sqlite:///relative.db or sqlite:////absolute.db, no ? or #")
    return Path(unquote(name))


def database_url(path: Path) -> str:
    """Return the URL that names a file, whatever characters its path has."""
    return f"{URL_PREFIX}{quote(str(path.absolute()))}"
