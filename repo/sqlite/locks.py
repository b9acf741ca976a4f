"""Which process has the write lock of a database file, as far as the system shows it.

SQLite locks bytes of files with POSIX locks: https://www.sqlite.org/walformat.html, and
"File Locking And Concurrency". Linux lists them in /proc/locks; elsewhere nothing is known.
"""

import re
from contextlib import suppress
from pathlib import Path

from repo.engine import LockHolder

_LOCKS = Path("/proc/locks")
_LOCK = re.compile(r"POSIX +ADVISORY +WRITE +(\d+) +[0-9a-f]+:[0-9a-f]+:(\d+) +(\d+) +(\d+|EOF)")
# The byte of WAL_WRITE_LOCK in the -shm file, and RESERVED_BYTE in one without a log.
_WAL_WRITE = 120
_RESERVED = 0x4000_0001


def holders(database: Path, index: Path) -> list[LockHolder]:
    """Return the processes that have the write lock of a database, whose log has this index."""
    bytes_of: dict[int, int] = {}
    for file, locked in ((database, _RESERVED), (index, _WAL_WRITE)):
        with suppress(OSError):
            bytes_of[file.stat().st_ino] = locked
    found = set()
    with suppress(OSError):
        for pid, inode, first, last in _LOCK.findall(_LOCKS.read_text("ascii")):
            byte = bytes_of.get(int(inode))
            if byte is not None and int(first) <= byte and (last == "EOF" or byte <= int(last)):
                found.add(int(pid))
    return [LockHolder(pid, _program(pid)) for pid in sorted(found)]


def _program(pid: int) -> str | None:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "backslashreplace").strip()
    return None
