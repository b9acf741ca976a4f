"""What the rest of the program asks of a database as a whole; see `repo.open_database`."""

import logging
from collections.abc import Collection
from pathlib import Path

import psycopg

from repo.engine import LockHolder, Usage, Watch
from repo.errors import NotSupported, RepositoryError
from repo.migrations import Migrated
from repo.postgresql import checks, schema
from repo.postgresql.connection import ENGINE, Server
from repo.postgresql.migration import migrate
from repo.statements import Description, describe, statement

log = logging.getLogger(__name__)

_LIST_LOCK_HOLDERS = statement("list_lock_holders", ENGINE)
_GET_SIZE = statement("get_database_size", ENGINE)


class Database(Server, Migrated):
    """A database that a URL names. Its methods are functions of this package's modules."""

    engine = ENGINE
    driver = "psycopg"
    driver_version = psycopg.__version__

    marked_migrations = schema.marked_migrations
    migration_sql = schema.migration_sql
    check = checks.check

    def migrate(self, watch: Watch = lambda _: False) -> None:
        """Apply every pending migration; see `migration.migrate`."""
        migrate(self, watch)

    def roll_back(self, undo: Collection[str], watch: Watch = lambda _: False) -> None:
        """Roll back these applied migrations, the last one first."""
        migrate(self, watch, undo)

    def back_up(self, target: Path) -> Path:
        """Raise NotSupported."""
        del target
        raise NotSupported("PostgreSQL has its own backups: pg_dump, or the site's base backups")

    def restore(self, source: Path) -> Path | None:
        """Raise NotSupported."""
        del source
        raise NotSupported("PostgreSQL has its own ways: pg_restore, or the site's base backups")

    def statements(self) -> list[Description]:
        """Return every statement of this engine with its comments."""
        return describe(self.engine)

    def log_warnings(self) -> None:
        """Log what works, but not as it should."""
        if (place := self.place()).startswith("unknown"):
            # A failover or a restore is noticed only at a lost connection.
            log.warning("database.place_unknown", extra={"place": place})
        if unknown := self.unknown_migrations():
            log.warning("database.newer", extra={"migrations": unknown})

    def lock_holders(self) -> list[LockHolder]:
        """Return the sessions on the server that others in this database wait for."""
        with self.reading() as connection:
            return [LockHolder(*row) for row in connection.fetch(_LIST_LOCK_HOLDERS)]

    def usage(self) -> list[Usage]:
        """Return the sizes that metrics show of this engine."""
        try:
            with self.reading() as connection:
                size = int(connection.fetch(_GET_SIZE)[0][0])
        except RepositoryError:
            size = None
        return [Usage("database_bytes", "Size of the database's files on the server.", size)]
