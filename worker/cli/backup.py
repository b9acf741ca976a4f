"""`projector backup` and `projector restore`: copy the whole database, and restore a copy."""

import os
import time
from pathlib import Path
from typing import Any

import click

from repo import open_database
from worker.cli import options
from worker.cli.context import set_up_log, unchecked_database
from worker.cli.help import command
from worker.cli.options import chosen_database, database_options, together
from worker.errors import EXIT_OK, SettingError
from worker.schema import migrate_command


@command(short_help="Copy the database while workers run.")
@click.argument("given", type=click.Path(), metavar="TARGET")
@database_options
def backup(given: str, **chosen: Any) -> int:
    """Copy the database into the new file TARGET, and verify the copy.

    \b
    projector backup /var/backups/projector/      # a name with the time in it
    projector backup monday.db

    Workers go on meanwhile. TARGET appears when the copy is complete, verified and synced to disk;
    an existing file is never overwritten. The path is printed. Exit code 64: TARGET exists already.
    """
    target = Path(given)
    database, retry = unchecked_database(chosen)
    if given.endswith(os.sep) and not target.is_dir():
        raise SettingError("TARGET", f"the folder {given} does not exist")
    if target.exists() and not target.is_dir():
        raise SettingError("TARGET", f"{target} exists already; choose a new name")
    began = time.monotonic()
    copy: Path = retry(database.back_up, target)
    click.echo(copy)
    seconds = time.monotonic() - began
    click.echo(f"{copy.stat().st_size} bytes in {seconds:.1f} s, verified", err=True)
    return EXIT_OK


@command(short_help="Replace the database by a backup.")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@together(options.database, options.logs("warning"))
def restore(source: Path, **chosen: Any) -> int:
    """Replace the database by a copy of the backup SOURCE; stop the workers first.

    \b
    projector restore /var/backups/projector/projector-20260520T120000Z.db
    projector restore monday.db --database sqlite:////tmp/try/projector.db

    The former file is kept beside it under another name. An interrupted restore may be repeated.
    Exit codes: 65 SOURCE is corrupt, or not a database of a worker; 75 another process has the
    database open, or the disk is full.
    """
    set_up_log(chosen)
    database = open_database(chosen_database(chosen["database"]))
    former = database.restore(source)
    click.echo(database.url)
    if former is not None:
        click.echo(f"the former file is kept: {former}", err=True)
    if pending := database.pending_migrations():
        command = migrate_command(database.url)
        click.echo(f"the backup lacks {len(pending)} migrations; run: {command}", err=True)
    click.echo(
        "at its next start the worker projects the messages that the stream holds and the backup "
        "lacks, and logs catch_up.finished",
        err=True,
    )
    return EXIT_OK
