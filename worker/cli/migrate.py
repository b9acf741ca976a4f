"""`projector migrate`: bring the schema up to date, or show what that would do."""

from typing import Any

import click

from repo import Database
from worker.cli.context import unchecked_database
from worker.cli.options import database_options
from worker.errors import EXIT_OK
from worker.schema import check_schema


@click.command(short_help="Apply the migrations that are missing.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run; change nothing.")
@click.option("--list", "list_only", is_flag=True, help="Print each migration and its state.")
@database_options
def migrate(*, dry_run: bool, list_only: bool, **chosen: Any) -> int:
    """Apply the migrations that the database lacks; a missing database is created.

    \b
    projector migrate --dry-run
    projector backup before.db
    projector migrate

    Stop the workers first. Each applied migration is printed. The tables of another program are
    left as they are: only what is missing beside them is added. A migration that was interrupted or
    met a lock may be repeated. Exit code 78: the database does not fit a migration.
    """
    if dry_run and list_only:
        raise click.UsageError("--dry-run and --list exclude each other")
    database, retry = unchecked_database(chosen)
    if dry_run:
        retry(_print_sql, database)
    elif list_only:
        retry(_print_states, database)
    else:
        missing = retry(database.pending_migrations)
        retry(check_schema, database, apply=True)
        for migration in missing:
            click.echo(migration)
        click.echo(f"{len(missing)} migrations applied to {database.url}", err=True)
    return EXIT_OK


def _print_sql(database: Database) -> None:
    for sql in database.migration_sql():
        click.echo(f"{sql.rstrip().rstrip(';')};")


def _print_states(database: Database) -> None:
    applied, pending = database.applied_migrations(), database.pending_migrations()
    for migration in sorted([*applied, *pending]):
        click.echo(f"{'applied' if migration in applied else 'pending'}  {migration}")
    for migration in database.unknown_migrations():
        click.echo(f"unknown  {migration}")
