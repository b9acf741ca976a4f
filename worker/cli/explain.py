"""`projector explain`: why a run is in its state, and what happens next."""

import time
from itertools import islice
from typing import Any

import click
from rich.progress import TaskID

from repo import queries as runs
from repo import rejected as rejected_events
from repo.queries import FoundRun
from repo.reader import Reader
from worker.cli.context import chosen_settings, database_of, open_stream
from worker.cli.options import broker_command
from worker.cli.output import Members, json_text, paragraph, progress, safe, user_message
from worker.codec.timestamps import format_instant, parse_stored
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError
from worker.inspection import explanation
from worker.inspection.explanation import Calculation, Event, Evidence
from worker.jetstream.stream_reader import StreamReader
from worker.processing import rejections
from worker.projections.manifests import ManifestCache
from worker.settings import Settings, Since

_MOST_EVENTS = 10
_MOST_REJECTED = 10_000


@click.command(short_help="Explain one run.")
@click.argument("result_id")
@broker_command
def explain(*, result_id: str, as_json: bool, **options: Any) -> int:
    """Explain a run: its event in the stream, its row, its deadline, and what happens next.

    \b
    projector explain 0d9c6e6e-7e0f-4b0c-9a53-5ad1d2a3b3a1

    If the run has no row, the command searches the whole stream for its event, and the newest 10000
    rejected events for its id. It changes nothing. Without the broker it explains the row alone.

    With --json: {"result_id": …, "row": {…}, "events": [{"stream_sequence": 7, …}], "rejected": [],
    "deadline": …, "calculation": {"recorded_at": …, "timeout_seconds": 360.0, "slack_seconds":
    180.0, "expires_at": …, "problem": null}, "stored_deadline": …, "next": …, "problems": []}. If
    the deadline cannot be computed, "problem" is the reason.

    Exit codes: 0 the run has a row; 1 it has none.
    """
    settings = chosen_settings(options)
    with database_of(settings).reader() as reader:
        found = reader.read(runs.find, result_id)
        evidence = _search(settings, reader, result_id, found)
    members = _members(result_id, found, evidence)
    click.echo(json_text(members) if as_json else _text(members))
    return EXIT_OK if found is not None else EXIT_PARTLY


def _search(settings: Settings, reader: Reader, result_id: str, found: FoundRun | None) -> Evidence:
    """Search the stream for the run, and the rejected events if it has no row."""
    evidence = Evidence()
    stored_at = _stored_at(found)
    try:
        since = None if stored_at is None else Since(stored_at)
        with open_stream(settings, since=since, problems=evidence.problems) as stream:
            events, evidence.reaches_back = _read_events(stream.reader, result_id, stored_at)
            evidence.events, evidence.ack_floor = events, stream.ack_floor
            evidence.now = stream.now
            evidence.calculation = _calculation(stream.manifests, found, stored_at, events)
    except (BrokerError, ConfigurationError) as error:
        evidence.problems.append(user_message(error))
    if found is None:
        evidence.rejected = _rejected(reader, result_id)
    return evidence


def _stored_at(found: FoundRun | None) -> int | None:
    """Return when the broker stored the event of a row, in nanoseconds since 1970, if known."""
    try:
        return parse_stored(found.run.recorded_at) if found is not None else None
    except ValueError:  # written by another program
        return None


def _read_events(
    stream: StreamReader, result_id: str, stored_at: int | None
) -> tuple[list[Event], str | None]:
    """Return the events of the run, and when the first event that was read was stored.

    Reading starts at `stored_at` and stops after it, or covers the whole stream.
    """
    events: list[Event] = []
    reaches_back = None
    with progress("searching", stream.expected) as bar:
        for page in stream.pages():
            reaches_back = reaches_back or format_instant(page[0].stored_at)
            read = (explanation.read_event(message, result_id) for message in page)
            events += [event for event in read if event is not None]
            bar.advance(TaskID(0), len(page))
            is_past = stored_at is not None and page[-1].stored_at > stored_at
            if is_past or len(events) >= _MOST_EVENTS:
                break
    return events[:_MOST_EVENTS], reaches_back


def _calculation(
    manifests: ManifestCache, found: FoundRun | None, stored_at: int | None, events: list[Event]
) -> Calculation | None:
    if found is not None:
        job_id = found.run.job_id or ""  # another program may have left it NULL
        return None if stored_at is None else explanation.calculate(manifests, job_id, stored_at)
    starts = [(e.start.manifest_id, e.message.stored_at) for e in events if e.start is not None]
    return explanation.calculate(manifests, *starts[0]) if starts else None


def _rejected(reader: Reader, result_id: str) -> list[int]:
    """Return the newest rejected events whose payload contains the run's id."""
    wanted = result_id.encode("utf-8", "replace")
    newest = islice(rejections.newest_first(reader, None), _MOST_REJECTED)
    read = ((one.rejected_id, reader.read(rejected_events.find, one.rejected_id)) for one in newest)
    found = (id_ for id_, event in read if event is not None and wanted in event.payload)
    return list(islice(found, _MOST_EVENTS))


def _members(result_id: str, found: FoundRun | None, evidence: Evidence) -> Members:
    row, stored, calculation = None, None, evidence.calculation
    if found is not None:
        row = {**found.run._asdict(), "finished_at": found.finished_at, "reaped": found.reaped}
        stored = explanation.compare(found.run, calculation) if calculation else None
    return {
        "result_id": result_id,
        "row": row,
        "events": [_event_members(event) for event in evidence.events],
        "rejected": evidence.rejected,
        "deadline": str(calculation) if calculation else None,
        "calculation": calculation._asdict() if calculation else None,
        "stored_deadline": stored,
        "next": _next(found, evidence),
        "problems": evidence.problems,
    }


def _next(found: FoundRun | None, evidence: Evidence) -> str:
    if found is not None:
        if evidence.now is not None:
            return explanation.next_of_row(found, evidence.now)
        return explanation.next_of_row(found, time.time_ns(), " by this machine's clock")
    if evidence.problems and not evidence.rejected and not evidence.events:
        return "unknown without the broker"
    return explanation.next_without_row(evidence)


def _event_members(event: Event) -> Members:
    message, start = event.message, event.start
    members: Members = {
        "stream_sequence": message.stream_sequence,
        "subject": message.subject,
        "recorded_at": format_instant(message.stored_at),
    }
    if start is None:
        return {**members, "problem": event.problem}
    return {**members, **start._asdict(), "started_at": format_instant(start.started_at)}


def _text(members: Members) -> str:
    parts = [f"problem: {safe(problem)}" for problem in members["problems"]]
    row, events = members["row"], members["events"]
    nothing = "no row in execution_results"
    parts.append(paragraph("row in execution_results", row) if row else nothing)
    for event in events:
        parts.append(paragraph(f"event at stream sequence {event.pop('stream_sequence')}", event))
    if not events:
        parts.append("no event of this run in the stream" + (" any more" if row else ""))
    if ids := ", ".join(map(str, members["rejected"])):
        parts.append(f"rejected events that contain its id: {ids}")
    deadlines = {"today": members["deadline"], "in_the_row": members["stored_deadline"]}
    if any(deadlines.values()):
        parts.append(paragraph("deadline", deadlines))
    parts.append(f"next: {safe(members['next'])}")
    return "\n".join(parts)
