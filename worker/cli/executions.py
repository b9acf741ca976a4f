"""`projector executions`: how far executions are, and who is missing."""

import time
from collections.abc import Callable, Iterator, Mapping
from operator import itemgetter
from typing import Any

import click
from rich.console import Console

from repo import reports
from repo.queries import Filters
from repo.reader import Reader
from repo.reports import Execution
from worker.cli.context import CheckedDatabase, open_database
from worker.cli.help import command
from worker.cli.lists import Listing, View, list_options, pop_view, show_list
from worker.cli.options import database_options
from worker.cli.output import Members, paragraph, safe
from worker.cli.runs import MISSING, in_flight, shortened, time_column
from worker.cli.short import short_execution, whole_execution
from worker.cli.tables import Column, Cut, member, number
from worker.codec.timestamps import format_instant
from worker.errors import EXIT_OK, EXIT_PARTLY

_PAGE_ROWS = 500
_STATUSES = ("pending", "running", "completed", "expired")

_EXECUTIONS = Listing(
    "executions",
    "exec_id",
    (
        *(time_column("INITIATED UTC", "initiated_at"), member("JOB", "job_id", Cut.MIDDLE)),
        Column("STATUS", lambda item: (item["status"], "")),
        *(number("TARGETS", "target_count"), number("OK", "success_count")),
        *(number("FAILED", "failure_count", bad=True), number("MISSING", "missing")),
        member("EXECUTION", "short_id"),
    ),
    (
        *("initiated_at", "job_id", "version", "initiated_by", "status", "target_count"),
        *("success_count", "failure_count", "missing", "exec_id"),
    ),
    "no matching executions",
)
_SORTS: Mapping[str, Callable[[Members], Any]] = {
    "job": itemgetter("job_id"),
    "missing": lambda execution: -execution["missing"],
    "failed": lambda execution: -execution["failure_count"],
}


@command(short_help="List executions with their counts, or show who is missing in one.")
@click.argument("exec_id", required=False)
@click.option("--status", type=click.Choice(_STATUSES), help="List the executions in this status.")
@click.option("--job", metavar="ID", help="List the executions of this job (manifest).")
@list_options(_SORTS)
@database_options
def executions(*, exec_id: str | None, status: str | None, job: str | None, **options: Any) -> int:
    """List executions with status, targets and counts, newest first; or show one of them.

    EXEC_ID may be short, as the list shows it.

    \b
    projector executions --status running --watch
    projector executions --sort failed --limit 10
    projector executions 7f3e
    projector executions 7f3e --all --json | jq -r '.missing[].pc_id'

    "missing" is how many of the targets have not ended. With EXEC_ID it lists the runs in flight
    with their PCs. Which PCs have never started a run is in no table, so only their number is
    known.

    With --json: {"executions": [{"exec_id": …, "status": "running", "target_count": 5,
    "success_count": 2, "failure_count": 1, "missing": 2, …}, …], "more": false, "remaining": 0}, or
    with EXEC_ID {"missing": [{"pc_id": …, "result_id": …, "overdue": false, …}, …], "execution":
    {…}, "runs": {"in_flight": 1, "succeeded": 2, "failed": 1, "reaped": 0}, "never_started": 1,
    "more": false, "remaining": 0}.

    Exit codes: 0, even if no execution matches; 1 EXEC_ID does not exist.
    """
    view = pop_view(options)
    if exec_id is not None and (status or job or view.sort):
        raise click.UsageError("--status, --job and --sort are for the list; pass no EXEC_ID")
    database = open_database(options)
    if exec_id is not None:
        return _show(database, exec_id, view)

    def find() -> Iterator[Members]:
        with database.reader() as reader:
            for execution in _newest_first(reader, status, job):
                if view.is_table:
                    execution["short_id"] = short_execution(reader, execution["exec_id"])
                yield execution

    show_list(view, _EXECUTIONS, find, sorts=_SORTS)
    return EXIT_OK


def _newest_first(reader: Reader, status: str | None, job: str | None) -> Iterator[Members]:
    last: Execution | None = None
    while page := reader.read(reports.list_executions_before, last, status, job, _PAGE_ROWS):
        for last in page:
            yield _members(last)


def _members(execution: Execution) -> Members:
    ended = execution.success_count + execution.failure_count
    return {**execution._asdict(), "missing": max(0, execution.target_count - ended)}


def _show(database: CheckedDatabase, given: str, view: View) -> int:
    with database.reader() as reader:
        exec_id = whole_execution(reader, given)
        if reader.read(reports.find_execution, exec_id) is None:
            runs = sum(reader.read(reports.count_runs, exec_id))
            known = f"; {runs} runs name it" if runs else ""
            click.echo(f"Error: execution {safe(exec_id)} does not exist{known}", err=True)
            return EXIT_PARTLY

    def find() -> Iterator[Members]:
        with database.reader() as reader:
            now = format_instant(time.time_ns())
            found = in_flight(reader, Filters(exec_id=exec_id), now)
            yield from shortened(reader, found) if view.is_table else found

    def about() -> Members:
        with database.reader() as reader:
            return _about(reader, exec_id)

    def head(console: Console) -> None:
        facts = about()
        execution = facts["execution"] or {"exec_id": exec_id}
        members = {**execution, **facts["runs"], "never_started": facts["never_started"]}
        title = f"execution {members.pop('exec_id')}"
        console.print(paragraph(title, members), no_wrap=True, overflow="ignore", crop=False)

    show_list(view, MISSING, find, about=about, head=head)
    return EXIT_OK


def _about(reader: Reader, exec_id: str) -> Members:
    execution = reader.read(reports.find_execution, exec_id)
    counts = reader.read(reports.count_runs, exec_id)
    targets = 0 if execution is None else execution.target_count
    return {
        "execution": None if execution is None else _members(execution),
        "runs": counts._asdict(),
        "never_started": max(0, targets - sum(counts)),
    }
