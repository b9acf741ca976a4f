"""What can go wrong in the database, by what has to be done about it.

RepositoryError
├── TransientError      busy, locked, interrupted: roll back, try again soon
├── UnavailableError        full, read-only, I/O, replaced file: no message's fault, reopen later
│   ├── DiskError     full, or an I/O error: it may pass without anybody's help
│   └── SchemaError   a table or column is missing, or the schema refuses every row
├── TransactionAborted  a statement was refused and took the whole transaction with it
├── RowRejected       this row cannot be stored: reject its message
└── CorruptDatabaseError  corrupt, or no database at all: stop

Driver errors become one of these here and nowhere else; the cause is kept.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager


class RepositoryError(Exception):
    """The root of this package's errors."""


class TransientError(RepositoryError):
    """Somebody else has the lock; the same write works in a moment."""


class UnavailableError(RepositoryError):
    """The place cannot take any row now: disk, file, rights."""


class DiskError(UnavailableError):
    """The disk is full or does not answer."""


class SchemaError(UnavailableError):
    """The tables are not what the statements expect."""


class TransactionAborted(RepositoryError):
    """A trigger of somebody else's refused a statement with RAISE(ROLLBACK)."""


class RowRejected(RepositoryError):
    """The tables refuse this very row."""


class CorruptDatabaseError(RepositoryError):
    """The file is damaged or is no database; writing to it would make it worse."""


# Primary result codes, https://www.sqlite.org/rescode.html
_CLASSES: dict[int, type[RepositoryError]] = {
    **dict.fromkeys(
        (
            sqlite3.SQLITE_BUSY,
            sqlite3.SQLITE_LOCKED,
            sqlite3.SQLITE_INTERRUPT,
            sqlite3.SQLITE_PROTOCOL,
            sqlite3.SQLITE_SCHEMA,
        ),
        TransientError,
    ),
    **dict.fromkeys(
        (sqlite3.SQLITE_TOOBIG, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH), RowRejected
    ),
    **dict.fromkeys((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB), CorruptDatabaseError),
    **dict.fromkeys((sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR), DiskError),
    sqlite3.SQLITE_ERROR: SchemaError,
}
_BUGS = (sqlite3.SQLITE_INTERNAL, sqlite3.SQLITE_MISUSE, sqlite3.SQLITE_RANGE)


@contextmanager
def translated() -> Iterator[None]:
    """Raise this package's errors instead of the driver's, from anything that runs inside."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", None)
        if code is None or code & 0xFF in _BUGS:  # misuse, which no retry can mend
            raise
        name = getattr(error, "sqlite_errorname", "")
        raise _CLASSES.get(code & 0xFF, UnavailableError)(f"{error} ({name})") from error
    except (OverflowError, UnicodeEncodeError) as error:
        raise RowRejected(str(error)) from error


@contextmanager
def translated_os_errors() -> Iterator[None]:
    """Raise UnavailableError instead of the system's errors about the files of the database."""
    try:
        yield
    except OSError as error:
        raise UnavailableError(f"a file of the database cannot be seen: {error}") from error
