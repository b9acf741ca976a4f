"""Is every migration applied? They are applied with yoyo's own library, where that is wanted."""

import contextlib
import getpass
import io
import logging
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yoyo

from repo.errors import CorruptDatabaseError, DiskError, RepositoryError, TransientError, translated
from repo.retry import retry_policy
from repo.sqlite.database import Database
from repo.sqlite.schema import migrations_folder, pending_migrations
from worker.errors import ConfigurationError

log = logging.getLogger(__name__)

_LOCK_TIMEOUT = 30.0
_RETRY_FOR = 10.0

# The databases whose lock, a row of yoyo's, this process took and has not seen go.
_taken: set[str] = set()


def check_schema(database: Database, *, apply: bool) -> None:
    """Make sure that every migration is applied; applies them itself only when told to.

    Raises ConfigurationError with the command to run, CorruptDatabaseError for a file that is no
    database, and TransientError or DiskError for one that cannot be read or migrated just now.
    """
    pending = _pending(database)
    if pending and apply:
        # The migrations would wait for a lock for long, deaf to a stop, and not say what for.
        database.check_writable()
        _migrate(database)
        log.info("database.migrated", extra={"migrations": pending})
        pending = _pending(database)
    if pending:
        raise ConfigurationError(
            f"{len(pending)} migrations are not applied to {database.url} "
            f"(the first is {pending[0]}); run: {migrate_command(database.url)}"
        )
    with database.reading() as connection:
        mode = connection.journal_mode()
    if mode != "wal":
        log.warning("database.not_wal", extra={"expected": "wal", "found": mode})


def _pending(database: Database) -> list[str]:
    try:
        return pending_migrations(database)
    except (CorruptDatabaseError, TransientError, DiskError):
        raise
    except RepositoryError as error:
        raise ConfigurationError(f"the database {database.url} cannot be read") from error


def _migrate(database: Database) -> None:
    try:
        migrate(database.url)
    except (CorruptDatabaseError, TransientError, DiskError):
        raise
    except Exception as error:
        # yoyo has an error of its own for a locked database that it waited for in vain.
        database.check_writable()
        raise ConfigurationError(f"the migrations of {database.url} failed") from error


def migrate(database_url: str) -> None:
    """Apply every pending migration; safe beside another process that does the same.

    All of it is tried again for some seconds, since yoyo reads before it marks a migration, and a
    commit of another program in between refuses that at once. Raises a RepositoryError, or yoyo's
    own error where another process has its lock.
    """
    _name_the_user()
    retry_policy(_RETRY_FOR, threading.Event())(_apply, database_url)


def _apply(database_url: str) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder()))
    # yoyo prints what a statement returns; standard output belongs to the commands.
    with (
        translated(),
        contextlib.redirect_stdout(io.StringIO()),
        yoyo.get_backend(database_url) as backend,
        _locked(backend, database_url),
    ):
        # What is pending must be asked inside the lock: another may have applied it meanwhile.
        backend.apply_migrations(backend.to_apply(migrations))


@contextlib.contextmanager
def _locked(backend: Any, database_url: str) -> Iterator[None]:
    """Hold yoyo's lock, whose row stays where the database is too busy to delete it."""
    if database_url in _taken:
        backend._delete_lock_row(os.getpid())  # no other process's
    with backend.lock(timeout=_LOCK_TIMEOUT):
        _taken.add(database_url)
        yield
    _taken.discard(database_url)


def migrate_command(database_url: str) -> str:
    """Return the command line that applies the migrations by hand."""
    command = Path(sys.executable).with_name("projector")
    program = str(command) if command.exists() else "projector"
    return shlex.join([program, "migrate", "--database", database_url])


def _name_the_user() -> None:
    # yoyo notes who migrated; without a name anywhere it applies a migration and cannot mark it.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
