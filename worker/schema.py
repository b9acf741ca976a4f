"""Check at start that every migration is applied; apply them only when asked to."""

import logging
import shlex
import sys
from pathlib import Path

from repo import Database
from repo.errors import CorruptDatabaseError, DiskError, RepositoryError, TransientError
from worker.errors import ConfigurationError

log = logging.getLogger(__name__)


def check_schema(database: Database, *, apply: bool) -> None:
    """Verify that every migration is applied; apply the pending ones if `apply` is set.

    Raises ConfigurationError with the command to run, CorruptDatabaseError for a file that is not a
    database, and TransientError or DiskError if it cannot be read or migrated at the moment.
    """
    pending = _pending(database)
    if pending and apply:
        # The migrations would wait long for a lock, ignore a stop, and not report the lock.
        database.check_writable()
        _migrate(database)
        log.info("database.migrated", extra={"migrations": pending})
        pending = _pending(database)
    if pending:
        raise ConfigurationError(
            f"{len(pending)} migrations are not applied to {database.url} "
            f"(the first is {pending[0]}); run: {migrate_command(database.url)}"
        )
    database.log_warnings()


def migrate_command(database_url: str) -> str:
    """Return the command line that applies the migrations by hand."""
    command = Path(sys.executable).with_name("projector")
    program = str(command) if command.exists() else "projector"
    return shlex.join([program, "migrate", "--database", database_url])


def _pending(database: Database) -> list[str]:
    try:
        return database.pending_migrations()
    except (CorruptDatabaseError, TransientError, DiskError):
        raise
    except RepositoryError as error:
        raise ConfigurationError(f"the database {database.url} cannot be read") from error


def _migrate(database: Database) -> None:
    try:
        database.migrate()
    except (CorruptDatabaseError, TransientError, DiskError):
        raise
    except Exception as error:
        # yoyo has its own error if it could not get the lock of a busy database.
        database.check_writable()
        raise ConfigurationError(f"the migrations of {database.url} failed") from error
