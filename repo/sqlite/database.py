"""What the rest of the program asks of a database as a whole; see `repo.open_database`."""

import logging
import shutil
import sqlite3
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote

from repo.engine import LockHolder, Usage, Watch
from repo.migrations import Migrated
from repo.observer import NOBODY, Observer
from repo.sqlite import backup, checks, locks, schema
from repo.sqlite.connection import ENGINE, DatabaseFile
from repo.sqlite.migration import migrate
from repo.statements import Description, describe

log = logging.getLogger(__name__)

URL_PREFIX = "sqlite:///"


class Database(DatabaseFile, Migrated):
    """A database that a URL names. Its methods are functions of this package's modules."""

    engine = ENGINE
    driver = ENGINE
    driver_version = sqlite3.sqlite_version

    def __init__(self, url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> None:
        super().__init__(parse_url(url), busy_timeout=busy_timeout, observer=observer)
        self.url = url

    marked_migrations = schema.marked_migrations
    migration_sql = schema.migration_sql
    check = checks.check
    back_up = backup.back_up
    restore = backup.restore

    def migrate(self, watch: Watch = lambda _: False) -> None:
        """Apply every pending migration, creating a missing file; see `migration.migrate`."""
        migrate(self, self.url, watch)

    def roll_back(self, undo: Collection[str], watch: Watch = lambda _: False) -> None:
        """Roll back these applied migrations, the last one first."""
        migrate(self, self.url, watch, undo)

    def statements(self) -> list[Description]:
        """Return every statement of this engine with its comments."""
        return describe(self.engine)

    def log_warnings(self) -> None:
        """Log what works, but not as it should."""
        with self.reading() as connection:
            mode = connection.journal_mode()
        if mode != "wal":
            log.warning("database.not_wal", extra={"expected": "wal", "found": mode})
        if unknown := self.unknown_migrations():
            log.warning("database.newer", extra={"migrations": unknown})

    def lock_holders(self) -> list[LockHolder]:
        """Return the processes of this machine that have the write lock at this moment."""
        return locks.holders(self.path, self.log.path("-shm"))

    def usage(self) -> list[Usage]:
        """Return the sizes that metrics show of this engine."""
        log_bytes, free_bytes = 0, None
        with suppress(OSError):
            log_bytes = self.log.path().stat().st_size
        with suppress(OSError):
            free_bytes = shutil.disk_usage(self.path.resolve().parent).free
        return [
            Usage("wal_bytes", "Size of the write-ahead log.", log_bytes),
            Usage("disk_free_bytes", "Free space of the database's disk.", free_bytes),
        ]


def parse_url(url: str) -> Path:
    """Return the file that a database URL names.

    The forms are yoyo's: `sqlite:///relative.db` and `sqlite:////absolute.db`. Raises ValueError
    for any other, and for a `?` or `#`, at which yoyo cuts the path off.
    """
    name = url.removeprefix(URL_PREFIX)
    if name == url or not name or name.endswith("/") or "?" in name or "#" in name:
        raise ValueError(
            "expected sqlite:///relative.db or sqlite:////absolute.db, without ? and #, or "
            "postgresql://USER@HOST/DATABASE"
        )
    return Path(unquote(name))
