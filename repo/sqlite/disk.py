"""Where the database file lies: what its disk is, and how much room it has."""

import os
from pathlib import Path
from typing import NamedTuple

from repo.errors import translated_os_errors
from repo.sqlite.database import Connection
from repo.sqlite.files import is_there
from repo.statements import statement

_QUICK_CHECK = statement("quick_check")
_MOUNTS = Path("/proc/self/mountinfo")

# File locks and shared memory, which the write-ahead log needs, do not work across machines.
NETWORK = ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre")
VOLATILE = ("tmpfs", "ramfs")


class Place(NamedTuple):
    """A disk: its kind as the kernel names it, or empty where it does not say, and its room."""

    kind: str
    free_bytes: int
    free_share: float

    @property
    def is_network(self) -> bool:
        """Tell whether the disk is another machine's."""
        return self.kind in NETWORK or self.kind.startswith("fuse.sshfs")

    @property
    def is_volatile(self) -> bool:
        """Tell whether the disk is empty after a restart of the machine."""
        return self.kind in VOLATILE


def look_at(path: Path) -> Place:
    """Return the place of a file that is there, or of its folder; may raise UnavailableError."""
    found = path if is_there(path) else path.parent
    with translated_os_errors():
        room = os.statvfs(found)
        kind = _kind(found.resolve())
    return Place(kind, room.f_bavail * room.f_frsize, room.f_bavail / max(room.f_blocks, 1))


def damage(connection: Connection) -> str:
    """Read every page; return the first damage that the engine finds, or nothing."""
    found = str(connection.fetch(_QUICK_CHECK)[0][0])
    return "" if found == "ok" else found


def _kind(path: Path) -> str:
    """Return the kind of the disk: the one of the longest mount point above the path."""
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
