"""`projector upkeep`: what a worker does at an interval, once."""

from typing import Any

import click

from repo.repository import Sweep
from worker.cli.context import open_database
from worker.cli.options import database_command
from worker.cli.output import counts_text, report, safe
from worker.errors import EXIT_OK, EXIT_PARTLY


@click.command(short_help="Promote executions whose rows came after their starts.")
@click.option("--once", is_flag=True, help="Required: only a worker repeats the upkeep.")
@database_command
def upkeep(*, once: bool, as_json: bool, **chosen: Any) -> int:
    """Promote pending executions that have runs, as a worker does every --upkeep-every.

    \b
    projector upkeep --once

    An execution whose row is inserted after its starts stays pending until then. It goes to
    running, or to completed if all its runs have ended; the runs that have ended are counted. The
    command works beside workers and without one, needs no broker, and may be repeated.

    With --json: {"failures": [{"execution": …, "error": …}], "promoted": 3, "failed": 0}.

    Exit codes: 0 done; 1 the tables rejected a promotion.
    """
    if not once:
        raise click.UsageError("expected --once; a worker repeats the upkeep by itself")
    sweep = Sweep()
    counts = {"promoted": 0, "failed": 0}
    with (
        open_database(chosen).repository() as repository,
        report("failures", counts, _line, counts_text, None, as_json=as_json) as add,
    ):
        while sweep.after is not None:
            reported = len(sweep.failures)
            try:
                repository.sweep(sweep)
            finally:
                counts.update(promoted=sweep.promoted, failed=len(sweep.failures))
            for execution, reason in sweep.failures[reported:]:
                add({"execution": execution, "error": reason})
    return EXIT_PARTLY if sweep.failures else EXIT_OK


def _line(failure: dict[str, Any]) -> str:
    return safe(f"{failure['execution']}: {failure['error']}")
