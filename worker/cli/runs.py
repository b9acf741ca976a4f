"""`projector runs`: which runs are in flight, which are overdue, and how runs have ended."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, NamedTuple

import click

from repo.queries import Filters, InFlight, list_in_flight_after
from repo.reader import Reader
from repo.reports import Ended, EndedFilters, list_ended_before
from worker.cli.context import open_database
from worker.cli.help import command
from worker.cli.lists import Listing, View, grouped, list_options, pop_view, show_list
from worker.cli.options import database_options
from worker.cli.output import Members
from worker.cli.short import short_run, whole_execution
from worker.cli.tables import BAD, Column, Cut, member, number
from worker.codec.readable import short_time, span, until
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.errors import EXIT_OK

_PAGE_ROWS = 500
_GROUPS = {"job": "job_id", "pc": "pc_id", "execution": "exec_id"}


def time_column(heading: str, name: str) -> Column:
    """Return the column of a stored time, in UTC."""
    return Column(heading, lambda item: (short_time(item[name], time.time_ns()), ""))


def _deadline(run: Members) -> tuple[str, str]:
    text, has_passed = until(run["expires_at"], time.time_ns())
    return text, BAD if has_passed else ""


def _exit_code(run: Members) -> tuple[str, str]:
    code = run["exit_code"]
    text = "-" if code is None else str(code)
    return f"{text} reaped" if run["reaped"] else text, "" if code == 0 else BAD


def _took(run: Members) -> tuple[str, str]:
    seconds = run["duration_seconds"]
    return "-" if seconds is None else span(seconds), ""


_JOB = member("JOB", "job_id", Cut.MIDDLE)
_PC = member("PC", "pc_id", Cut.MIDDLE)
_RUN = member("RUN", "short_id")
_DEADLINE = Column("DEADLINE", _deadline)

IN_FLIGHT = Listing(
    "runs",
    "result_id",
    (time_column("STARTED UTC", "started_at"), _JOB, _PC, _DEADLINE, _RUN),
    (
        *("started_at", "job_id", "pc_id", "exec_id", "version", "recorded_at", "expires_at"),
        *("overdue", "result_id"),
    ),
    "no matching runs in flight",
)
MISSING = IN_FLIGHT._replace(
    name="missing",
    columns=(time_column("STARTED UTC", "started_at"), _PC, _DEADLINE, _RUN),
    nothing="no run is in flight",
)
_ENDED = Listing(
    "runs",
    "result_id",
    (
        *(time_column("ENDED UTC", "finished_at"), _JOB, _PC, Column("EXIT CODE", _exit_code)),
        *(Column("TOOK", _took, right=True), _RUN),
    ),
    (
        *("finished_at", "job_id", "pc_id", "exec_id", "version", "started_at", "recorded_at"),
        *("exit_code", "duration_seconds", "reaped", "result_id"),
    ),
    "no matching runs that have ended",
)


def _latest_end(run: Members) -> int | None:
    try:
        return -parse_stored(run["finished_at"])
    except ValueError:  # written by another program
        return None


_SORTS: Mapping[str, Callable[[Members], Any]] = {
    **{name: itemgetter(column) for name, column in _GROUPS.items()},
    "deadline": itemgetter("expires_at"),
    "duration": lambda run: None if (took := run["duration_seconds"]) is None else -took,
    "exit-code": itemgetter("exit_code"),
    "ended": _latest_end,
}
_OF_FLIGHT, _OF_ENDED = ("deadline",), ("duration", "exit-code", "ended")


class _Kind(NamedTuple):
    """How runs in flight, or ended ones, are shown and added up; `counts` are those of a group."""

    listing: Listing
    counts: Sequence[str]
    group_columns: Sequence[Column]
    add_up: Callable[[Members, Members], None]

    def groups(self, by: str) -> Listing:
        """Return how groups of these runs are shown."""
        columns = member(by.upper(), by, Cut.MIDDLE), number("RUNS", "runs"), *self.group_columns
        return Listing("groups", by, columns, (by, "runs", *self.counts), self.listing.nothing)


def _count_in_flight(group: Members, run: Members) -> None:
    group["overdue"] = group.get("overdue", 0) + run["overdue"]
    without = group.get("without_deadline", 0)
    group["without_deadline"] = without + (run["expires_at"] is None)
    group.setdefault("first_started_at", run["started_at"])


def _count_ended(group: Members, run: Members) -> None:
    group["failed"] = group.get("failed", 0) + (run["exit_code"] != 0)
    group["reaped"] = group.get("reaped", 0) + run["reaped"]
    group.setdefault("last_recorded_at", run["recorded_at"])


_IN_FLIGHT_KIND = _Kind(
    IN_FLIGHT,
    ("overdue", "without_deadline", "first_started_at"),
    (
        number("OVERDUE", "overdue", bad=True),
        number("NO DEADLINE", "without_deadline"),
        time_column("FIRST STARTED UTC", "first_started_at"),
    ),
    _count_in_flight,
)
_ENDED_KIND = _Kind(
    _ENDED,
    ("failed", "reaped", "last_recorded_at"),
    (
        number("FAILED", "failed", bad=True),
        number("REAPED", "reaped", bad=True),
        time_column("LAST STORED UTC", "last_recorded_at"),
    ),
    _count_ended,
)


@command(short_help="List runs in flight, by job and PC, and those overdue or ended.")
@click.option("--job", metavar="ID", help="List the runs of this job (manifest).")
@click.option("--pc", metavar="ID", help="List the runs on this PC.")
@click.option(
    "--execution", metavar="ID", help="List the runs of this execution; a short id will do."
)
@click.option("--overdue", is_flag=True, help="List the runs whose deadline has passed.")
@click.option("--without-deadline", is_flag=True, help="List the runs that have no deadline.")
@click.option("--ended", is_flag=True, help="List runs that have ended, with their exit codes.")
@click.option("--failed", is_flag=True, help="List ended runs with another exit code than 0.")
@click.option("--by", type=click.Choice(list(_GROUPS)), help="Count runs by job, PC or execution.")
@list_options(_SORTS)
@database_options
def runs(*, by: str | None, **options: Any) -> int:
    """List the runs in flight, earliest start first. A run must match every filter.

    A deadline has passed where this machine's clock says so: the broker is not asked. RUN is the
    beginning of the run's id; `projector explain` takes it.

    \b
    projector runs --by job
    projector runs --overdue --pc pc-17 --watch
    projector runs --failed --execution 7f3e --sort ended --limit 20
    projector runs --overdue --all -o ids

    With --ended or --failed it lists runs that have ended, those that were started last first: by
    the time at which the broker stored their first message. --sort ended lists those that ended
    last first, by the agent's clock, and reads all that match. The duration is by the agent's clock
    as well; that of a run that was given up at its deadline is unknown. A skipped run has failed,
    unless its exit code is 0.

    With --json: {"runs": [{"result_id": …, "pc_id": …, "expires_at": …, "overdue": false, …}, …],
    "more": false, "remaining": 0}, or with --by {"groups": [{"job": …, "runs": 3, "overdue": 0,
    "without_deadline": 0, "first_started_at": …}, …], "by": "job", …}. Ended runs have
    "finished_at", "exit_code", "duration_seconds" and "reaped", their groups "runs", "failed",
    "reaped" and "last_recorded_at". "remaining" is how many more there are, null from 10 000 on.

    Exit codes: 0, even if no run matches.
    """
    view = pop_view(options)
    job, pc, execution = (options.pop(name) for name in ("job", "pc", "execution"))
    overdue, without_deadline = options.pop("overdue"), options.pop("without_deadline")
    ended, failed = options.pop("ended"), options.pop("failed")
    is_ended = ended or failed
    if is_ended and (overdue or without_deadline):
        raise click.UsageError("--overdue and --without-deadline are for runs in flight")
    _check_sort(view, by, is_ended=is_ended)
    database = open_database(options)

    def find() -> Iterator[Members]:
        with database.reader() as reader:
            places = job, pc, execution and whole_execution(reader, execution)
            now = format_instant(time.time_ns())
            if is_ended:
                found = _ended(reader, EndedFilters(*places, failed))
            else:
                filters = Filters(*places, now if overdue else None, without_deadline)
                found = in_flight(reader, filters, now)
            if by is not None:
                found = grouped(found, by, _GROUPS[by], "runs", add_up=kind.add_up)
            elif view.is_table:
                found = shortened(reader, found)
            yield from found

    kind = _ENDED_KIND if is_ended else _IN_FLIGHT_KIND
    if by is None:
        show_list(view, kind.listing, find, sorts=_SORTS)
    else:
        show_list(view, kind.groups(by), find, about=lambda: {"by": by})
    return EXIT_OK


def _check_sort(view: View, by: str | None, *, is_ended: bool) -> None:
    if view.sort is None:
        return
    if by is not None:
        raise click.UsageError("--sort is for runs; groups are sorted by their size")
    if view.sort in (_OF_FLIGHT if is_ended else _OF_ENDED):
        kind = "in flight" if is_ended else "that have ended"
        raise click.UsageError(f"--sort {view.sort} is for runs {kind}")


def in_flight(reader: Reader, filters: Filters, now: str) -> Iterator[Members]:
    """Yield the runs in flight that match the filters, earliest start first."""
    last: InFlight | None = None
    while page := reader.read(list_in_flight_after, last, filters, _PAGE_ROWS):
        for last in page:
            is_overdue = last.expires_at is not None and last.expires_at < now
            yield {**last._asdict(), "overdue": is_overdue}


def shortened(reader: Reader, found: Iterator[Members]) -> Iterator[Members]:
    """Yield runs with the shortest beginning of their id that no other run has."""
    for run in found:
        yield {**run, "short_id": short_run(reader, run["result_id"])}


def _ended(reader: Reader, filters: EndedFilters) -> Iterator[Members]:
    last: Ended | None = None
    while page := reader.read(list_ended_before, last, filters, _PAGE_ROWS):
        for last in page:
            flags = {"duration_seconds": _duration(last), "reaped": bool(last.reaped)}
            yield {**last._asdict(), **flags}


def _duration(run: Ended) -> float | None:
    """Return how long a run took by its agent's clock, in seconds, if that is known."""
    if run.reaped:
        return None
    try:
        nanoseconds = parse_stored(run.finished_at) - parse_stored(run.started_at)
    except ValueError:  # written by another program
        return None
    return round(nanoseconds / NANOSECONDS, 3)
