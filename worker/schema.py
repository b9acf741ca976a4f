"""Check at start that every migration is applied; apply them only when asked to."""

import logging
import shlex
import sys
import time
from collections.abc import Callable
from pathlib import Path

from repo import Database, Progress
from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    ReadOnlyError,
    RepositoryError,
    TransientError,
    UnreachableError,
)
from worker.errors import ConfigurationError

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 5.0
# What the worker waits for at its start.
PASSING = (TransientError, DiskError, ReadOnlyError, UnreachableError)
_NOT_OF_THE_SCHEMA = (CorruptDatabaseError, *PASSING)


def check_schema(
    database: Database, *, apply: bool, give_up: Callable[[], bool] = lambda: False
) -> None:
    """Verify that every migration is applied; apply the pending ones if `apply` is set.

    While they apply, `give_up` is called several times a second. If it returns True, the unfinished
    migration is undone.

    Raises ConfigurationError with the command to run, CorruptDatabaseError for a file that is not a
    database, and one of PASSING if it cannot be read or migrated at the moment, or `give_up`
    returned True.
    """
    pending = _pending(database)
    if pending and apply:
        # The migrations would wait long for a lock, and not report it.
        database.check_writable()
        _migrate(database, give_up)
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
    except _NOT_OF_THE_SCHEMA:
        raise
    except RepositoryError as error:
        raise ConfigurationError(f"the database {database.url} cannot be read") from error


def _migrate(database: Database, give_up: Callable[[], bool]) -> None:
    logged_at = time.monotonic()

    def watch(progress: Progress) -> bool:
        nonlocal logged_at
        now = time.monotonic()
        if now - logged_at >= _SECONDS_BETWEEN_LINES:
            logged_at = now
            sizes = {usage.name: usage.size for usage in database.usage()}
            fields = {"step": progress.step, "seconds": round(now - progress.began, 1), **sizes}
            log.info("database.migrating", extra=fields)
        return give_up()

    try:
        database.migrate(watch)
    except _NOT_OF_THE_SCHEMA:
        raise
    except Exception as error:
        raise ConfigurationError(f"the migrations of {database.url} failed") from error
