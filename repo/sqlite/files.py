"""The files of a database: which one it is, and the write-ahead log beside it."""

import logging
import os
import threading
import weakref
from contextlib import suppress
from functools import cache
from pathlib import Path

from repo.errors import ReadOnlyError
from repo.sqlite.errors import TRANSLATED_OS_ERRORS

log = logging.getLogger(__name__)

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

CREATION_MODE = 0o640
"""The mode of a file with the rows; the umask of the process may leave less."""

FileIdentity = tuple[int, int]
"""Distinguishes a file from another of the same name: device and inode."""


def file_identity(path: Path) -> FileIdentity:
    """Return a file's identity; raises UnavailableError if it does not exist."""
    with TRANSLATED_OS_ERRORS:
        status = path.stat()
    return status.st_dev, status.st_ino


def place(path: Path, identity: FileIdentity) -> str:
    """Return a name for a database that no copy of it has, nor another path to the same file.

    An inode number means something until the next boot only. The folder and the name count because
    the engine keeps the write-ahead log beside the path: opened through two hard links, one file is
    two databases. Mounted in two places, it is one.
    """
    resolved = path.resolve()
    folder = file_identity(resolved.parent)
    return f"{_boot_id()}:{identity[0]}:{identity[1]}:{folder[1]}:{resolved.name}"


@cache
def _boot_id() -> str:
    with suppress(OSError):
        return _BOOT_ID.read_text("ascii").strip()
    return "unknown"


def exists(path: Path) -> bool:
    """Return whether a file exists; raises UnavailableError if this process may not look."""
    with TRANSLATED_OS_ERRORS:
        try:
            path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def _needs_log(path: Path) -> bool:
    """Return whether a database is in WAL mode; no connection of this process may read it now.

    See https://www.sqlite.org/fileformat.html, "file format version numbers".
    """
    with TRANSLATED_OS_ERRORS, path.open("rb") as file:
        return file.read(20)[18:] == b"\x02\x02"


class WriteAheadLog:
    """The log beside a database file, and which file it was written for; for any thread."""

    def __init__(self, database: Path) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._log_of: tuple[FileIdentity, FileIdentity] | None = None
        self._release: weakref.finalize[[int], WriteAheadLog] | None = None

    def path(self, suffix: str = "-wal") -> Path:
        """Return where the engine keeps the log, or its index (`-shm`)."""
        path = self._database.resolve()
        return path.with_name(path.name + suffix)

    def check_access(self, *, writing: bool) -> None:
        """Raise ReadOnlyError with the file that prevents the engine from opening the database.

        The engine would open a read-only file all the same, and create a log with the same mode. A
        reader does so as well, and that log would stay read-only for good.
        """
        path, log, index = (self.path(suffix) for suffix in ("", "-wal", "-shm"))
        existing = [file for file in (log, index) if exists(file)]
        creates = len(existing) < 2
        needed = [path, *existing, *([path.parent] if creates else [])]
        read_only = next((file for file in needed if not os.access(file, os.W_OK)), None)
        if read_only is not None and (writing or (creates and _needs_log(path))):
            raise ReadOnlyError(f"read-only for this process: {read_only}")

    def belongs_to(self, file: FileIdentity, log_file: FileIdentity) -> None:
        """Remember which log was written for a file."""
        with self._lock:
            self._forget()
            # While it is open, no other file gets its inode number.
            with suppress(OSError):
                held = os.open(self.path(), os.O_RDONLY | os.O_CLOEXEC)
                self._release = weakref.finalize(self, os.close, held)
            self._log_of = (file, log_file)

    def set_aside_if_stale(self) -> None:
        """Rename the log of a file that was replaced.

        The engine would take it for the new file's own and mix the two. The log is kept under
        another name; the events in it are projected again.
        """
        with self._lock:
            if self._log_of is None:
                return
            file, log_file = self._log_of
            path = self.path()
            if file_identity(self._database) == file or not path.exists():
                return
            if file_identity(path) == log_file:
                aside = path.with_name(f"{path.name}-of-{file[1]}")
                with TRANSLATED_OS_ERRORS:
                    path.rename(aside)
                    self.path("-shm").unlink(missing_ok=True)
                log.warning("database.log_renamed", extra={"log": str(path), "to": str(aside)})
            self._forget()

    def _forget(self) -> None:
        self._log_of = None
        if self._release is not None:
            self._release()
