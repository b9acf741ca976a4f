"""The disk that a database file is on: its kind and its free space."""

import os
from pathlib import Path
from typing import NamedTuple

from repo.sqlite.errors import translated_os_errors
from repo.sqlite.files import exists

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


def disk_of(path: Path) -> Disk:
    """Return the disk of a file, or of its folder if it is missing; may raise UnavailableError."""
    found = path if exists(path) else path.parent
    with translated_os_errors():
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
