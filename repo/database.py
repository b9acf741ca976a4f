"""Connections and transactions: one database file, one connection a thread, one writer at a time.

A `Database` may be shared by threads; a `Connection` belongs to the thread that opened it.
"""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from repo.errors import (
    DataRefused,
    PlaceFault,
    RepositoryError,
    SchemaFault,
    TransactionEnded,
    translated,
)
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


class Database:
    """A database file, named by the URL that yoyo takes, and the lock of this process's writers.

    `busy_timeout` is how many seconds one attempt waits for another process's lock.
    """

    def __init__(self, url: str, *, busy_timeout: float = 1.0) -> None:
        self.url = url
        self.path = database_path(url)
        self.busy_timeout = busy_timeout
        # SQLite's own wait is unfair: several waiting threads of one process make commits late.
        self._write_lock = threading.Lock()

    def connect(self) -> "Connection":
        """Open the file, which must exist, for reading and writing."""
        return self._open("rw")

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
        # mode=rw: a missing file is an error, not a new and empty database.
        with translated():
            raw = sqlite3.connect(
                f"file:{self.url.removeprefix(URL_PREFIX)}?mode={mode}",
                uri=True,
                isolation_level=None,
                timeout=self.busy_timeout,
            )
        return Connection(raw, self.path, identity, self._write_lock)


class Connection:
    """One thread's connection. Statements come from `sql/`; errors are this package's."""

    def __init__(
        self,
        raw: sqlite3.Connection,
        path: Path,
        identity: tuple[int, int],
        write_lock: threading.Lock,
    ) -> None:
        self._raw = raw
        self._path = path
        self._identity = identity
        self._write_lock = write_lock
        self._log_identity: tuple[int, int] | None = None
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

    def fetch(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one query and return all its rows, so that no open cursor holds back a checkpoint."""
        with translated():
            return self._raw.execute(sql, values).fetchall()

    def journal_mode(self) -> str:
        """Return the file's journal mode; "wal" is what the migrations set."""
        return str(self.fetch(_GET_JOURNAL_MODE)[0][0])

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run what is inside as one write transaction.

        Commits at the end, and only returns when the commit is in the very file that the path
        names; raises PlaceFault otherwise. On an error everything is undone, and that first error
        is the one that is raised.
        """
        with self._write_lock:
            self.execute(_BEGIN_WRITE)
            try:
                yield
                self.execute(_COMMIT)
            except BaseException:
                self._roll_back()
                raise
        self._verify_same_file()
        self._verify_same_log()

    @contextmanager
    def savepoint(self) -> Iterator[None]:
        """Run what is inside such that on an error it alone is undone; the error is raised.

        Raises TransactionEnded instead where a refusal has undone the whole transaction.
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
            elif isinstance(error, DataRefused | SchemaFault):
                raise TransactionEnded(str(error)) from error
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
        if file_identity(self._path) != self._identity:
            raise PlaceFault(f"the database file was replaced or deleted: {self._path}")

    def _verify_same_log(self) -> None:
        # So does a log that is deleted. The engine removes it only when nobody is connected.
        if not self._has_log:
            return
        path = self._path.resolve()
        identity = file_identity(path.with_name(path.name + "-wal"))
        if self._log_identity not in (None, identity):
            raise PlaceFault(f"the write-ahead log was replaced or deleted: {path}-wal")
        self._log_identity = identity


def file_identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another of its name; raises PlaceFault if it is gone."""
    try:
        status = path.stat()
    except OSError as error:
        raise PlaceFault(f"a file of the database cannot be seen: {error}") from error
    return status.st_dev, status.st_ino


def database_path(url: str) -> Path:
    """Return the file that a database URL names.

    The forms are yoyo's: `sqlite:///relative.db` and `sqlite:////absolute.db`. Raises ValueError
    for any other, and for a `?` or `#`, at which yoyo cuts the path off.
    """
    name = url.removeprefix(URL_PREFIX)
    if name == url or not name or name.endswith("/") or "?" in name or "#" in name:
        raise ValueError("expected sqlite:///relative.db or sqlite:////absolute.db, no ? or #")
    return Path(unquote(name))
