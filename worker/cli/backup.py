"""`projector backup` and `projector restore`: a whole copy of the database, and the way back."""

import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from repo.retry import retry_policy
from repo.sqlite.backup import back_up
from repo.sqlite.backup import restore as restore_from
from repo.sqlite.database import Database
from repo.sqlite.schema import pending_migrations
from worker.cli import options
from worker.cli.context import log_to_standard_error
from worker.cli.options import chosen_database, database_command, together
from worker.errors import EXIT_OK, SettingError
from worker.schema import migrate_command

_PATH = click.Path(path_type=Path)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(short_help="Copy the database, while workers run.")
@click.argument("target", type=_PATH)
@database_command
def backup(target: Path, **chosen: Any) -> int:
    """Copy the database into the new file TARGET, and check the copy.

    \b
    projector backup /var/backups/projector/      # a name with the time in it
    projector backup monday.db

    Workers go on meanwhile. TARGET appears when the copy is whole, checked and on the disk; a file
    that is there is never overwritten. Its path is printed. Exit codes: 64 TARGET is there already;
    65 the database is damaged; 75 the disk is full, or the database locked; 78 TARGET or the
    database cannot be used.
    """
    log_to_standard_error(chosen)
    retry = retry_policy(chosen.pop("retry_for"), threading.Event())
    database = Database(chosen_database(chosen.pop("database")), **chosen)
    if target.is_dir():
        target /= f"{database.path.stem}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.db"
    if target.exists():
        raise SettingError("TARGET", f"{target} is there already, and no backup overwrites a file")
    began = time.monotonic()
    retry(back_up, database, target)
    click.echo(target)
    took = time.monotonic() - began
    click.echo(f"{target.stat().st_size} bytes in {took:.1f} s, quick_check ok", err=True)
    return EXIT_OK


@click.command(short_help="Put a backup in the database's place.")
@click.argument("source", type=_FILE)
@together(options.database, options.logs("warning"))
def restore(source: Path, **chosen: Any) -> int:
    """Put a copy of the backup SOURCE in the database's place; stop the workers first.

    \b
    projector restore /var/backups/projector/projector-20260520T120000Z.db

    The former file is kept beside it, under another name. Whatever was interrupted may be run
    again. Exit codes: 65 SOURCE is damaged, or is no database of a worker; 75 some process has the
    database open, or the disk is full; 78 SOURCE or the database cannot be used.
    """
    log_to_standard_error(chosen)
    database = Database(chosen_database(chosen["database"]))
    former = restore_from(database, source)
    click.echo(database.path)
    if former is not None:
        click.echo(f"the former file is kept: {former}", err=True)
    pending = pending_migrations(database)
    if pending:
        click.echo(
            f"{len(pending)} migrations are newer than the backup; run: "
            f"{migrate_command(database.url)}",
            err=True,
        )
    click.echo(
        "at its next start the worker projects again what the stream holds and the backup lacks, "
        "and says so: database.older",
        err=True,
    )
    return EXIT_OK
