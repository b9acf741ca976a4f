"""`projector runs`: which runs are in flight, which are overdue, and how runs have ended."""

import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import click

from repo.queries import Filters, InFlight, list_in_flight_after
from repo.reader import Reader
from repo.reports import Ended, EndedFilters, list_ended_before
from worker.cli.context import open_database
from worker.cli.options import database_command, list_all_option
from worker.cli.output import Members, json_text
from worker.cli.tables import print_list, print_table
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.errors import EXIT_OK

_PAGE_ROWS = 500
_GROUPS = {"job": "job_id", "pc": "pc_id", "execution": "exec_id"}
_PLACES = ("job_id", "pc_id", "exec_id", "result_id")


class _Kind(NamedTuple):
    """How runs are shown: `flag` is a word in a table and a boolean in JSON, `add_up` adds a run to
    the counts of its group.
    """

    columns: tuple[str, ...]
    nothing: str
    flag: str
    add_up: Callable[[Members, Members], None]


def _count_in_flight(group: Members, run: Members) -> None:
    group["overdue"] = group.get("overdue", 0) + bool(run["overdue"])
    without = group.get("without_deadline", 0)
    group["without_deadline"] = without + (run["expires_at"] is None)
    group.setdefault("first_started_at", run["started_at"])


def _count_ended(group: Members, run: Members) -> None:
    group["failed"] = group.get("failed", 0) + (run["exit_code"] != 0)
    group["reaped"] = group.get("reaped", 0) + bool(run["reaped"])
    group.setdefault("last_recorded_at", run["recorded_at"])


_IN_FLIGHT = _Kind(
    ("started_at", *_PLACES, "expires_at", "overdue"),
    "no matching runs in flight",
    "overdue",
    _count_in_flight,
)
_ENDED = _Kind(
    ("finished_at", *_PLACES, "exit_code#", "duration_seconds#", "reaped"),
    "no matching runs that have ended",
    "reaped",
    _count_ended,
)


@click.command(short_help="List runs in flight, by job and PC, and those overdue or ended.")
@click.option("--job", metavar="ID", help="List the runs of this job (manifest).")
@click.option("--pc", metavar="ID", help="List the runs on this PC.")
@click.option("--execution", metavar="ID", help="List the runs of this execution.")
@click.option("--overdue", is_flag=True, help="List the runs whose deadline has passed.")
@click.option("--without-deadline", is_flag=True, help="List the runs that have no deadline.")
@click.option("--ended", is_flag=True, help="List runs that have ended, with their exit codes.")
@click.option("--failed", is_flag=True, help="List ended runs with another exit code than 0.")
@click.option("--by", type=click.Choice(list(_GROUPS)), help="Count runs by job, PC or execution.")
@list_all_option
@database_command
def runs(*, by: str | None, everything: bool, as_json: bool, **options: Any) -> int:
    """List the runs in flight, earliest start first. A run must match every filter.

    A deadline has passed where this machine's clock says so: the broker is not asked.

    \b
    projector runs --by job
    projector runs --overdue --pc pc-17
    projector runs --failed --execution 7f3e
    projector runs --all --json | jq -r '.runs[].result_id'

    With --ended or --failed it lists runs that have ended, newest first by the time at which the
    broker stored them. The duration is by the agent's clock; that of a run that was given up at
    its deadline is unknown. A skipped run has failed, unless its exit code is 0.

    With --json: {"runs": [{"result_id": …, "pc_id": …, "expires_at": …, "overdue": false, …}, …],
    "more": false}, or with --by {"by": "job", "groups": [{"job": …, "runs": 3, "overdue": 0,
    "without_deadline": 0, "first_started_at": …}, …]}. Ended runs have "finished_at", "exit_code",
    "duration_seconds" and "reaped", their groups "runs", "failed", "reaped" and "last_recorded_at".

    Exit codes: 0, even if no run matches.
    """
    places = options.pop("job"), options.pop("pc"), options.pop("execution")
    overdue, without_deadline = options.pop("overdue"), options.pop("without_deadline")
    ended, failed = options.pop("ended"), options.pop("failed")
    if (ended or failed) and (overdue or without_deadline):
        raise click.UsageError("--overdue and --without-deadline are for runs in flight")
    now = format_instant(time.time_ns())
    with open_database(options).reader() as reader:
        if ended or failed:
            kind, found = _ENDED, _ended(reader, EndedFilters(*places, failed))
        else:
            filters = Filters(*places, now if overdue else None, without_deadline)
            kind, found = _IN_FLIGHT, in_flight(reader, filters, now)
        if by is not None:
            _print_groups(by, _groups(by, found, kind.add_up), kind.nothing, as_json=as_json)
            return EXIT_OK
        print_list(
            "runs",
            found,
            kind.columns,
            everything=everything,
            as_json=as_json,
            nothing=kind.nothing,
            complete=lambda run: {**run, kind.flag: bool(run[kind.flag])},
        )
    return EXIT_OK


def in_flight(reader: Reader, filters: Filters, now: str) -> Iterator[Members]:
    """Yield the runs in flight that match the filters, earliest start first."""
    last: InFlight | None = None
    while page := reader.read(list_in_flight_after, last, filters, _PAGE_ROWS):
        for last in page:
            is_overdue = last.expires_at is not None and last.expires_at < now
            yield {**last._asdict(), "overdue": "overdue" if is_overdue else ""}


def _ended(reader: Reader, filters: EndedFilters) -> Iterator[Members]:
    last: Ended | None = None
    while page := reader.read(list_ended_before, last, filters, _PAGE_ROWS):
        for last in page:
            reaped = "reaped" if last.reaped else ""
            yield {**last._asdict(), "duration_seconds": _duration(last), "reaped": reaped}


def _duration(run: Ended) -> float | None:
    """Return how long a run took by its agent's clock, in seconds, if that is known."""
    if run.reaped:
        return None
    try:
        nanoseconds = parse_stored(run.finished_at) - parse_stored(run.started_at)
    except ValueError:  # written by another program
        return None
    return round(nanoseconds / NANOSECONDS, 3)


def _print_groups(by: str, groups: list[Members], nothing: str, *, as_json: bool) -> None:
    if as_json:
        click.echo(json_text({"by": by, "groups": groups}))
    elif groups:
        names = [name for name in groups[0] if name != by]
        print_table([by, *(f"{n}#" if not n.endswith("_at") else n for n in names)], groups)
    else:
        click.echo(nothing, err=True)


def _groups(
    by: str, found: Iterator[Members], count: Callable[[Members, Members], None]
) -> list[Members]:
    """Return the counts of each group, largest first; memory grows with the number of groups."""
    groups: dict[str, Members] = {}
    for run in found:
        name = run[_GROUPS[by]] or ""
        group = groups.setdefault(name, {by: name, "runs": 0})
        group["runs"] += 1
        count(group, run)
    return sorted(groups.values(), key=lambda group: (-group["runs"], group[by]))
