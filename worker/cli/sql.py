"""`projector sql`: which statements run, and how the engine runs them on the tables as they are."""

from collections.abc import Iterable
from typing import Any

import click

from repo.sqlite.plans import Described, Plan, described, plan
from worker.cli.context import open_database
from worker.cli.options import database_command, json_option
from worker.cli.output import Members, json_text, safe
from worker.errors import EXIT_OK, EXIT_PARTLY

_WIDTH = 10


@click.command(short_help="Each SQL statement, its purpose, and its query plan.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@json_option
@database_command
def sql(*, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Show the SQL statements with their purpose, how often they run, and their query plans.

    \b
    projector sql
    projector sql insert_run overdue_runs
    projector sql --json | jq -r '.statements[] | select(.error) | .name'

    The plans are the engine's own, for the tables and indexes of the database as it is, which may
    have more of them than the migrations make. Nothing is run.

    With --json: {"statements": [{"name": …, "file": …, "purpose": …, "frequency": …,
    "index_used": …, "sql": …, "plan": ["SEARCH …"], "error": ""}, …]}.

    Exit codes: 0 every statement fits the tables; 1 one does not, or there is none of that name; 64
    a wrong option; 65 the database is damaged or none; 75 it cannot be read just now; 78 it is not
    set up.
    """
    with open_database(options).reader() as reader:
        found = [
            (one, reader.read(plan, one.sql))
            for one in described()
            if not names or one.name in names
        ]
    if as_json:
        click.echo(json_text({"statements": [_members(one, plan) for one, plan in found]}))
    else:
        click.echo("\n\n".join(_text(one, plan) for one, plan in found))
    unknown = sorted(set(names) - {one.name for one, _ in found})
    for name in unknown:
        click.echo(f"Error: there is no statement {safe(name)}", err=True)
    return EXIT_PARTLY if unknown or _do_not_fit(plan for _, plan in found) else EXIT_OK


def _do_not_fit(plans: Iterable[Plan]) -> bool:
    return any(plan.error for plan in plans)


def _members(one: Described, plan: Plan) -> Members:
    return {**one._asdict(), "plan": plan.steps, "error": plan.error}


def _text(one: Described, plan: Plan) -> str:
    told = {"purpose": one.purpose, "how often": one.frequency, "index": one.index_used}
    lines = [f"{one.name}  ({one.file})"]
    lines += [f"  {name:{_WIDTH}} {text}" for name, text in told.items() if text]
    lines += [f"  {'plan' if not at else '':{_WIDTH}} {s}" for at, s in enumerate(plan.steps)]
    if plan.error:
        lines.append(f"  {'error':{_WIDTH}} {plan.error}")
    lines += [f"    {line}" for line in one.sql.splitlines()]
    return "\n".join(safe(line) for line in lines)
