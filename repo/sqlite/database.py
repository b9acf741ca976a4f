"""What the rest of the program asks of a database as a whole; see `repo.open_database`."""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from repo.findings import Finding
from repo.observer import NOBODY, Observer
from repo.sqlite import backup, checks, schema
from repo.sqlite.connection import ENGINE, DatabaseFile
from repo.statements import Description, describe

URL_PREFIX = "sqlite:///"


class StartWarning(NamedTuple):
    """Something that the worker logs at start: the event and its fields."""

    event: str
    fields: dict[str, Any]


class Usage(NamedTuple):
    """Sizes in bytes; `free` is None where it cannot be found out."""

    log: int
    free: int | None


class Database(DatabaseFile):
    """A database that a URL names, and all that is done to it as a whole."""

    engine = ENGINE
    engine_version = sqlite3.sqlite_version

    def __init__(self, url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> None:
        super().__init__(parse_url(url), busy_timeout=busy_timeout, observer=observer)
        self.url = url

    def applied_migrations(self) -> list[str]:
        """Return the ids of the migrations that are applied, in order; none for a missing file."""
        return schema.applied_migrations(self)

    def pending_migrations(self) -> list[str]:
        """Return the ids of the migrations that are not applied, in order."""
        return schema.pending_migrations(self)

    def migrate(self) -> None:
        """Apply every pending migration, creating a missing file.

        Safe beside another process that does the same. Raises a RepositoryError, or the migration
        library's own error.
        """
        schema.migrate(self.url)

    def migration_sql(self) -> list[str]:
        """Return the statements that `migrate` would run; changes and creates nothing."""
        return schema.migration_sql(self)

    def warnings_at_start(self) -> list[StartWarning]:
        """Return what works, but not as it should."""
        with self.reading() as connection:
            mode = connection.journal_mode()
        if mode == "wal":
            return []
        return [StartWarning("database.not_wal", {"expected": "wal", "found": mode})]

    def usage(self) -> Usage:
        """Return the size of the write-ahead log and the free space of the disk."""
        try:
            log = self.log.path().stat().st_size
        except OSError:
            log = 0
        try:
            return Usage(log, shutil.disk_usage(self.path.resolve().parent).free)
        except OSError:
            return Usage(log, None)

    def check(self, *, thorough: bool, retry_for: float) -> Iterator[Finding]:
        """Yield what `projector check` reports of the disk, the file and, if thorough, its pages.

        `retry_for` is how many seconds a lock is waited for.
        """
        return checks.check(self, thorough=thorough, retry_for=retry_for)

    def statements(self) -> list[Description]:
        """Return every statement of this engine with its comments."""
        return describe(self.engine)

    def back_up(self, target: Path) -> Path:
        """Copy the database, which may be in use, into a new file, or into a folder; return it."""
        return backup.back_up(self, target)

    def restore(self, source: Path) -> Path | None:
        """Replace the database by a copy of `source`; return where the former file is kept."""
        return backup.restore(self, source)


def parse_url(url: str) -> Path:
    """Return the file that a database URL names.

    The forms are yoyo's: `sqlite:///relative.db` and `sqlite:////absolute.db`. Raises ValueError
    for any other, and for a `?` or `#`, at which yoyo cuts the path off.
    """
    name = url.removeprefix(URL_PREFIX)
    if name == url or not name or name.endswith("/") or "?" in name or "#" in name:
        raise ValueError("expected sqlite:///relative.db or sqlite:////absolute.db, no ? or #")
    return Path(unquote(name))
