"""`projector rebuild`: project the events that the stream still holds once more."""

from collections.abc import Sequence
from typing import Any

import click
from rich.progress import TaskID

from repo import queries as runs
from repo.reader import Reader
from worker.cli.context import chosen_settings, database_of, open_stream
from worker.cli.options import broker_command, since_option, without_deadlines_option
from worker.cli.output import counts_text, cut_short, json_text, progress
from worker.errors import EXIT_OK
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.projections.starts import STARTS
from worker.settings import Since
from worker.status.counters import Counters

# About 100 MB of hashes. Beyond that, a run with two events is counted as new twice.
_MOST_REMEMBERED = 1_000_000
_COUNTS = {
    "messages": "messages",
    "runs_new": "runs_inserted",
    "runs_duplicate": "runs_duplicate",
    "rejected_new": "rejected",
    "rejected_duplicate": "rejected_duplicate",
    "markers": "markers",
}


@click.command(short_help="Project the stream again; existing rows stay unchanged.")
@since_option
@click.option("--dry-run", is_flag=True, help="Write nothing, and count what would be new.")
@without_deadlines_option
@broker_command
def rebuild(
    *, since: Since | None, dry_run: bool, without_deadlines: bool, as_json: bool, **options: Any
) -> int:
    """Project every event in the stream again, in the same way as a worker.

    \b
    projector rebuild --dry-run
    projector rebuild --since 2026-05-20T12:00:00Z

    It writes: missing runs, with deadlines from the current manifests; missing rejected events,
    including discarded ones; and executions that go from pending to running. Existing rows are left
    unchanged. It may run beside workers and may be repeated. It acks nothing, and does not use the
    worker's consumer or checkpoint.

    With --json: {"messages": 9, "runs_new": 1, "runs_duplicate": 7, "rejected_new": 0,
    "rejected_duplicate": 1, "markers": 0, "dry_run": false}.

    Exit codes: 0 every event was projected; 75 the broker or the database became unavailable, and
    the counted events are written.
    """
    settings = chosen_settings(options)
    database = database_of(settings)
    counters = Counters()
    new_runs: set[int] = set()
    problem: str | None = None
    with (
        database.reader() as reader,
        database.repository() as repository,
        open_stream(settings, since=since, without_deadlines=without_deadlines) as stream,
    ):
        processor = BatchProcessor(STARTS, settings.stream, stream.manifests, counters)
        try:
            with progress("projecting", stream.reader.expected) as bar:
                for page in stream.reader.pages():
                    if dry_run:
                        _count_new(processor, reader, page, counters, new_runs)
                    else:
                        processor.replay(page, repository)
                    bar.advance(TaskID(0), len(page))
        except BaseException as error:
            problem = cut_short(error, counters["messages"], stream.reader.expected)
            raise
        finally:
            _print(counters, problem, dry_run=dry_run, as_json=as_json)
    return EXIT_OK


def _print(counters: Counters, problem: str | None, *, dry_run: bool, as_json: bool) -> None:
    counts = {name: counters[counter] for name, counter in _COUNTS.items()}
    if as_json:
        error = {} if problem is None else {"error": problem}
        click.echo(json_text({**counts, "dry_run": dry_run, **error}))
        return
    if problem is not None:
        click.echo(problem)
    click.echo(f"{'would be: ' if dry_run else ''}{counts_text(counts)}")


def _count_new(
    processor: BatchProcessor,
    reader: Reader,
    page: Sequence[Message],
    counters: Counters,
    new_runs: set[int],
) -> None:
    """Count what a page would write; add the hashes of the new runs to `new_runs`.

    Thus a run with two events is counted as new once.
    """
    prepared = processor.prepare(page)
    keys = {key for key in map(STARTS.key, prepared.rows) if hash(key) not in new_runs}
    new = {hash(key) for key in keys if reader.read(STARTS.find, key) is None}
    if len(new_runs) < _MOST_REMEMBERED:
        new_runs |= new
    reasons = [reader.read(runs.rejection_reason, event.key) for event in prepared.rejected]
    duplicates = len(reasons) - reasons.count(None)
    counters.add(
        messages=len(page),
        runs_inserted=len(new),
        runs_duplicate=len(prepared.rows) - len(new),
        rejected=reasons.count(None),
        rejected_duplicate=duplicates,
        markers=len(prepared.markers),
    )
