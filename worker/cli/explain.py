"""`projector explain`: why a run looks as it does, and what will happen next."""

import time
from itertools import islice
from typing import Any

import click

from repo import queries as runs
from repo.execution_results import Run
from repo.queries import FoundRun
from repo.reader import Reader
from worker.cli.context import chosen_settings, open_of
from worker.cli.options import broker_command, json_option
from worker.cli.output import Members, json_text, safe, told
from worker.cli.source import Reading, reading
from worker.cli.tables import paragraph, progress
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError
from worker.inspection.explanation import (
    Event,
    Place,
    Sum,
    add_up,
    compared,
    next_of_row,
    next_without_row,
    read_event,
)
from worker.processing import rejections
from worker.settings import Settings

_MOST_EVENTS = 10
_MOST_REJECTED = 10_000


@click.command(short_help="Why does this run look as it does?")
@click.argument("result_id")
@json_option
@broker_command
def explain(*, result_id: str, as_json: bool, **options: Any) -> int:
    """Explain a run: its event in the stream, its row, its deadline, and what happens next.

    \b
    projector explain 0d9c6e6e-7e0f-4b0c-9a53-5ad1d2a3b3a1

    Without a row it reads the whole stream for the event, and the newest 10000 rejected events for
    one that names the run. It changes nothing, and does without the broker if it has to.

    With --json: {"result_id": …, "row": {…}, "events": [{"stream_sequence": 7, …}], "rejected": [],
    "deadline": …, "sum": {"recorded_at": …, "timeout_seconds": 360.0, "slack_seconds": 180.0,
    "expires_at": …, "problem": ""}, "stored_deadline": …, "next": …, "problems": []}. Without
    a timeout "problem" in "sum" says why, and its other members but "recorded_at" are null.

    Exit codes: 0 the run has a row; 1 it has none; 64 a wrong option; 65 the database is damaged or
    none; 75 the database cannot be read just now; 78 it is not set up.
    """
    settings = chosen_settings(options)
    with open_of(settings).reader() as reader:
        found = reader.read(runs.find, result_id)
        search = _Search(settings, reader, result_id, found)
        search.run()
    members = search.members()
    click.echo(json_text(members) if as_json else _text(members))
    return EXIT_OK if found is not None else EXIT_PARTLY


class _Search:
    """Looks for the events of a run, and for what they come to."""

    def __init__(
        self, settings: Settings, reader: Reader, result_id: str, found: FoundRun | None
    ) -> None:
        self._settings = settings
        self._reader = reader
        self._result_id = result_id
        self._found = found
        self._place = Place([], [], 0, None)
        self._sum: Sum | None = None
        self._problems: list[str] = []

    def run(self) -> None:
        """Look; a broker that does not answer is a problem to be told of."""
        stored_at = _stored_at(self._found)
        try:
            with reading(self._settings, since=stored_at, problems=self._problems) as source:
                self._place = self._look(source, stored_at)
                self._sum = self._add_up(source)
        except (BrokerError, ConfigurationError) as error:
            self._problems.append(told(error))
        if self._found is None:
            self._place = self._place._replace(rejected=self._rejected())

    def _look(self, source: Reading, stored_at: int | None) -> Place:
        """Look through the stream, or of a row with its time, at that time alone."""
        events: list[Event] = []
        reaches_back = None
        with progress("searching", source.stream.expected) as bar:
            for page in source.stream.pages():
                reaches_back = reaches_back or format_instant(page[0].recorded_at)
                read = (read_event(message, self._result_id) for message in page)
                events += [event for event in read if event is not None]
                bar.advance(len(page))
                if len(events) >= _MOST_EVENTS:
                    break
                if stored_at is not None and page[-1].recorded_at > stored_at:
                    break
        return Place(events[:_MOST_EVENTS], [], source.settled, reaches_back)

    def _add_up(self, source: Reading) -> Sum | None:
        if self._found is not None:
            stored_at = _stored_at(self._found)
            job_id = self._found.run.job_id or ""
            return None if stored_at is None else add_up(source.manifests, job_id, stored_at)
        for event in self._place.events:
            if event.start is not None:
                manifest_id = event.start.manifest_id
                return add_up(source.manifests, manifest_id, event.message.recorded_at)
        return None

    def _rejected(self) -> list[int]:
        """Return the newest rejected events whose payload names the run."""
        named = self._result_id.encode("utf-8", "replace")
        ids = []
        for listed in islice(rejections.newest_first(self._reader, None), _MOST_REJECTED):
            stored = rejections.find(self._reader, listed.rejected_id)
            if stored is not None and named in stored.event.payload:
                ids.append(listed.rejected_id)
        return ids[:_MOST_EVENTS]

    def members(self) -> Members:
        """Return all that was found."""
        found = self._found
        row: Members | None = None
        stored = None
        if found is not None:
            row = {
                **found.run._asdict(),
                "finished_at": found.finished_at,
                "reaped": found.reaped,
            }
            stored = compared(found.run, self._sum) if self._sum is not None else None
        is_known = found is not None or not self._problems or self._place.rejected
        after = next_of_row(found, time.time_ns()) if found else next_without_row(self._place)
        return {
            "result_id": self._result_id,
            "row": row,
            "events": [_event_members(event) for event in self._place.events],
            "rejected": self._place.rejected,
            "deadline": str(self._sum) if self._sum is not None else None,
            "sum": _sum_members(self._sum) if self._sum is not None else None,
            "stored_deadline": stored,
            "next": after if is_known or self._place.events else "unknown without the broker",
            "problems": self._problems,
        }


def _stored_at(found: FoundRun | None) -> int | None:
    """Return when the event of a row was stored; None if there is no such time in it."""
    if found is None:
        return None
    try:
        return parse_stored(found.run.recorded_at)
    except ValueError:  # written by another program
        return None


def _sum_members(today: Sum) -> Members:
    return {
        "recorded_at": format_instant(today.recorded_at),
        "timeout_seconds": None if today.timeout is None else today.timeout / NANOSECONDS,
        "slack_seconds": None if today.slack is None else today.slack / NANOSECONDS,
        "expires_at": today.expires_at,
        "problem": today.problem,
    }


def _event_members(event: Event) -> Members:
    message, start = event.message, event.start
    members: Members = {
        "stream_sequence": message.stream_sequence,
        "subject": message.subject,
        "recorded_at": format_instant(message.recorded_at),
    }
    if start is None:
        return {**members, "problem": event.problem}
    return {**members, **start._asdict(), "started_at": format_instant(start.started_at)}


def _text(members: Members) -> str:
    parts = [f"problem: {safe(problem)}" for problem in members["problems"]]
    row = members["row"]
    names = {name: name.replace("_", " ") for name in Run._fields}
    if row is None:
        parts.append("no row in execution_results")
    else:
        shown = {names.get(name, name.replace("_", " ")): value for name, value in row.items()}
        parts.append(paragraph("row in execution_results", shown))
    for event in members["events"]:
        sequence = event.pop("stream_sequence")
        shown = {name.replace("_", " "): value for name, value in event.items()}
        parts.append(paragraph(f"event at stream sequence {sequence}", shown))
    if not members["events"]:
        parts.append("no event of it in the stream" + (" (any more)" if row else ""))
    if members["rejected"]:
        parts.append(f"rejected events that name it: {', '.join(map(str, members['rejected']))}")
    shown = {"today": members["deadline"], "in the row": members["stored_deadline"]}
    if any(shown.values()):
        parts.append(paragraph("deadline", shown))
    parts.append(f"next: {safe(members['next'])}")
    return "\n".join(parts)
