"""How much room the database takes and has, as the file system tells it, in bytes."""

import shutil

from repo.sqlite.database import Database


def log_bytes(database: Database) -> int:
    """Return the size of the write-ahead log; 0 where there is none or it cannot be seen."""
    try:
        return database.log.path().stat().st_size
    except OSError:
        return 0


def free_bytes(database: Database) -> int | None:
    """Return what the database's file system has left for this user; None if it is not seen."""
    try:
        return shutil.disk_usage(database.path.resolve().parent).free
    except OSError:
        return None
