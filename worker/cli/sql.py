"""`projector sql`: which statements run, and how the engine runs them on the tables as they are."""

from typing import Any

import click

from repo.queries import Plan, plan
from repo.statements import Description
from worker.cli.context import open_database
from worker.cli.help import command
from worker.cli.options import database_command
from worker.cli.output import json_text, safe
from worker.errors import EXIT_OK, EXIT_PARTLY

_WIDTH = 10


@command(short_help="Show each SQL statement, its purpose and its query plan.")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@database_command
def sql(*, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Show the SQL statements with their purpose, their frequency, and their query plans.

    \b
    projector sql insert_run overdue_runs
    projector sql --json | jq -r '.statements[] | select(.error) | .name'

    The plans are the engine's own, for the tables and indexes of the database as it is, which may
    have more of them than the migrations create. Nothing is run.

    With --json: {"statements": [{"name": …, "file": …, "purpose": …, "frequency": …,
    "index_used": …, "sql": …, "plan": ["SEARCH …"], "error": ""}, …]}.

    Exit codes: 0 every statement fits the tables; 1 a statement does not fit, or a NAME is unknown.
    """
    opened = open_database(options)
    shown = [one for one in opened.statements() if not names or one.name in names]
    with opened.reader() as reader:
        found = [(one, reader.read(plan, one.name)) for one in shown]
    if as_json:
        listed = [{**one._asdict(), "plan": plan.steps, "error": plan.error} for one, plan in found]
        click.echo(json_text({"statements": listed}))
    else:
        click.echo("\n\n".join(_text(one, plan) for one, plan in found))
    unknown = sorted(set(names) - {one.name for one in shown})
    for name in unknown:
        click.echo(f"Error: statement {safe(name)} does not exist", err=True)
    return EXIT_PARTLY if unknown or any(plan.error for _, plan in found) else EXIT_OK


def _text(one: Description, plan: Plan) -> str:
    labelled = {"purpose": one.purpose, "frequency": one.frequency, "index": one.index_used}
    lines = [f"{one.name}  ({one.file})"]
    lines += [f"  {name:{_WIDTH}} {text}" for name, text in labelled.items() if text]
    lines += [f"  {'plan' if not at else '':{_WIDTH}} {s}" for at, s in enumerate(plan.steps)]
    if plan.error:
        lines.append(f"  {'error':{_WIDTH}} {plan.error}")
    lines += [f"    {line}" for line in one.sql.splitlines()]
    return "\n".join(safe(line) for line in lines)
