"""`projector runs`: which runs are in flight, and which are overdue."""

import time
from collections.abc import Iterator
from typing import Any

import click

from repo.queries import Filters, InFlight, list_in_flight_after
from repo.reader import Reader
from worker.cli.context import open_database
from worker.cli.options import database_command, list_all_option
from worker.cli.output import Members, json_text, print_list, print_table
from worker.codec.timestamps import format_instant
from worker.errors import EXIT_OK

_PAGE_ROWS = 500
_NOTHING = "no matching runs in flight"
_GROUPS = {"job": "job_id", "pc": "pc_id", "execution": "exec_id"}
_COLUMNS = ("started_at", "job_id", "pc_id", "exec_id", "result_id", "expires_at", "overdue")


@click.command(short_help="List runs in flight, by job and PC, and those overdue.")
@click.option("--job", metavar="ID", help="List the runs of this job (manifest).")
@click.option("--pc", metavar="ID", help="List the runs on this PC.")
@click.option("--execution", metavar="ID", help="List the runs of this execution.")
@click.option("--overdue", is_flag=True, help="List the runs whose deadline has passed.")
@click.option("--without-deadline", is_flag=True, help="List the runs that have no deadline.")
@click.option("--by", type=click.Choice(list(_GROUPS)), help="Count runs by job, PC or execution.")
@list_all_option
@database_command
def runs(*, by: str | None, everything: bool, as_json: bool, **options: Any) -> int:
    """List the runs in flight, earliest start first. A run must match every filter.

    A deadline has passed where this machine's clock says so: the broker is not asked.

    \b
    projector runs --by job
    projector runs --overdue --pc pc-17
    projector runs --all --json | jq -r '.runs[].result_id'

    With --json: {"runs": [{"result_id": …, "pc_id": …, "expires_at": …, "overdue": false, …}, …],
    "more": false}, or with --by {"by": "job", "groups": [{"job": …, "runs": 3, "overdue": 0,
    "without_deadline": 0, "first_started_at": …}, …]}.

    Exit codes: 0, even if no run is in flight.
    """
    now = format_instant(time.time_ns())
    filters = Filters(
        *(options.pop("job"), options.pop("pc"), options.pop("execution")),
        now if options.pop("overdue") else None,
        options.pop("without_deadline"),
    )
    with open_database(options).reader() as reader:
        found = _in_flight(reader, filters, now)
        if by is not None:
            _print_groups(by, found, as_json=as_json)
            return EXIT_OK
        print_list(
            "runs",
            found,
            _COLUMNS,
            everything=everything,
            as_json=as_json,
            nothing=_NOTHING,
            complete=lambda run: {**run, "overdue": bool(run["overdue"])},
        )
    return EXIT_OK


def _in_flight(reader: Reader, filters: Filters, now: str) -> Iterator[Members]:
    last: InFlight | None = None
    while page := reader.read(list_in_flight_after, last, filters, _PAGE_ROWS):
        for last in page:
            is_overdue = last.expires_at is not None and last.expires_at < now
            yield {**last._asdict(), "overdue": "overdue" if is_overdue else ""}


def _print_groups(by: str, found: Iterator[Members], *, as_json: bool) -> None:
    groups = _groups(by, found)
    if as_json:
        click.echo(json_text({"by": by, "groups": groups}))
    elif groups:
        columns = (by, "runs#", "overdue#", "without_deadline#", "first_started_at")
        print_table(columns, groups)
    else:
        click.echo(_NOTHING, err=True)


def _groups(by: str, found: Iterator[Members]) -> list[Members]:
    """Return the counts of each group, largest first; memory grows with the number of groups."""
    groups: dict[str, Members] = {}
    for run in found:
        name = run[_GROUPS[by]] or ""
        empty = {by: name, "runs": 0, "overdue": 0, "without_deadline": 0}
        group = groups.setdefault(name, {**empty, "first_started_at": run["started_at"]})
        group["runs"] += 1
        group["overdue"] += bool(run["overdue"])
        group["without_deadline"] += run["expires_at"] is None
    return sorted(groups.values(), key=lambda group: (-group["runs"], group[by]))
