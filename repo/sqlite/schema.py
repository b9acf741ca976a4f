"""The migrations in `sql/sqlite/migrations`: which of them are applied, and their SQL.

This only reads; yoyo's own `list` writes.
"""

import contextlib
import glob
import sqlite3
from collections.abc import Iterator
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yoyo
from yoyo.migrations import read_sql_migration

from repo.errors import UnavailableError
from repo.sqlite.connection import DatabaseFile
from repo.sqlite.errors import TRANSLATED
from repo.sqlite.files import exists
from repo.statements import statement

_HAS_MIGRATION_TABLE = statement("has_migration_table", "sqlite")
_LIST_APPLIED_MIGRATIONS = statement("list_applied_migrations", "sqlite")


def migrations_folder() -> Path:
    """Return the folder of the migrations, in a checkout or where the package is installed."""
    with as_file(files("sql").joinpath("sqlite", "migrations")) as folder:
        return folder


def known_migrations() -> list[str]:
    """Return the ids of all migrations, in the order in which they apply."""
    return [migration.id for migration in all_migrations()]


def applied_migrations(file: DatabaseFile) -> list[str]:
    """Return the ids of the known migrations that are applied, in order; none without a file.

    Raises a RepositoryError if the file exists and cannot be read.
    """
    found = _marked_migrations(file)
    return [migration for migration in known_migrations() if migration in found]


def unknown_migrations(file: DatabaseFile) -> list[str]:
    """Return the ids of applied migrations of another version; raises as `applied_migrations`."""
    return sorted(_marked_migrations(file).difference(known_migrations()))


def _marked_migrations(file: DatabaseFile) -> set[str]:
    if not exists(file.path):
        return set()
    if not file.path.is_file():
        raise UnavailableError(f"not a file: {file.path}")
    with file.reading() as connection:
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            return set()
        return {row[0] for row in connection.fetch(_LIST_APPLIED_MIGRATIONS)}


def pending_migrations(file: DatabaseFile) -> list[str]:
    """Return the ids of the migrations that are not applied; raises as `applied_migrations`."""
    applied = applied_migrations(file)
    return [migration for migration in known_migrations() if migration not in applied]


def migration_sql(file: DatabaseFile) -> list[str]:
    """Return the statements that `migrate` would run on this very database; changes nothing.

    A missing file counts as an empty database. Raises as `applied_migrations`.
    """
    pending = pending_migrations(file)
    with _driver_of(file) as driver, TRANSLATED:
        return [
            sql for one in all_migrations() if one.id in pending for sql in _statements(one, driver)
        ]


def all_migrations() -> Any:
    """Return yoyo's list of the migrations."""
    return yoyo.read_migrations(glob.escape(str(migrations_folder())))


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
