"""`projector rebuild`: history, as far as the stream holds it, projected again."""

from collections.abc import Sequence
from typing import Any

import click

from repo import queries as runs
from repo.reader import Reader
from worker.cli.context import chosen_settings, open_of
from worker.cli.options import broker_command, json_option, since_option
from worker.cli.output import counted, json_text
from worker.cli.source import reading, without_deadlines_option
from worker.cli.tables import progress
from worker.errors import EXIT_OK
from worker.messages import Batch, Message
from worker.processing.processor import Projection
from worker.status.counters import Counters

# About 100 MB of them; a run that comes twice is counted twice where there are more.
_MOST_REMEMBERED = 1_000_000


@click.command(short_help="Project the stream again; what is there stays.")
@since_option
@click.option("--dry-run", is_flag=True, help="Write nothing, and count what would be new.")
@without_deadlines_option
@json_option
@broker_command
def rebuild(
    *,
    since: int | None,
    dry_run: bool,
    without_deadlines: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Project all that the stream holds once more, by the very path that a worker takes.

    \b
    projector rebuild --dry-run
    projector rebuild --since 2026-05-20T12:00:00Z

    It writes: runs that are missing, with the deadlines of today's manifests, rejected events that
    are missing, also ones that were discarded, and executions go from pending to running. What is
    there stays as it is. It may be run beside workers, and again at any time; it acks nothing, and
    leaves the worker's consumer and checkpoint alone.

    With --json: {"messages": 9, "runs_new": 1, "runs_there": 7, "rejected_new": 0,
    "rejected_there": 1, "dry_run": false}.

    Exit codes: 0 all of it was projected; 64 a wrong option; 65 the database is damaged or none; 75
    broker or database cannot be used just now, and what was counted is written; 78 either is not
    set up.
    """
    settings = chosen_settings(options)
    opened = open_of(settings)
    counters = Counters()
    counted_new: set[int] = set()
    with (
        opened.reader() as reader,
        opened.repository() as repository,
        reading(settings, since=since, without_deadlines=without_deadlines) as source,
    ):
        projection = Projection(settings.stream, source.manifests, counters)
        try:
            with progress("projecting", source.stream.expected) as bar:
                for page in source.stream.pages():
                    if dry_run:
                        _count_new(projection, reader, page, counters, counted_new)
                    else:
                        projection.replay(page, repository)
                    bar.advance(len(page))
        finally:
            _tell(counters, dry_run=dry_run, as_json=as_json)
    return EXIT_OK


def _count_new(
    projection: Projection,
    reader: Reader,
    page: Sequence[Message],
    counters: Counters,
    counted_new: set[int],
) -> None:
    """Count what writing a page would do; a run that comes twice is new once.

    The hashes of the runs that are new are added to `counted_new`.
    """
    prepared = projection.prepare(Batch(1, tuple(page)))
    ids = {hash(run.result_id): run.result_id for run in prepared.runs}
    new = {
        key
        for key, result_id in ids.items()
        if key not in counted_new and reader.read(runs.find, result_id) is None
    }
    if len(counted_new) < _MOST_REMEMBERED:
        counted_new |= new
    kept = sum(
        reader.read(runs.rejection_reason, event.key) is not None for event in prepared.rejected
    )
    counters.add(
        messages=len(page),
        runs_inserted=len(new),
        runs_duplicate=len(prepared.runs) - len(new),
        rejected=len(prepared.rejected) - kept,
        rejected_duplicate=kept,
    )


def _tell(counters: Counters, *, dry_run: bool, as_json: bool) -> None:
    counts = {
        "messages": counters["messages"],
        "runs_new": counters["runs_inserted"],
        "runs_there": counters["runs_duplicate"],
        "rejected_new": counters["rejected"],
        "rejected_there": counters["rejected_duplicate"],
    }
    if as_json:
        click.echo(json_text({**counts, "dry_run": dry_run}))
    else:
        click.echo(f"{'would be: ' if dry_run else ''}{counted(counts)}")
