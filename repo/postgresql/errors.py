"""The driver's errors, translated into those of `repo.errors` by their SQLSTATE.

Never by the driver's class, which is another grouping: it calls an index entry that is too long,
54000, an operational error. https://www.postgresql.org/docs/current/errcodes-appendix.html
"""

import psycopg

from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    ReadOnlyError,
    RepositoryError,
    RowRejected,
    SchemaError,
    TransientError,
    Translated,
    UnavailableError,
    UnreachableError,
)

_STATES: dict[str, type[RepositoryError]] = {
    "25006": ReadOnlyError,
    "55000": ReadOnlyError,  # a standby, which has no place to write to yet
    "25P03": TransientError,  # idle in a transaction for too long
    "40001": TransientError,
    "40P01": TransientError,  # deadlock
    "42501": UnavailableError,  # a right is missing
    "53100": DiskError,
    "54000": RowRejected,  # an index entry that is too long
    "55006": TransientError,
    "55P03": TransientError,  # lock_timeout
    "57014": TransientError,  # cancelled, or statement_timeout
    "57P01": UnreachableError,
    "57P02": UnreachableError,
    "57P03": UnreachableError,
    "57P05": UnreachableError,
    "58030": DiskError,
    "XX001": CorruptDatabaseError,
    "XX002": CorruptDatabaseError,
}
_CLASSES: dict[str, type[RepositoryError]] = {
    "08": UnreachableError,
    "0A": SchemaError,
    "22": RowRejected,
    "23": RowRejected,
    "38": SchemaError,
    "39": SchemaError,
    "3F": SchemaError,
    "42": SchemaError,
    "44": RowRejected,
    "P0": RowRejected,  # RAISE EXCEPTION
}


def _of_the_driver(error: BaseException) -> RepositoryError | None:
    if isinstance(error, OverflowError | UnicodeEncodeError):
        return RowRejected(str(error))
    if not isinstance(error, psycopg.Error):
        return None
    state = error.sqlstate
    text = _first_line(error)
    if state is not None:
        kind = _STATES.get(state) or _CLASSES.get(state[:2], UnavailableError)
        return kind(f"{text} ({state})")
    if isinstance(error, psycopg.DataError):  # a NUL
        return RowRejected(text)
    if isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return UnreachableError(text)
    return None  # a misuse of the driver, which no retry can cure


def _first_line(error: psycopg.Error) -> str:
    """Return the server's message without its details, which repeat the row."""
    return error.diag.message_primary or " ".join(str(error).split())


TRANSLATED = Translated(_of_the_driver)
"""Raises a RepositoryError instead of the driver's error, from anything that runs inside."""
