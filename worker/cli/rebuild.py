"""`projector rebuild`: project the events that the streams still hold once more."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import click
from rich.progress import TaskID

from repo import checkpoint as checkpoints
from repo.checkpoint import Position
from repo.queries import rejection_reason
from repo.reader import Reader
from repo.repository import Repository
from worker.cli.context import OpenStream, chosen_settings, database_of, open_streams
from worker.cli.help import command
from worker.cli.options import (
    broker_command,
    output_bucket,
    projections,
    since_option,
    without_deadlines_option,
)
from worker.cli.output import counts_text, cut_short, json_text
from worker.cli.tables import progress
from worker.errors import EXIT_OK
from worker.inspection.preview import Preview
from worker.jetstream.client import BrokerClient
from worker.jetstream.command_outputs import CommandOutputs
from worker.jetstream.stream import has_gone_back
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.settings import Since
from worker.status.counters import Counters

_COUNTS = {
    "messages": "messages",
    "runs_new": "runs_inserted",
    "runs_duplicate": "runs_duplicate",
    "runs_ended": "runs_ended",
    "runs_ended_unseen": "runs_ended_unseen",
    "results_late": "results_late",
    "results_duplicate": "results_duplicate",
    "rejected_new": "rejected",
    "rejected_duplicate": "rejected_duplicate",
    "markers": "markers",
    "objects_missing": "objects_missing",
}

_Project = Callable[[Sequence[Message]], None]


@command(short_help="Project the streams again; rows that have ended stay unchanged.")
@since_option
@click.option("--dry-run", is_flag=True, help="Write nothing, and count what would be new.")
@without_deadlines_option
@projections
@output_bucket
@broker_command
def rebuild(
    *, since: Since | None, dry_run: bool, without_deadlines: bool, as_json: bool, **options: Any
) -> int:
    """Project every start and every result again, in the same way as a worker, starts first.

    \b
    projector rebuild --dry-run
    projector rebuild --since 2026-05-20T12:00:00Z
    projector rebuild --projection starts

    It writes: missing runs, with deadlines from the current manifests; the end of runs whose result
    is in the stream, with output from the object store; missing rejected events, including
    discarded ones; executions that go from pending to running, and the counts of runs that end. A
    result at or below the checkpoint of --results-consumer has been counted, unless it was
    rejected: if its row was deleted, the row comes back and is not counted again. Rows that have
    ended are left unchanged.
    It may run beside workers and may be repeated. It acks nothing, and does not use the worker's
    consumers or change its checkpoints. If rows of runs were deleted by hand, stop the workers
    first: until its result is read again such a run is in flight, and a worker that finds it
    overdue gives it up and counts it once more.

    With --json: {"messages": 9, "runs_new": 1, "runs_duplicate": 3, "runs_ended": 2,
    "runs_ended_unseen": 1, "results_late": 0, "results_duplicate": 1, "rejected_new": 0,
    "rejected_duplicate": 1, "markers": 0, "objects_missing": 0, "dry_run": false}. Unseen are runs
    without a start; late are results of runs that were given up.

    Exit codes: 0 every event was projected; 75 the broker or the database became unavailable, and
    the counted events are written; 78 a stream does not exist.
    """
    settings = chosen_settings(options)
    database = database_of(settings)
    counters = Counters()
    problem: str | None = None
    with (
        database.reader() as reader,
        open_streams(settings, since=since, without_deadlines=without_deadlines) as opened,
        ExitStack() as repositories,
        progress("projecting", opened.expected) as bar,
    ):
        preview = Preview(reader, counters)
        outputs = CommandOutputs(lambda: opened.client, settings.output_bucket, counters)
        try:
            for stream in opened.streams:
                place = stream.projection, stream.settings.stream
                processor = BatchProcessor(*place, opened.manifests, counters)
                repositories.callback(processor.report, at_end=True)
                project: _Project = partial(preview.count, processor)
                if not dry_run:
                    position = _counted(opened.client, stream, reader)
                    both = [database.repository(stream.projection, at) for at in (position, None)]
                    for repository in both:
                        repositories.enter_context(repository)
                    project = _Replay(processor, reader, outputs, *both)
                for page in stream.reader.pages():
                    project(page)
                    bar.advance(TaskID(0), len(page))
        except BaseException as error:
            problem = cut_short(error, counters["messages"], opened.expected)
            raise
        finally:
            bar.stop()
            _print(counters, problem, dry_run=dry_run, as_json=as_json)
    return EXIT_OK


def _counted(client: BrokerClient, stream: OpenStream, reader: Reader) -> Position | None:
    """Return the position of the checkpoint up to which the rows are counted.

    None if there is no checkpoint, or it is of an earlier stream or an earlier state of this one.
    """
    stored = reader.read(checkpoints.read, stream.position)
    if stored is None or stored.checkpoint.stream_created_at != stream.state.created_at:
        return None
    place = client.connection, stream.settings.stream
    went_back = client.do(has_gone_back(*place, stored.checkpoint, stream.state))
    return None if went_back else stream.position


@dataclass(frozen=True, slots=True)
class _Replay:
    """Writes pages of one stream; what was rejected has never been counted, whatever its row."""

    processor: BatchProcessor
    reader: Reader
    outputs: CommandOutputs
    counted: Repository[Any]
    not_counted: Repository[Any]

    def __call__(self, page: Sequence[Message]) -> None:
        missing = self.processor.missing_objects(page, self.reader)
        for messages in self.outputs.complete(page, missing):
            parts: dict[bool, list[Message]] = {False: [], True: []}
            for message in messages:
                parts[self._is_rejected(message)].append(message)
            for is_rejected, part in parts.items():
                if part:
                    repository = self.not_counted if is_rejected else self.counted
                    self.processor.replay(part, repository)

    def _is_rejected(self, message: Message) -> bool:
        key = self.processor.rejected(message, "").key
        return self.reader.read(rejection_reason, key) is not None


def _print(counters: Counters, problem: str | None, *, dry_run: bool, as_json: bool) -> None:
    counts = {name: counters[counter] for name, counter in _COUNTS.items()}
    if as_json:
        error = {} if problem is None else {"error": problem}
        click.echo(json_text({**counts, "dry_run": dry_run, **error}))
        return
    if problem is not None:
        click.echo(problem)
    click.echo(f"{'would be: ' if dry_run else ''}{counts_text(counts)}")
