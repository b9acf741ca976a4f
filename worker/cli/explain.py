"""`projector explain`: why a run is in its state, and what happens next."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, NamedTuple

import click
from rich.progress import TaskID

from repo import queries as runs
from repo import rejected as rejected_events
from repo.queries import FoundEnd, FoundRun
from repo.reader import Reader
from repo.reports import find_execution
from worker.cli.context import (
    OpenStream,
    chosen_settings,
    database_of,
    handling_missing_manifests,
    open_stream,
    told_time,
)
from worker.cli.help import command
from worker.cli.options import broker_command, projections
from worker.cli.output import Members, json_text, paragraph, safe, shortened, user_message
from worker.cli.short import whole_run
from worker.cli.tables import progress
from worker.codec.timestamps import format_instant, parse_stored
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError
from worker.inspection import explanation
from worker.inspection.explanation import Calculation, Event, Evidence
from worker.jetstream.client import BrokerClient
from worker.jetstream.manifest_sync import read_manifests
from worker.jetstream.stream import is_subject
from worker.processing import rejections
from worker.processing.rejections import Filters
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS, EventStarted
from worker.settings import Settings

_MOST_EVENTS = 10
_MOST_REJECTED = 10_000
_MOST_REQUESTS = 20
_LONGEST_OUTPUT = 200


class _Wanted(NamedTuple):
    """A run to search for: its row, if it has one, and where its start may be found otherwise."""

    result_id: str
    found: FoundRun | None
    pc: str | None
    execution: str | None

    @property
    def starts(self) -> str | None:
        """The subjects that its start has; None for all."""
        if self.found is not None or (self.pc is None and self.execution is None):
            return None
        return f"events.started.{self.execution or '*'}.{self.pc or '>'}"


@command(short_help="Explain one run.")
@click.argument("result_id")
@click.option("--pc", metavar="ID", help="Search only events of this PC, if the run has no row.")
@click.option(
    "--execution", metavar="ID", help="Search only events of this execution, if it has no row."
)
@projections
@broker_command
def explain(
    *, result_id: str, pc: str | None, execution: str | None, as_json: bool, **options: Any
) -> int:
    """Explain a run: its start and its result, its row, its deadline, and what happens next.

    RESULT_ID may be short, as `projector runs` shows it, if the run has a row.

    \b
    projector explain 0d9c6e6e
    projector explain 0d9c6e6e-7e0f-4b0c-9a53-5ad1d2a3b3a1 --execution deploy-7

    It shows the run's messages in both streams, its row, in which execution it is counted or why
    not, and by how much its result was late. If the run has no row, the command searches the whole
    streams for its events, which takes seconds per million; with --execution or --pc it reads the
    starts of these alone, and the results of their requests. If the run has not got its result, it
    searches the newest 10000 rejected events for its id. "searched" says what was read. It changes
    nothing. Without the broker it explains the row alone.

    With --json: {"result_id": …, "row": {…}, "events": [{"stream_sequence": 7, …}], "results":
    [{"stream_sequence": 3, "exit_code": 0, …}], "rejected": [], "execution": {…}, "counted": …,
    "late": null, "deadline": …, "calculation": {"recorded_at": …, "timeout_seconds": 360.0,
    "slack_seconds": 180.0, "expires_at": …, "problem": null}, "stored_deadline": …, "next": …,
    "searched": ["EVENTS, events.started.>: 7 messages", …], "problems": []}. If the deadline cannot
    be computed, "problem" is the reason.

    Exit codes: 0 the run has a row; 1 it has none.
    """
    for option, value in (("--pc", pc), ("--execution", execution)):
        if value is not None and not is_subject(value):
            raise click.UsageError(f"{option}: expected the word of a subject, found {value!r}")
    settings = chosen_settings(options)
    with database_of(settings).reader() as reader:
        result_id = whole_run(reader, result_id)
        found, end = reader.read(runs.find, result_id), reader.read(runs.find_end, result_id)
        evidence = _search(settings, _Wanted(result_id, found, pc, execution))
        if end is None or not end.has_result:
            evidence.rejected = _rejected(reader, result_id)
            evidence.searched.append(f"the newest {_MOST_REJECTED} rejected events at most")
        exec_id = found and end and explanation.counted_exec_id(found, end, evidence.results)
        if exec_id:
            evidence.execution = reader.read(find_execution, exec_id)
    members = _members(result_id, found, end, evidence)
    if end is not None:
        members["counted"] = explanation.counted(end, exec_id, evidence.execution)
    click.echo(json_text(members) if as_json else _text(members))
    return EXIT_OK if found is not None else EXIT_PARTLY


def _search(settings: Settings, wanted: _Wanted) -> Evidence:
    """Search the streams of the chosen projections for the run, each by itself."""
    evidence = Evidence()
    with _noting(evidence), BrokerClient(settings) as client:
        evidence.now = told_time(client, settings)
        for projection, search in ((STARTS, _search_starts), (RESULTS, _search_results)):
            if projection in settings.chosen:
                with _noting(evidence):
                    search(client, settings, wanted, evidence)
    return evidence


@contextmanager
def _noting(evidence: Evidence) -> Iterator[None]:
    try:
        yield
    except (BrokerError, ConfigurationError) as error:
        evidence.problems.append(user_message(error))


def _search_starts(
    client: BrokerClient, settings: Settings, wanted: _Wanted, evidence: Evidence
) -> None:
    found, stored_at = wanted.found, _stored_at(wanted.found)
    # A row that its result made says nothing of when a start was stored.
    since = stored_at if found is not None and found.run.version is not None else None
    manifests = ManifestCache()
    with open_stream(client, settings, STARTS, since=since, subjects=wanted.starts) as stream:
        with handling_missing_manifests(evidence.problems):
            read_manifests(client, settings.bucket, manifests)
        evidence.events, evidence.reaches_back = _read_events(
            stream, wanted.result_id, since, evidence
        )
        evidence.ack_floor, evidence.is_searched = stream.ack_floor, True
        evidence.calculation = _calculation(manifests, found, stored_at, evidence.events)


def _search_results(
    client: BrokerClient, settings: Settings, wanted: _Wanted, evidence: Evidence
) -> None:
    """Search for results: those of the run's request where that is known, else all of them."""
    starts = [event.decoded for event in evidence.events if event.decoded is not None]
    requests = {start.request_id for start in starts}
    if wanted.found is not None:
        requests = {wanted.found.run.request_id}
    elif not requests and wanted.starts is not None:
        requests = evidence.requests
        if len(requests) > _MOST_REQUESTS or not requests:
            evidence.searched.append(
                f"no results: the starts that were read name {len(requests)} requests"
            )
            return
    can_narrow = bool(requests) and all(map(is_subject, requests))
    for subjects in sorted(f"results.{one}" for one in requests) if can_narrow else [None]:
        with open_stream(client, settings, RESULTS, subjects=subjects) as stream:
            results, _ = _read_events(stream, wanted.result_id, None, evidence)
            evidence.results += results
            evidence.results_ack_floor = stream.ack_floor


def _stored_at(found: FoundRun | None) -> int | None:
    """Return when the broker stored the event of a row, in nanoseconds since 1970, if known."""
    try:
        return parse_stored(found.run.recorded_at) if found is not None else None
    except ValueError:  # written by another program
        return None


def _read_events(
    stream: OpenStream, result_id: str, stored_at: int | None, evidence: Evidence
) -> tuple[list[Event], str | None]:
    """Return the events of the run, and when the first event that was read was stored.

    Reading starts at `stored_at` and stops after it, or covers the whole stream.
    """
    events: list[Event] = []
    reaches_back, messages = None, 0
    decode = stream.projection.decode
    with progress("searching", stream.reader.expected) as bar:
        for page in stream.reader.pages():
            reaches_back = reaches_back or format_instant(page[0].stored_at)
            read = [explanation.read_event(message, decode) for message in page]
            events += [event for event in read if explanation.is_of_run(event, result_id)]
            evidence.requests |= {one.decoded.request_id for one in read if one.decoded}
            messages += len(page)
            bar.advance(TaskID(0), len(page))
            is_past = stored_at is not None and page[-1].stored_at > stored_at
            if is_past or len(events) >= _MOST_EVENTS:
                break
    since = f" since {reaches_back}" if reaches_back else ""
    place = f"{stream.settings.stream}, {stream.reader.subjects}"
    evidence.searched.append(f"{place}: {messages} messages{since}")
    return events[:_MOST_EVENTS], reaches_back


def _calculation(
    manifests: ManifestCache, found: FoundRun | None, stored_at: int | None, events: list[Event]
) -> Calculation | None:
    if found is not None:
        job_id = found.run.job_id or ""  # another program may have left it NULL
        return None if stored_at is None else explanation.calculate(manifests, job_id, stored_at)
    starts = [
        (event.decoded.manifest_id, event.message.stored_at)
        for event in events
        if isinstance(event.decoded, EventStarted)
    ]
    return explanation.calculate(manifests, *starts[0]) if starts else None


def _rejected(reader: Reader, result_id: str) -> list[int]:
    """Return the newest rejected events whose payload contains the run's id."""
    wanted = result_id.encode("utf-8", "replace")
    newest = islice(rejections.newest_first(reader, Filters()), _MOST_REJECTED)
    read = ((one.rejected_id, reader.read(rejected_events.find, one.rejected_id)) for one in newest)
    found = (id_ for id_, event in read if event is not None and wanted in event.payload)
    return list(islice(found, _MOST_EVENTS))


def _members(
    result_id: str, found: FoundRun | None, end: FoundEnd | None, evidence: Evidence
) -> Members:
    row, stored, calculation = None, None, evidence.calculation
    if found is not None:
        ended = {"finished_at": found.finished_at, "reaped": found.reaped}
        row = {**found.run._asdict(), **ended, "exit_code": end.exit_code if end else None}
        stored = explanation.compare(found.run, calculation) if calculation else None
    return {
        "result_id": result_id,
        "row": row,
        "events": [_event_members(event) for event in evidence.events],
        "results": [_event_members(event) for event in evidence.results],
        "rejected": evidence.rejected,
        "execution": evidence.execution._asdict() if evidence.execution else None,
        "counted": None,
        "late": explanation.lateness(found, evidence.results),
        "deadline": str(calculation) if calculation else None,
        "calculation": calculation._asdict() if calculation else None,
        "stored_deadline": stored,
        "next": _next(found, evidence),
        "searched": evidence.searched,
        "problems": evidence.problems,
    }


def _next(found: FoundRun | None, evidence: Evidence) -> str:
    if found is not None:
        now, whose = evidence.now, ""
        if now is None:
            now, whose = time.time_ns(), " by this machine's clock"
        return explanation.next_of_row(found, evidence, now, whose)
    is_found = evidence.rejected or evidence.events or evidence.results
    if not evidence.is_searched and not is_found:
        return "unknown without the broker"
    return explanation.next_without_row(evidence)


def _event_members(event: Event) -> Members:
    message, decoded = event.message, event.decoded
    members: Members = {
        "stream_sequence": message.stream_sequence,
        "subject": message.subject,
        "recorded_at": format_instant(message.stored_at),
    }
    if decoded is None:
        return {**members, "problem": event.problem}
    shown = {name: _shown(name, value) for name, value in decoded._asdict().items()}
    return {**members, **shown}


def _shown(name: str, value: Any) -> Any:
    """Return a member of an event; of output only the beginning."""
    return shortened(value, _LONGEST_OUTPUT) if name in ("stdout", "stderr") else value


def _text(members: Members) -> str:
    parts = [f"problem: {safe(problem)}" for problem in members["problems"]]
    row, events = members["row"], members["events"]
    nothing = "no row in execution_results"
    parts.append(paragraph("row in execution_results", row) if row else nothing)
    for event in events:
        parts.append(paragraph(f"event at stream sequence {event.pop('stream_sequence')}", event))
    if not events:
        parts.append("no event of this run in the stream" + (" any more" if row else ""))
    for result in members["results"]:
        sequence = result.pop("stream_sequence")
        parts.append(paragraph(f"result at stream sequence {sequence}", result))
    if ids := ", ".join(map(str, members["rejected"])):
        parts.append(f"rejected events that contain its id: {ids}")
    deadlines = {"today": members["deadline"], "in_the_row": members["stored_deadline"]}
    if any(deadlines.values()):
        parts.append(paragraph("deadline", deadlines))
    if members["counted"]:
        parts.append(f"counted: {safe(members['counted'])}")
    if members["late"]:
        parts.append(f"late: {members['late']}")
    parts += [f"searched: {safe(place)}" for place in members["searched"]]
    parts.append(f"next: {safe(members['next'])}")
    return "\n".join(parts)
