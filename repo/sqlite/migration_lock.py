"""The locks of a migration, and how the lock of a dead process is freed.

yoyo's own lock is a row with a process id. It remains if the process is killed, and by then the id
may belong to another process, or to one of another container. Therefore a migration also holds the
kernel's lock on the database file (flock), which ends with its process. Only a process that holds
that one judges the row, so another migration of this program is never taken for a dead one.
"""

import fcntl
import logging
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from yoyo.exceptions import LockTimeout

from repo.sqlite.checks import disk_of
from repo.sqlite.errors import TRANSLATED_OS_ERRORS
from repo.sqlite.files import CREATION_MODE
from repo.statements import statement, texts

log = logging.getLogger(__name__)


class Wait(Protocol):
    """Waits a moment for the program that a text names, or raises.

    `may_be_dead` is set if only a person can find out that the program has ended.
    """

    def __call__(self, holder: str, *, may_be_dead: bool = False) -> None: ...


_ATTEMPT = 0.01
# Between the clocks of a row and of the kernel's process table.
_TOLERANCE = 1.0
_GET_LOCK = texts("sqlite")[statement("get_migration_lock", "sqlite")]


@contextmanager
def sole_migration(path: Path, wait: Wait) -> Iterator[None]:
    """Hold the kernel's lock on a database file, which is created if it is missing."""
    with TRANSLATED_OS_ERRORS:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, CREATION_MODE)
    try:
        while not _try_lock(path, handle):
            wait("another process")
        yield
    finally:
        os.close(handle)


def _try_lock(path: Path, handle: int) -> bool:
    if disk_of(path).is_network:
        return True  # there it would exclude SQLite's own locks
    with TRANSLATED_OS_ERRORS:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
    return True


@contextmanager
def lock_row(backend: Any, path: Path, wait: Wait) -> Iterator[None]:
    """Hold yoyo's lock, inside `sole_migration`; free it first if its process is dead."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(backend.lock(timeout=_ATTEMPT))
                break
            except LockTimeout:
                _free_or_wait(backend, path, wait)
        yield


def _free_or_wait(backend: Any, path: Path, wait: Wait) -> None:
    row = backend.execute(_GET_LOCK).fetchone()
    if row is None:
        wait("another program")  # it holds the write lock
        return
    pid, since = row[0], row[1].replace(tzinfo=UTC)
    if pid != os.getpid() and (disk_of(path).is_network or _is_running(pid, since)):
        holder = f"process {pid}, which has been migrating since {since:%Y-%m-%dT%H:%M:%SZ},"
        wait(holder, may_be_dead=True)
        return
    backend._delete_lock_row(pid)
    fields = {"pid": pid, "locked_at": since.isoformat(), "database": str(path)}
    log.warning("database.lock_freed", extra=fields)


def _is_running(pid: int, since: datetime) -> bool:
    """Return whether a process of this machine is running that may have done something then."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another user's process
        pass
    try:
        # proc(5): the name in brackets may hold anything; state and start follow it.
        fields = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()
    except OSError:
        return True  # not shown to this user
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    is_zombie = fields[0] in "ZX"
    return not is_zombie and time.time() - age <= since.timestamp() + _TOLERANCE
