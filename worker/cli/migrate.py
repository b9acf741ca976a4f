"""`projector migrate`: bring the schema up to date, or show what that would do."""

from typing import Any

import click

from repo import Database
from worker.cli.context import unchecked_database
from worker.cli.help import command
from worker.cli.options import database_options
from worker.errors import EXIT_OK, SettingError
from worker.schema import check_schema


@command(short_help="Apply the migrations that are missing.")
@click.option("--dry-run", is_flag=True, help="Print the SQL that would run; change nothing.")
@click.option("--list", "list_only", is_flag=True, help="Print each migration and its state.")
@click.option("--rollback", is_flag=True, help="Undo the last one, or all after --to.")
@click.option("--to", metavar="ID", help="The migration that stays the last one; 0 keeps none.")
@click.option("--yes", is_flag=True, help="Really roll back.")
@database_options
def migrate(
    *, dry_run: bool, list_only: bool, rollback: bool, to: str | None, yes: bool, **chosen: Any
) -> int:
    """Apply the migrations that the database lacks; a missing database is created.

    \b
    projector migrate --dry-run
    projector backup before.db
    projector migrate

    Stop the workers first. Each applied migration is printed. The tables of another program are
    left as they are: only what is missing beside them is added. A migration that was interrupted or
    met a lock may be repeated.

    --rollback undoes migrations, the last one first, and prints each. Tables that they created are
    dropped with their rows: back up first.

    Exit codes: 64 a rollback needs --yes, or names no applied migration; 78 the database does not
    fit a migration.
    """
    if dry_run + list_only + rollback > 1:
        raise click.UsageError("--dry-run, --list and --rollback exclude each other")
    if to is not None and not rollback:
        raise click.UsageError("--to is for --rollback")
    database, retry = unchecked_database(chosen)
    if dry_run:
        if not retry(_print_sql, database):
            click.echo("no migration is pending", err=True)
    elif list_only:
        retry(_print_states, database)
    elif rollback:
        retry(_roll_back, database, to, yes)
    else:
        missing = retry(database.pending_migrations)
        retry(check_schema, database, apply=True)
        for migration in missing:
            click.echo(migration)
        click.echo(f"{len(missing)} migrations applied to {database.url}", err=True)
    return EXIT_OK


def _roll_back(database: Database, to: str | None, yes: bool) -> None:
    applied = database.applied_migrations()
    if to not in (None, "0", *applied):
        raise SettingError("--to", f"expected 0 or an applied migration: {', '.join(applied)}")
    kept = 0 if to == "0" else applied.index(to) + 1 if to else max(len(applied) - 1, 0)
    undo = applied[kept:][::-1]
    if undo and not yes:
        names = ", ".join(undo)
        problem = f"pass --yes to undo {names}; tables that they created are dropped with all rows"
        raise SettingError("--rollback", problem)
    if undo:
        database.roll_back(undo)
    for migration in undo:
        click.echo(migration)
    click.echo(f"{len(undo)} migrations undone in {database.url}", err=True)


def _print_sql(database: Database) -> int:
    statements = database.migration_sql()
    for sql in statements:
        click.echo(f"{sql.rstrip().rstrip(';')};")
    return len(statements)


def _print_states(database: Database) -> None:
    applied, pending = database.applied_migrations(), database.pending_migrations()
    for migration in sorted([*applied, *pending]):
        click.echo(f"{'applied' if migration in applied else 'pending'}  {migration}")
    for migration in database.unknown_migrations():
        click.echo(f"unknown  {migration}")
