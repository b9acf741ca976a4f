"""What `projector check` finds in a database file and on its disk."""

import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from repo.errors import RepositoryError
from repo.findings import Finding, Level, attempt, failed
from repo.retry import retry_policy
from repo.sqlite.connection import DatabaseFile
from repo.sqlite.errors import TRANSLATED_OS_ERRORS
from repo.sqlite.files import exists

_MEBIBYTE = 1024 * 1024
_TOO_LITTLE_FREE = 100 * _MEBIBYTE
_LITTLE_FREE = 1024 * _MEBIBYTE

_MOUNTS = Path("/proc/self/mountinfo")

# File locks and shared memory, which the write-ahead log needs, do not work across machines.
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre")
VOLATILE = ("tmpfs", "ramfs")


class Disk(NamedTuple):
    """A disk: its kind as the kernel names it, empty if unknown, and its free space."""

    kind: str
    free_bytes: int
    free_share: float

    @property
    def is_network(self) -> bool:
        """Whether the disk is another machine's."""
        return self.kind in NETWORK or self.kind.startswith("fuse.sshfs")

    @property
    def is_volatile(self) -> bool:
        """Whether the disk is empty after a restart of the machine."""
        return self.kind in VOLATILE


def check(file: DatabaseFile, *, thorough: bool, retry_for: float) -> Iterator[Finding]:
    """Yield each finding as soon as it is known; nothing is created or changed.

    `thorough` reads every page. `retry_for` is how many seconds a lock is waited for.
    """
    yield attempt("disk", lambda: _check_disk(file))
    try:
        if not exists(file.path):
            return  # the pending migrations already report it
    except RepositoryError as error:
        yield failed("database", error)
        return
    yield attempt("database", lambda: _check_writable(file, retry_for))
    if thorough:
        yield attempt("pages", lambda: _check_pages(file))


def _check_disk(file: DatabaseFile) -> tuple[Level, str]:
    disk = disk_of(file.path)
    free = f"{disk.free_bytes // _MEBIBYTE} MiB free ({disk.free_share:.0%})"
    kind = disk.kind or "unknown kind"
    if disk.is_network:
        text = f"{kind} is a network disk, where SQLite is not safe: use a local one"
        return Level.ERROR, text
    if disk.free_bytes < _TOO_LITTLE_FREE:
        return Level.ERROR, f"{free}: nearly full"
    if disk.is_volatile:
        return Level.WARNING, f"{kind}, {free}: empty after a restart"
    return Level.WARNING if disk.free_bytes < _LITTLE_FREE else Level.OK, f"{kind}, {free}"


def _check_writable(file: DatabaseFile, retry_for: float) -> tuple[Level, str]:
    retry_policy(retry_for)(file.check_writable)
    with file.reading() as connection:
        mode = connection.journal_mode()
    text = f"{file.path} is writable, SQLite {sqlite3.sqlite_version}, journal mode {mode}"
    if mode != "wal":
        return Level.WARNING, f"{text}: expected wal; readers will block"
    return Level.OK, text


def _check_pages(file: DatabaseFile) -> tuple[Level, str]:
    with file.reading() as connection:
        connection.check_pages()
    return Level.OK, "no corruption"


def disk_of(path: Path) -> Disk:
    """Return the disk of a file, or of its folder if it is missing; may raise UnavailableError."""
    found = path if exists(path) else path.parent
    with TRANSLATED_OS_ERRORS:
        space = os.statvfs(found)
        kind = _kind(found.resolve())
    return Disk(kind, space.f_bavail * space.f_frsize, space.f_bavail / max(space.f_blocks, 1))


def _kind(path: Path) -> str:
    """Return the kind of the disk, that of the longest mount point above the path."""
    if not _MOUNTS.exists():
        return ""
    best, kind = -1, ""
    for line in _MOUNTS.read_text("utf-8", "replace").splitlines():
        # https://docs.kernel.org/filesystems/proc.html: the kind follows the dash.
        before, _, after = line.partition(" - ")
        mount = Path(before.split()[4].replace("\\040", " "))
        if path.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split()[0]
    return kind
