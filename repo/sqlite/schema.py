"""Is every migration applied? Read without writing, which yoyo's own `list` does not."""

import stat
from importlib.resources import as_file, files
from pathlib import Path

from repo.errors import UnavailableError
from repo.sqlite.database import Database
from repo.statements import statement

_HAS_MIGRATION_TABLE = statement("has_migration_table")
_LIST_APPLIED_MIGRATIONS = statement("list_applied_migrations")

ROLLBACK_SUFFIX = ".rollback.sql"


def migrations_folder() -> Path:
    """Return the folder of the migrations, in a checkout or where the package is installed."""
    with as_file(files("sql").joinpath("sqlite", "migrations")) as folder:
        return folder


def known_migrations() -> list[str]:
    """Return the ids of all migrations, in the order in which they apply."""
    return sorted(
        file.name.removesuffix(".sql")
        for file in migrations_folder().glob("*.sql")
        if not file.name.endswith(ROLLBACK_SUFFIX)
    )


def pending_migrations(database: Database) -> list[str]:
    """Return the ids of the migrations that the database lacks; all of them for a missing file.

    Raises a RepositoryError if the file is there and cannot be read.
    """
    try:
        mode = database.path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return known_migrations()
    except OSError as error:
        raise UnavailableError(f"the database file cannot be seen: {error}") from error
    if not stat.S_ISREG(mode):
        raise UnavailableError(f"no file: {database.path}")
    with database.reading() as connection:
        if connection.fetch(_HAS_MIGRATION_TABLE) == [(0,)]:
            return known_migrations()
        applied = {row[0] for row in connection.fetch(_LIST_APPLIED_MIGRATIONS)}
    return [migration for migration in known_migrations() if migration not in applied]
