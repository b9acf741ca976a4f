"""Applies the migrations with yoyo's own library, for `--migrate`."""

import contextlib
import getpass
import io
import os
import shlex
import sys
from pathlib import Path

import yoyo

from repo.schema import migrations_folder

_LOCK_TIMEOUT = 30.0


def migrate(database_url: str) -> None:
    """Apply every pending migration; safe beside another process that does the same."""
    _name_the_user()
    migrations = yoyo.read_migrations(str(migrations_folder()))
    # yoyo prints what a statement returns; standard output belongs to the commands.
    with (
        contextlib.redirect_stdout(io.StringIO()),
        yoyo.get_backend(database_url) as backend,
        backend.lock(timeout=_LOCK_TIMEOUT),
    ):
        # What is pending must be asked inside the lock: another may have applied it meanwhile.
        backend.apply_migrations(backend.to_apply(migrations))


def migrate_command(database_url: str) -> str:
    """Return the command line that applies the migrations by hand."""
    command = Path(sys.executable).with_name("yoyo")
    return shlex.join(
        [
            str(command) if command.exists() else "yoyo",
            *("apply", "--batch", "--no-config-file"),
            *("--database", database_url),
            str(migrations_folder()),
        ]
    )


def _name_the_user() -> None:
    # yoyo notes who migrated; without a name anywhere it applies a migration and cannot mark it.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
