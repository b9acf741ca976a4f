"""A whole copy of a database that is in use, and the way back.

Copies are written beside their place, checked and synced, and take their place in one step; nothing
that was there before is overwritten.
"""

import errno
import fcntl
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from repo.errors import CorruptDatabaseError, DiskError, TransientError, UnavailableError
from repo.sqlite.database import Connection, Database, database_url
from repo.statements import statement

_COPY_INTO = statement("copy_into")
_QUICK_CHECK = statement("quick_check")
_SET_WRITE_AHEAD_LOG = statement("set_write_ahead_log")
_HAS_MIGRATION_TABLE = statement("has_migration_table")

# Whoever has the file open holds a lock somewhere in here: https://www.sqlite.org/fileformat.html,
# "the lock-byte page", and os.h of the engine's source.
_FIRST_LOCK_BYTE = 0x40000000
_LOCK_BYTES = 512

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


def back_up(database: Database, target: Path) -> None:
    """Copy a database, which may be in use, into a new file.

    The copy is one file without a log. Raises UnavailableError where `target` is there already,
    DiskError where the disk is full, and CorruptDatabaseError where the database or its copy is
    damaged.
    """
    with _copied(database, target, like=database.path) as copy, _own_errors():
        # Reserved, so that the rename overwrites nothing; the name is never seen half-written.
        os.close(os.open(target, os.O_CREAT | os.O_EXCL, 0o600))
        copy.replace(target)


def restore(database: Database, source: Path) -> Path | None:
    """Put a copy of `source` in a database's place; return where the former one is kept, or None.

    The former file and its log are renamed as they are. Raises TransientError where another process
    has the database open, and otherwise as `back_up`; nothing is changed then.
    """
    place = database.path.resolve()
    backup = Database(database_url(source), busy_timeout=database.busy_timeout)
    like = place if place.exists() else source
    with _copied(backup, place, like=like) as copy:
        _give_a_log(copy)
        with _own_errors(), _nobody_else(place):
            aside = _set_aside(database, place) if place.exists() else None
            # A log without its database, which the engine would take for the copy's.
            _remove_log(database)
            copy.replace(place)
    return aside


@contextmanager
def _copied(database: Database, place: Path, *, like: Path) -> Iterator[Path]:
    """Yield a checked copy beside its place, with the rights of the file `like`.

    It goes at the end unless it was renamed.
    """
    with _own_errors():
        handle, partial = tempfile.mkstemp(".partial", f".{place.name}.", place.parent)
    os.close(handle)
    copy = Path(partial)
    try:
        with database.reading() as connection:
            _copy(connection, partial)
        _check(copy)
        with _own_errors():
            _sync(copy)
            _take_after(copy, like)
        yield copy
        with _own_errors():
            _sync(place.parent)
    finally:
        copy.unlink(missing_ok=True)


def _copy(connection: Connection, path: str) -> None:
    try:
        connection.execute(_COPY_INTO, (path,))
    except DiskError:
        # A row of a damaged file can pretend to be larger than any disk.
        _quick_check(connection)
        raise


def _quick_check(connection: Connection) -> None:
    found = connection.fetch(_QUICK_CHECK)
    if found != [("ok",)]:
        raise CorruptDatabaseError(str(found[0][0]))


def _check(copy: Path) -> None:
    with Database(database_url(copy)).reading() as connection:
        _quick_check(connection)
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            raise CorruptDatabaseError(
                "it is no database of this program: nothing was ever migrated"
            )


def _give_a_log(copy: Path) -> None:
    connection: Connection = Database(database_url(copy)).connect()
    try:
        connection.fetch(_SET_WRITE_AHEAD_LOG)
    finally:
        connection.close()
    with _own_errors():
        _sync(copy)


def _set_aside(database: Database, place: Path) -> Path:
    """Rename the former database and its log, such that they still belong together."""
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}"
    aside = place.with_name(f"{place.name}.before-restore-{stamp}")
    log_path = database.log.path()
    # Linked first: at no moment is there a name for the one and none for the other.
    aside.hardlink_to(place)
    if log_path.exists():
        aside.with_name(f"{aside.name}-wal").hardlink_to(log_path)
    return aside


def _remove_log(database: Database) -> None:
    for suffix in ("-wal", "-shm"):
        database.log.path(suffix).unlink(missing_ok=True)


@contextmanager
def _nobody_else(path: Path) -> Iterator[None]:
    """Keep every other process out of a database file, if it is there; raises TransientError."""
    if not path.exists():
        yield
        return
    # Not by the engine: a damaged file could not be replaced then. No connection of this process
    # may be open meanwhile: closing one would give up the lock.
    handle = os.open(path, os.O_RDWR)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB, _LOCK_BYTES, _FIRST_LOCK_BYTE)
        except OSError as error:
            raise TransientError(f"{path} is open: stop the workers and all who read it") from error
        yield
    finally:
        os.close(handle)


def _take_after(copy: Path, like: Path) -> None:
    """Give a copy the rights of a file, and where that is allowed its owner."""
    status = like.stat()
    with suppress(PermissionError):
        os.chown(copy, status.st_uid, status.st_gid)
    copy.chmod(stat.S_IMODE(status.st_mode))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _own_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = DiskError if error.errno in _OF_THE_DISK else UnavailableError
        raise kind(str(error)) from error
