"""The driver's errors, translated into those of `repo.errors` by their result code."""

import errno
import os
import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    RepositoryError,
    RowRejected,
    SchemaError,
    TransientError,
    Translated,
    UnavailableError,
)

# Primary result codes, https://www.sqlite.org/rescode.html
_CLASSES: dict[int, type[RepositoryError]] = {
    sqlite3.SQLITE_BUSY: TransientError,
    sqlite3.SQLITE_LOCKED: TransientError,
    sqlite3.SQLITE_INTERRUPT: TransientError,
    sqlite3.SQLITE_PROTOCOL: TransientError,
    sqlite3.SQLITE_SCHEMA: TransientError,
    sqlite3.SQLITE_TOOBIG: RowRejected,
    sqlite3.SQLITE_CONSTRAINT: RowRejected,
    sqlite3.SQLITE_MISMATCH: RowRejected,
    sqlite3.SQLITE_CORRUPT: CorruptDatabaseError,
    sqlite3.SQLITE_NOTADB: CorruptDatabaseError,
    sqlite3.SQLITE_FULL: DiskError,
    sqlite3.SQLITE_IOERR: DiskError,
    sqlite3.SQLITE_ERROR: SchemaError,
}
_BUGS = (sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE)
_TEMPORARY = ("/var/tmp", "/usr/tmp", "/tmp", ".")  # noqa: S108 (SQLite chooses them)
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def _of_the_driver(error: BaseException) -> RepositoryError | None:
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return RowRejected(str(error))
    code = getattr(error, "sqlite_errorcode", None)
    # Without a code, or with one of these, it is a misuse of the driver, which no retry can cure.
    if not isinstance(error, sqlite3.Error) or code is None or code & 0xFF in _BUGS:
        return None
    kind = _CLASSES.get(code & 0xFF, UnavailableError)
    text = f"{error} ({getattr(error, 'sqlite_errorname', '')})"
    # The code is the same whichever file it was.
    return kind(f"{text}; {_temporary()}" if kind is DiskError else text)


def _of_the_system(error: BaseException) -> RepositoryError | None:
    if not isinstance(error, OSError):
        return None
    kind = DiskError if error.errno in _OF_THE_DISK else UnavailableError
    return kind(f"a file of the database cannot be used: {error}")


TRANSLATED = Translated(_of_the_driver)
"""Raises a RepositoryError instead of the driver's error, from anything that runs inside."""

TRANSLATED_OS_ERRORS = Translated(_of_the_system)
"""Raises DiskError or UnavailableError instead of the system's errors about files."""


def _temporary() -> str:
    """Say where SQLite puts large sorts: https://www.sqlite.org/tempfiles.html, section 5."""
    given = [os.environ.get(name) for name in ("SQLITE_TMPDIR", "TMPDIR")]
    for folder in map(Path, filter(None, [*given, *_TEMPORARY])):
        if folder.is_dir() and os.access(folder, os.W_OK | os.X_OK):
            with suppress(OSError):
                free = shutil.disk_usage(folder).free // (1024 * 1024)
                return f"SQLite's temporary files are in {folder}, with {free} MiB free"
    return "no folder for SQLite's temporary files can be written to; SQLITE_TMPDIR may name one"
