"""Copy a database that is in use, and restore such a copy.

A copy is written beside its final path, checked and synced, and renamed in one step; no existing
file is overwritten.
"""

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from repo.errors import CorruptDatabaseError, DiskError, TransientError
from repo.sqlite.connection import Connection, DatabaseFile
from repo.sqlite.errors import TRANSLATED_OS_ERRORS
from repo.sqlite.files import CREATION_MODE
from repo.statements import statement

_COPY_INTO = statement("copy_into", "sqlite")
_SET_WRITE_AHEAD_LOG = statement("set_write_ahead_log", "sqlite")
_HAS_MIGRATION_TABLE = statement("has_migration_table", "sqlite")

# Every process that has the file open locks some of these bytes:
# https://www.sqlite.org/fileformat.html, "the lock-byte page", and os.h of the engine's source.
_FIRST_LOCK_BYTE = 0x40000000
_LOCK_BYTES = 512


def back_up(database: DatabaseFile, target: Path) -> Path:
    """Copy a database, which may be in use, into a new file and return its path.

    In a folder the copy is named after the database and the time. It is one file without a log.
    Raises UnavailableError if the file exists already, DiskError if the disk is full, and
    CorruptDatabaseError if the database or its copy is corrupt.
    """
    if target.is_dir():
        target /= f"{database.path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    with _copied(database, target) as copy, TRANSLATED_OS_ERRORS:
        # Reserved, so that the rename overwrites nothing; the name is never seen half-written.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
        copy.replace(target)
    return target


def restore(database: DatabaseFile, source: Path) -> Path | None:
    """Replace a database by a copy of `source`; return where the former file is kept, if any.

    The former file and its log are renamed as they are. Raises TransientError if another process
    has the database open, and otherwise as `back_up`; nothing is changed then.
    """
    place = database.path.resolve()
    backup = DatabaseFile(source.absolute(), busy_timeout=database.busy_timeout)
    with _copied(backup, place) as copy:
        _give_a_log(copy)
        with TRANSLATED_OS_ERRORS, _locked_out(place):
            if place.exists():  # perhaps another program's, which chose the mode
                _copy_permissions(copy, place)
            aside = _set_aside(database, place) if place.exists() else None
            # A log without its database, which the engine would take for the copy's.
            for suffix in ("-wal", "-shm"):
                database.log.path(suffix).unlink(missing_ok=True)
            copy.replace(place)
    return aside


@contextmanager
def _copied(database: DatabaseFile, place: Path) -> Iterator[Path]:
    """Yield a checked copy beside its final path; nobody may read it who may not read the database.

    It is deleted at the end unless it was renamed.
    """
    copy = place.with_name(f".{place.name}.{uuid4().hex}.partial")
    with TRANSLATED_OS_ERRORS:
        status = database.path.stat()
        mode = CREATION_MODE & (status.st_mode | stat.S_IRUSR | stat.S_IWUSR)
        os.close(os.open(copy, os.O_CREAT | os.O_EXCL | os.O_WRONLY, mode))
    try:
        _give_to(copy, status)
        with database.reading() as connection:
            _copy(connection, str(copy))
        _check(copy)
        with TRANSLATED_OS_ERRORS:
            _sync(copy)
        yield copy
        with TRANSLATED_OS_ERRORS:
            _sync(place.parent)
    finally:
        copy.unlink(missing_ok=True)


def _copy(connection: Connection, path: str) -> None:
    try:
        connection.execute(_COPY_INTO, (path,))
    except DiskError as error:
        # A row of a corrupt file can pretend to be larger than any disk.
        connection.check_pages()
        raise DiskError(f"copying to {path}: {error}") from error


def _check(copy: Path) -> None:
    with DatabaseFile(copy).reading() as connection:
        connection.check_pages()
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            raise CorruptDatabaseError(
                "not a database of this program: no migration was ever applied"
            )


def _give_a_log(copy: Path) -> None:
    with closing(DatabaseFile(copy).connect()) as connection:
        connection.fetch(_SET_WRITE_AHEAD_LOG)
    with TRANSLATED_OS_ERRORS:
        _sync(copy)


def _set_aside(database: DatabaseFile, place: Path) -> Path:
    """Rename the former database and its log, so that they still belong together."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    aside = place.with_name(f"{place.name}.before-restore-{stamp}")
    log_path = database.log.path()
    # Linked first: a crash never leaves a name for one of them and none for the other.
    aside.hardlink_to(place)
    if log_path.exists():
        aside.with_name(f"{aside.name}-wal").hardlink_to(log_path)
    return aside


@contextmanager
def _locked_out(path: Path) -> Iterator[None]:
    """Keep every other process out of a database file, if it exists; raises TransientError."""
    if not path.exists():
        yield
        return
    # Not by the engine: a corrupt file could not be replaced then. No connection of this process
    # may be open meanwhile: closing one would give up the lock.
    with path.open("r+b") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _FIRST_LOCK_BYTE)
        except OSError as error:
            raise TransientError(
                f"{path} is open: stop the workers and every other program that uses it"
            ) from error
        yield


def _copy_permissions(copy: Path, like: Path) -> None:
    status = like.stat()
    _give_to(copy, status)
    copy.chmod(stat.S_IMODE(status.st_mode))


def _give_to(copy: Path, owned: os.stat_result) -> None:
    """Give a copy the owner of another file, if that is allowed."""
    with suppress(PermissionError):
        os.chown(copy, owned.st_uid, owned.st_gid)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
