"""`projector rejected retry` and `discard`, which take events by id or by filter."""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, NamedTuple

import click
from rich.progress import Progress, TaskID

from repo import rejected as rejected_events
from repo.reader import Reader
from repo.rejected import kind_of_reason
from worker.cli.context import (
    CheckedDatabase,
    CommandBroker,
    chosen_settings,
    database_of,
    handling_missing_manifests,
    open_database,
)
from worker.cli.help import command
from worker.cli.options import (
    bucket,
    credentials,
    database_command,
    output_bucket,
    results_stream,
    servers,
    together,
    without_deadlines_option,
)
from worker.cli.output import Members, counts_text, json_text, report, safe
from worker.cli.rejected_list import event_id, event_members, filter_options, pop_filters
from worker.cli.tables import progress
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.jetstream.command_outputs import CommandOutputs
from worker.jetstream.manifest_sync import read_manifests
from worker.processing import rejections
from worker.processing.processor import BatchProcessor
from worker.processing.rejections import REJECTED, UNKNOWN, WRITTEN, Destination, Filters
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.status.counters import Counters

# Counts of a retry beside its outcomes, each of these counters.
_RETRY_COUNTS = {
    "runs_duplicate": ("runs_duplicate", "results_duplicate"),
    "objects_missing": ("objects_missing",),
}

_selection = together(
    click.argument("ids", type=event_id, nargs=-1, metavar="[ID]..."),
    click.option("--all", "all_events", is_flag=True, help="Select all rejected events."),
    filter_options,
    click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
)


class _Selection(NamedTuple):
    ids: tuple[int, ...]
    filters: Filters
    yes: bool

    def read(self, reader: Reader) -> list[int]:
        """Return the selected ids: as given, or in order of arrival."""
        found = () if self.ids else rejections.newest_first(reader, self.filters)
        return list(dict.fromkeys(self.ids)) or [one.rejected_id for one in found][::-1]

    @property
    def is_filtered(self) -> bool:
        """Whether the events are selected by filters, so that nobody has seen their number."""
        return not self.ids

    def is_confirmed(self, ids: Sequence[int], what: str) -> bool:
        """Show how many events are selected by filters, and ask whether to go on."""
        if self.yes or not self.is_filtered or not ids:
            return True
        return click.confirm(f"{what} {len(ids)} rejected events?", err=True)


def _pop_selection(options: dict[str, Any]) -> _Selection:
    ids, all_events, yes = (options.pop(name) for name in ("ids", "all_events", "yes"))
    filters = pop_filters(options)
    if bool(ids) + all_events + (filters != Filters()) != 1:
        problem = "expected exactly one of: IDs, --all, filters (--reason, --pc, --since)"
        raise click.UsageError(problem)
    return _Selection(ids, filters, yes)


@command(short_help="Project events again, and remove those that succeed.")
@_selection
@without_deadlines_option
@servers
@results_stream
@bucket
@output_bucket
@credentials
@database_command
def retry(*, without_deadlines: bool, as_json: bool, **options: Any) -> int:
    """Project rejected events again, for example after an upgrade or a change of the tables.

    \b
    projector rejected retry 7 8
    projector rejected retry --reason "RFC 3339" --since 2h

    On a terminal it asks for confirmation if the events are not named by their ids, and prints only
    how many are still rejected, by reason.

    An event is removed from the rejected events in the transaction that writes its run or finds an
    existing one. An event that is rejected again stays, with the new reason. For starts the command
    reads the manifests from the broker, because the deadlines depend on them. A result, which is an
    event of --results-stream, ends its run and is counted; its output comes from the object store.
    The command may be repeated at any time, and loses no event if it fails.

    With --json: {"events": [{"rejected_id": 7, "outcome": "rejected", "reason": …}, …], "written":
    0, "rejected": 1, "unknown": 0, "runs_duplicate": 0, "objects_missing": 0}. The outcomes have
    the names of the counts. "objects_missing" counts output that the object store does not have.

    Exit code 1: some events are still rejected, or an ID does not exist.
    """
    selection = _pop_selection(options)
    settings = chosen_settings(options)
    database = database_of(settings)
    manifests, counters = ManifestCache(), Counters()
    counts = dict.fromkeys((WRITTEN, REJECTED, UNKNOWN, *_RETRY_COUNTS), 0)
    still = _StillRejected()

    def line(item: Members) -> str | None:
        return None if selection.is_filtered else _outcome_line(item)

    def ending(_: Members) -> str:
        return "\n".join([*(still.lines() if selection.is_filtered else ()), counts_text(counts)])

    def extent() -> tuple[int, int]:
        return counts[WRITTEN] + counts[REJECTED] + counts[UNKNOWN], len(chosen)

    with database.reader() as reader, CommandBroker(settings) as broker, ExitStack() as opened:
        chosen = selection.read(reader)
        if sys.stdin.isatty() and not selection.is_confirmed(chosen, "Retry"):
            return EXIT_PARTLY
        if not without_deadlines and _has_start(reader, chosen, settings.results_stream):
            with handling_missing_manifests():
                read_manifests(broker.client(), settings.bucket, manifests)
        outputs = CommandOutputs(broker.client, settings.output_bucket, counters)

        @cache
        def destination(stream: str) -> Destination:
            projection = RESULTS if stream == settings.results_stream else STARTS
            processor = BatchProcessor(projection, stream, manifests, counters)
            # Whatever was rejected has never been counted.
            repository = opened.enter_context(database.repository(projection))
            opened.callback(processor.report, at_end=True)
            return Destination(processor, repository, outputs.complete)

        with (
            _progress("retrying", len(chosen), shows=selection.is_filtered and not as_json) as bar,
            report("events", counts, line, ending, extent, as_json=as_json) as add,
        ):
            for outcome in rejections.retry(reader, chosen, destination):
                counts[outcome.outcome] += 1
                counts.update({name: _sum(counters, of) for name, of in _RETRY_COUNTS.items()})
                members = outcome._asdict()
                if outcome.reason is not None:
                    still.add(outcome.reason)
                add({name: value for name, value in members.items() if value is not None})
                bar.advance(TaskID(0))
    missed = counts[REJECTED] + (counts[UNKNOWN] if selection.ids else 0)
    return EXIT_PARTLY if missed else EXIT_OK


class _StillRejected:
    """How many events are still rejected, by kind of reason, with the newest reason of each."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._newest: dict[str, str] = {}

    def add(self, reason: str) -> None:
        kind = kind_of_reason(reason)
        self._counts[kind] += 1
        self._newest[kind] = reason

    def lines(self) -> Iterator[str]:
        """Yield a line for each kind, the most frequent first."""
        for kind, count in self._counts.most_common():
            yield f"{count:>7} still rejected: {safe(self._newest[kind])}"


def _has_start(reader: Reader, ids: Sequence[int], results_stream: str) -> bool:
    events = (reader.read(rejected_events.find, rejected_id) for rejected_id in ids)
    return any(event is not None and event.stream != results_stream for event in events)


def _sum(counters: Counters, names: Sequence[str]) -> int:
    return sum(counters[name] for name in names)


def _outcome_line(item: Members) -> str:
    reason = f": {safe(item['reason'])}" if "reason" in item else ""
    outcome = "does not exist" if item["outcome"] == UNKNOWN else item["outcome"]
    return f"{item['rejected_id']}  {outcome}{reason}"


@contextmanager
def _progress(what: str, total: int, *, shows: bool) -> Iterator[Progress]:
    """Show progress where nothing else is printed on the same terminal meanwhile."""
    bar = progress(what, total)
    if not shows:
        yield bar
        return
    with bar:
        yield bar


@command(short_help="Delete events, after printing them.")
@_selection
@database_command
def discard(*, as_json: bool, **options: Any) -> int:
    """Delete rejected events, and print each one completely before it is deleted.

    \b
    projector rejected discard 7 8 >> discarded.jsonl
    projector rejected discard --reason "not JSON" --pc lyon-04 --yes > discarded.jsonl

    Each event is a line of JSON; all else goes to standard error. It is printed before it is
    deleted, so one that is printed may still exist if the command then fails. If the events are not
    named by their ids, it asks for confirmation; without a terminal, pass --yes. Events that are
    rejected in the meantime are kept.

    With --json: {"events": […, as in `list`], "discarded": [7, 8], "unknown": [9]}. Exit code 1: an
    ID does not exist, or the answer was no.
    """
    selection = _pop_selection(options)
    if selection.is_filtered and not selection.yes and not sys.stdin.isatty():
        problem = "stdin is not a terminal; pass --yes to discard without confirmation"
        raise click.UsageError(problem)
    database = open_database(options)
    with database.reader() as reader:
        chosen = selection.read(reader)
        if not selection.is_confirmed(chosen, "Permanently discard"):
            return EXIT_PARTLY
        unknown = _discard_all(database, reader, chosen, as_json=as_json)
    return EXIT_PARTLY if unknown and selection.ids else EXIT_OK


def _discard_all(
    database: CheckedDatabase, reader: Reader, ids: Sequence[int], *, as_json: bool
) -> list[int]:
    """Discard events and return the ids that do not exist."""
    discarded: list[int] = []
    unknown: list[int] = []
    summary: Members = {"discarded": discarded, "unknown": unknown}

    def extent() -> tuple[int, int]:
        return len(discarded) + len(unknown), len(ids)

    with (
        database.repository() as repository,
        _progress("discarding", len(ids), shows=not sys.stdout.isatty()) as bar,
        report(
            *("events", summary, json_text, _discarded_text, extent),
            as_json=as_json,
            ends_on_stderr=True,
        ) as add,
    ):
        for page in rejections.pages(reader, ids, unknown):
            # Print first, then delete: no failure of either can lose an event.
            for rejected_id, event in page.items():
                add(event_members(rejected_id, event))
            sys.stdout.flush()
            repository.discard_rejected([event.key for event in page.values()])
            discarded += page
            bar.advance(TaskID(0), len(page))
    return unknown


def _discarded_text(summary: Members) -> str:
    lines = [f"{rejected_id}  does not exist" for rejected_id in summary["unknown"]]
    counts = {"discarded": len(summary["discarded"]), UNKNOWN: len(summary["unknown"])}
    return "\n".join([*lines, counts_text(counts)])
