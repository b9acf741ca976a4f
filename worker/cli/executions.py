"""`projector executions`: how far executions are, and who is missing."""

import time
from collections.abc import Iterator
from typing import Any

import click

from repo import reports
from repo.queries import Filters
from repo.reader import Reader
from repo.reports import Execution
from worker.cli.context import open_database
from worker.cli.options import database_command, list_all_option
from worker.cli.output import Members, paragraph, safe
from worker.cli.runs import in_flight
from worker.cli.tables import print_list
from worker.codec.timestamps import format_instant
from worker.errors import EXIT_OK, EXIT_PARTLY

_PAGE_ROWS = 500
_STATUSES = ("pending", "running", "completed", "expired")
_COLUMNS = (
    *("initiated_at", "exec_id", "job_id", "status", "target_count#", "success_count#"),
    *("failure_count#", "missing#"),
)
_MISSING_COLUMNS = ("started_at", "pc_id", "result_id", "expires_at", "overdue")


@click.command(short_help="List executions with their counts, or show who is missing in one.")
@click.argument("exec_id", required=False)
@click.option("--status", type=click.Choice(_STATUSES), help="List the executions in this status.")
@click.option("--job", metavar="ID", help="List the executions of this job (manifest).")
@list_all_option
@database_command
def executions(
    *,
    exec_id: str | None,
    status: str | None,
    job: str | None,
    everything: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """List executions with status, targets and counts, newest first; or show one of them.

    \b
    projector executions --status running
    projector executions 7f3e
    projector executions 7f3e --all --json | jq -r '.missing[].pc_id'

    "missing" is how many of the targets have not ended. With EXEC_ID it lists the runs in flight
    with their PCs. Which PCs have never started a run is in no table, so only their number is
    known.

    With --json: {"executions": [{"exec_id": …, "status": "running", "target_count": 5,
    "success_count": 2, "failure_count": 1, "missing": 2, …}, …], "more": false}, or with EXEC_ID
    {"missing": [{"pc_id": …, "result_id": …, "overdue": false, …}, …], "more": false, "execution":
    {…}, "runs": {"in_flight": 1, "succeeded": 2, "failed": 1, "reaped": 0}, "never_started": 1}.

    Exit codes: 0, even if no execution matches; 1 EXEC_ID does not exist.
    """
    with open_database(options).reader() as reader:
        if exec_id is not None:
            if status or job:
                raise click.UsageError("--status and --job select from the list; pass no EXEC_ID")
            return _show(reader, exec_id, everything=everything, as_json=as_json)
        print_list(
            "executions",
            _newest_first(reader, status, job),
            _COLUMNS,
            everything=everything,
            as_json=as_json,
            nothing="no matching executions",
        )
    return EXIT_OK


def _newest_first(reader: Reader, status: str | None, job: str | None) -> Iterator[Members]:
    last: Execution | None = None
    while page := reader.read(reports.list_executions_before, last, status, job, _PAGE_ROWS):
        for last in page:
            yield _members(last)


def _members(execution: Execution) -> Members:
    ended = execution.success_count + execution.failure_count
    return {**execution._asdict(), "missing": max(0, execution.target_count - ended)}


def _show(reader: Reader, exec_id: str, *, everything: bool, as_json: bool) -> int:
    execution = reader.read(reports.find_execution, exec_id)
    counts = reader.read(reports.count_runs, exec_id)
    if execution is None:
        known = f"; {sum(counts)} runs name it" if any(counts) else ""
        click.echo(f"Error: execution {safe(exec_id)} does not exist{known}", err=True)
        return EXIT_PARTLY
    never_started = max(0, execution.target_count - sum(counts))
    about = {
        "execution": _members(execution),
        "runs": counts._asdict(),
        "never_started": never_started,
    }
    if not as_json:
        shown = {**_members(execution), **counts._asdict(), "never_started": never_started}
        click.echo(paragraph(f"execution {shown.pop('exec_id')}", shown))
        if not counts.in_flight:
            return EXIT_OK
    now = format_instant(time.time_ns())
    print_list(
        "missing",
        in_flight(reader, Filters(exec_id=exec_id), now),
        _MISSING_COLUMNS,
        everything=everything,
        as_json=as_json,
        nothing="no run is in flight",
        complete=lambda run: {**run, "overdue": bool(run["overdue"])},
        about=about,
    )
    return EXIT_OK
