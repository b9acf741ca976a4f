"""`projector migrate`: the schema brought up to date, by a person or by a unit."""

import threading
from typing import Any

import click

from repo.retry import retry_policy
from repo.sqlite.database import Database
from repo.sqlite.schema import pending_migrations
from worker.cli.context import log_to_standard_error
from worker.cli.options import chosen_database, database_command
from worker.errors import EXIT_OK
from worker.schema import check_schema


@click.command(short_help="Apply the migrations that are missing.")
@database_command
def migrate(**chosen: Any) -> int:
    """Apply the migrations that the database lacks; one that is not there is made.

    \b
    projector backup before.db
    projector migrate

    Stop the workers first. Each migration that was applied is printed. Whatever was interrupted or
    locked out may be run again. Exit codes: 0 all are applied; 64 a wrong option; 65 the database
    is damaged or none; 75 another program has it locked, or the disk is full; 78 the database
    cannot be used, or does not fit a migration.
    """
    log_to_standard_error(chosen)
    retry = retry_policy(chosen.pop("retry_for"), threading.Event())
    database = Database(chosen_database(chosen.pop("database")), **chosen)
    missing = retry(pending_migrations, database)
    retry(check_schema, database, apply=True)
    for migration in missing:
        click.echo(migration)
    click.echo(f"{len(missing)} migrations applied to {database.url}", err=True)
    return EXIT_OK
