"""Which migrations are applied to a database file, and their SQL."""

import contextlib
import sqlite3
from collections.abc import Iterator
from typing import Any

from yoyo.migrations import read_sql_migration

from repo.errors import UnavailableError
from repo.migrations import all_migrations
from repo.sqlite.connection import ENGINE, DatabaseFile
from repo.sqlite.errors import TRANSLATED
from repo.sqlite.files import exists
from repo.statements import statement

_HAS_MIGRATION_TABLE = statement("has_migration_table", ENGINE)
_LIST_APPLIED_MIGRATIONS = statement("list_applied_migrations", ENGINE)


def marked_migrations(file: DatabaseFile) -> set[str]:
    """Return the ids that yoyo has marked as applied; none without a file."""
    if not exists(file.path):
        return set()
    if not file.path.is_file():
        raise UnavailableError(f"not a file: {file.path}")
    with file.reading() as connection:
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            return set()
        return {row[0] for row in connection.fetch(_LIST_APPLIED_MIGRATIONS)}


def migration_sql(file: DatabaseFile) -> list[str]:
    """Return the statements that `migrate` would run on this very database; changes nothing.

    A missing file counts as an empty database. Raises a RepositoryError if it cannot be read.
    """
    marked = marked_migrations(file)
    with _driver_of(file) as driver, TRANSLATED:
        return [
            sql
            for one in all_migrations(ENGINE)
            if one.id not in marked
            for sql in _statements(one, driver)
        ]


@contextlib.contextmanager
def _driver_of(file: DatabaseFile) -> Iterator[sqlite3.Connection]:
    if exists(file.path):
        with file.reading() as connection:
            yield connection.driver
    else:
        with contextlib.closing(sqlite3.connect(":memory:")) as empty:
            yield empty


def _statements(migration: Any, driver: sqlite3.Connection) -> list[str]:
    """Return a migration's statements; one in Python chooses them for the database."""
    if migration.is_raw_sql():
        _, _, statements = read_sql_migration(migration.path)
        return list(statements)
    migration.load()
    return list(migration.module.statements(driver))
