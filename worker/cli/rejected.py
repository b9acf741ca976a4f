"""`projector rejected`: list, show, retry and discard rejected events."""

import base64
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import cache
from typing import Any, NamedTuple

import click

from repo import rejected as rejected_events
from repo.reader import Reader
from repo.rejected import AFTER_ALL, RejectedEvent
from worker.cli.context import (
    CheckedDatabase,
    CommandBroker,
    chosen_settings,
    database_of,
    handling_missing_manifests,
    open_database,
)
from worker.cli.options import (
    Whole,
    bucket,
    credentials,
    database_command,
    list_all_option,
    output_bucket,
    results_stream,
    servers,
    together,
    without_deadlines_option,
)
from worker.cli.output import Members, counts_text, json_text, report, safe
from worker.cli.tables import print_list
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.jetstream.command_outputs import CommandOutputs
from worker.jetstream.manifest_sync import read_manifests
from worker.processing import rejections
from worker.processing.processor import BatchProcessor
from worker.processing.rejections import REJECTED, UNKNOWN, WRITTEN, Destination
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.status.counters import Counters

_COLUMNS = (
    "rejected_id#",
    "rejected_at",
    "stream",
    "stream_sequence#",
    "subject",
    "bytes#",
    "reason",
)

# Counts of a retry beside its outcomes, each of these counters.
_RETRY_COUNTS = {
    "runs_duplicate": ("runs_duplicate", "results_duplicate"),
    "objects_missing": ("objects_missing",),
}

_id = Whole(1, AFTER_ALL)

# These have no variables: one left in a shell would select events for a later command.
_reason_option = click.option(
    "--reason",
    metavar="TEXT",
    help="Select the events whose reason contains TEXT, literally and case-sensitively.",
)
_selection = together(
    click.argument("ids", type=_id, nargs=-1, metavar="[ID]..."),
    click.option("--all", "everything", is_flag=True, help="Select all rejected events."),
    _reason_option,
)


@click.group()
def rejected() -> None:
    """List, show, retry or discard rejected events.

    A rejected event is a start or a result that could not be written: it could not be decoded, or
    a constraint of the database rejected the row. Workers may run meanwhile.
    """


@rejected.command("list", short_help="List rejected events, newest first.")
@_reason_option
@list_all_option
@database_command
def list_(*, reason: str | None, everything: bool, as_json: bool, **options: Any) -> int:
    """List rejected events, newest first, and report if there are more than are shown.

    \b
    projector rejected list --reason "RFC 3339"
    projector rejected list --all --json | jq -r '.events[].payload'

    With --json: {"events": [{"rejected_id": 7, "stream": "EVENTS", "stream_sequence": 123,
    "subject": …, "reason": …, "payload": "not JSON", …}, …], "more": false}. If the payload is not
    UTF-8, "payload" is null and "payload_base64" holds it.
    """
    with open_database(options).reader() as reader:

        def complete(listed: Members) -> Members | None:
            # Read one payload at a time: a page of payloads may not fit into memory.
            event = reader.read(rejected_events.find, listed["rejected_id"])
            return None if event is None else _members(listed["rejected_id"], event)

        found = rejections.newest_first(reader, reason)
        print_list(
            "events",
            (listed._asdict() for listed in found),
            _COLUMNS,
            everything=everything,
            as_json=as_json,
            nothing="no matching rejected events",
            complete=complete,
        )
    return EXIT_OK


@rejected.command(short_help="Show one event with its payload.")
@click.argument("one", type=_id, metavar="ID")
@database_command
def show(one: int, as_json: bool, **options: Any) -> int:
    """Show one rejected event with its payload.

    \b
    projector rejected show 7
    projector rejected show 7 --json | jq -r .payload

    With --json: one event as in `list`. Exit code 1: the event does not exist.
    """
    with open_database(options).reader() as reader:
        event = reader.read(rejected_events.find, one)
    if event is None:
        click.echo(f"Error: rejected event {one} does not exist", err=True)
        return EXIT_PARTLY
    members = _members(one, event)
    click.echo(json_text(members) if as_json else "\n".join(_lines(members, event.payload)))
    return EXIT_OK


def _members(rejected_id: int, event: RejectedEvent) -> Members:
    members = {"rejected_id": rejected_id, "rejected_at": event.rejected_at, **event._asdict()}
    payload = members.pop("payload")
    members["bytes"] = len(payload)
    try:
        members["payload"] = payload.decode("utf-8")
    except UnicodeDecodeError:
        members["payload"] = None
        members["payload_base64"] = base64.b64encode(payload).decode("ascii")
    return members


def _lines(members: Members, payload: bytes) -> Iterator[str]:
    """Yield lines that show everything of an event, each safe for a terminal."""
    kind = "text" if members["payload"] is not None else r"not UTF-8, other bytes shown as \xNN"
    for name in list(members)[:7]:
        yield f"{name.replace('_', ' '):16} {safe(str(members[name]))}"
    yield f"{'payload':16} {members['bytes']} bytes, {kind}:"
    for line in payload.decode("utf-8", "backslashreplace").split("\n"):
        yield f"  {safe(line)}"


class _Selection(NamedTuple):
    ids: tuple[int, ...]
    reason: str | None

    def read(self, reader: Reader) -> list[int]:
        """Return the selected ids: as given, or in order of arrival."""
        found = () if self.ids else rejections.newest_first(reader, self.reason)
        return list(dict.fromkeys(self.ids)) or [one.rejected_id for one in found][::-1]


def _pop_selection(options: dict[str, Any]) -> _Selection:
    ids, everything, reason = (options.pop(name) for name in ("ids", "everything", "reason"))
    if bool(ids) + everything + (reason is not None) != 1:
        raise click.UsageError("expected exactly one of: IDs, --all, --reason TEXT")
    if reason == "":
        raise click.UsageError("--reason: expected a text; an empty one would select all events")
    return _Selection(ids, reason)


@rejected.command(short_help="Project events again, and remove those that succeed.")
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
    projector rejected retry --reason "RFC 3339" --json

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

    def extent() -> tuple[int, int]:
        return counts[WRITTEN] + counts[REJECTED] + counts[UNKNOWN], len(chosen)

    with database.reader() as reader, CommandBroker(settings) as broker, ExitStack() as opened:
        chosen = selection.read(reader)
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
            return Destination(processor, repository, outputs.complete)

        with report("events", counts, _outcome_line, counts_text, extent, as_json=as_json) as add:
            for outcome in rejections.retry(reader, chosen, destination):
                counts[outcome.outcome] += 1
                counts.update({name: _sum(counters, of) for name, of in _RETRY_COUNTS.items()})
                members = outcome._asdict()
                add({name: value for name, value in members.items() if value is not None})
    missed = counts[REJECTED] + (counts[UNKNOWN] if selection.ids else 0)
    return EXIT_PARTLY if missed else EXIT_OK


def _has_start(reader: Reader, ids: Sequence[int], results_stream: str) -> bool:
    events = (reader.read(rejected_events.find, rejected_id) for rejected_id in ids)
    return any(event is not None and event.stream != results_stream for event in events)


def _sum(counters: Counters, names: Sequence[str]) -> int:
    return sum(counters[name] for name in names)


def _outcome_line(item: Members) -> str:
    reason = f": {safe(item['reason'])}" if "reason" in item else ""
    outcome = "does not exist" if item["outcome"] == UNKNOWN else item["outcome"]
    return f"{item['rejected_id']}  {outcome}{reason}"


@rejected.command(short_help="Delete events, after printing them.")
@_selection
@click.option(
    "--yes", is_flag=True, help="Discard without confirmation. Required if stdin is not a terminal."
)
@database_command
def discard(*, yes: bool, as_json: bool, **options: Any) -> int:
    """Delete rejected events, and print each one completely before it is deleted.

    \b
    projector rejected discard 7 8 >> discarded.log
    projector rejected discard --reason "not JSON" --yes --json > discarded.json

    With --all or --reason it asks for confirmation. Events that are rejected in the meantime are
    kept.

    With --json: {"events": […, as in `list`], "discarded": [7, 8], "unknown": [9]}. Exit code 1: an
    ID does not exist, or the answer was no.
    """
    selection = _pop_selection(options)
    confirmed = bool(selection.ids) or yes
    if not confirmed and not sys.stdin.isatty():
        problem = "stdin is not a terminal; pass --yes to discard without confirmation"
        raise click.UsageError(problem)
    database = open_database(options)
    with database.reader() as reader:
        chosen = selection.read(reader)
        question = f"Permanently discard {len(chosen)} rejected events?"
        if chosen and not confirmed and not click.confirm(question, err=True):
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
        report("events", summary, json_text, _discarded_text, extent, as_json=as_json) as add,
    ):
        for page in rejections.pages(reader, ids, unknown):
            # Print first, then delete: no failure of either can lose an event.
            for rejected_id, event in page.items():
                add(_members(rejected_id, event))
            repository.discard_rejected([event.key for event in page.values()])
            discarded += page
    return unknown


def _discarded_text(summary: Members) -> str:
    discarded, unknown = summary["discarded"], summary["unknown"]
    lines = [f"{rejected_id}  discarded" for rejected_id in discarded]
    lines += [f"{rejected_id}  does not exist" for rejected_id in unknown]
    return "\n".join([*lines, counts_text({"discarded": len(discarded), UNKNOWN: len(unknown)})])
