"""Explain a run from the streams, its row, its manifest and its execution. Pure."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

from repo.execution_results import Run
from repo.queries import FoundEnd, FoundRun
from repo.reports import Execution
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.messages import Message
from worker.projections.base import MalformedEvent
from worker.projections.deadline import LEAST_SLACK, deadline
from worker.projections.manifests import ManifestCache, NoTimeout
from worker.projections.results import EventResult
from worker.projections.starts import EventStarted


class Event(NamedTuple):
    """A message that belongs to the run, or contains its id but cannot be decoded (`problem`)."""

    message: Message
    decoded: EventStarted | EventResult | None
    problem: str | None = None


class Calculation(NamedTuple):
    """A deadline as computed today. Times are stored text; `problem` is why there is none."""

    recorded_at: str
    timeout_seconds: float | None = None
    slack_seconds: float | None = None
    expires_at: str | None = None
    problem: str | None = None

    def __str__(self) -> str:
        if self.timeout_seconds is None or self.slack_seconds is None:
            return f"cannot be computed: {self.problem}"
        return (
            f"{self.recorded_at} + timeout {_shown(self.timeout_seconds)} + slack "
            f"{_shown(self.slack_seconds)} (half the timeout, at least 120 s) = {self.expires_at}"
        )


@dataclass(slots=True)
class Evidence:
    """What a search for a run found.

    `events` are its starts. `rejected` holds the ids of rejected events that contain the run's id;
    `searched` says what was read, and `requests` are those of the starts that were. The ack floors
    are the consumers'; `is_searched` is whether the stream of starts was read, and `reaches_back`
    when the oldest event there was stored, as text. `execution` is the row of the execution that
    the run counts for; `now` is what the broker's clock shows, if known.
    """

    events: list[Event] = field(default_factory=list)
    results: list[Event] = field(default_factory=list)
    rejected: list[int] = field(default_factory=list)
    searched: list[str] = field(default_factory=list)
    requests: set[str] = field(default_factory=set)
    is_searched: bool = False
    ack_floor: int = 0
    results_ack_floor: int = 0
    execution: Execution | None = None
    reaches_back: str | None = None
    now: int | None = None
    calculation: Calculation | None = None
    problems: list[str] = field(default_factory=list)


def read_event(message: Message, decode: Callable[[bytes], EventStarted | EventResult]) -> Event:
    """Return a message decoded, or with the problem why it cannot be."""
    try:
        return Event(message, decode(message.payload))
    except MalformedEvent as error:
        return Event(message, None, str(error))


def is_of_run(event: Event, result_id: str) -> bool:
    """Return whether an event belongs to a run, or contains its id but cannot be decoded."""
    if event.decoded is None:
        return bool(result_id) and result_id.encode("utf-8", "replace") in event.message.payload
    return event.decoded.result_id == result_id


def calculate(manifests: ManifestCache, manifest_id: str, recorded_at: int) -> Calculation:
    """Return the deadline that the current manifest gives."""
    timeout, text = manifests.timeout(manifest_id), format_instant(recorded_at)
    if isinstance(timeout, NoTimeout):
        problem = f"{timeout.reason.replace('_', ' ')} {timeout.problem}".strip()
        return Calculation(text, problem=problem)
    nanoseconds = timeout.nanoseconds
    seconds, slack = nanoseconds / NANOSECONDS, max(LEAST_SLACK, nanoseconds // 2) / NANOSECONDS
    return Calculation(text, seconds, slack, format_instant(deadline(recorded_at, nanoseconds)))


def compare(run: Run, today: Calculation) -> str:
    """Compare the row's deadline with the one that the current manifest gives."""
    if run.expires_at == today.expires_at:
        return "matches the current manifest"
    if run.expires_at is None:
        return "none: it could not be computed when the event was projected"
    if today.expires_at is None:
        return "from the manifest at the time the event was projected"
    return (
        "differs from what the current manifest gives; `projector deadlines recompute` shows both"
    )


def counted_exec_id(found: FoundRun, end: FoundEnd, results: list[Event]) -> str | None:
    """Return the execution that a run counts for: its result's; if it was reaped, its row's."""
    decoded = results[0].decoded if results and end.has_result else None
    return decoded.exec_id if isinstance(decoded, EventResult) else found.run.exec_id


def counted(end: FoundEnd, exec_id: str | None, execution: Execution | None) -> str:
    """Return in which execution a run is counted, or why in none."""
    if end.finished_at is None:
        return "not yet: the run has not ended"
    if not exec_id:
        return "in no execution: the run names none"
    if execution is None:
        return f"in no execution: {exec_id} has no row"
    if execution.status in ("pending", "expired"):
        return (
            f"not yet: execution {exec_id} is {execution.status}, and its first count takes all "
            "runs that have ended"
        )
    how = "success" if end.exit_code == 0 else "failure"
    return (
        f"as a {how} in execution {exec_id}, which is {execution.status} with "
        f"{execution.success_count} successes and {execution.failure_count} failures of "
        f"{execution.target_count} targets"
    )


def lateness(found: FoundRun | None, results: list[Event]) -> str | None:
    """Return by how much the first result was stored after the deadline of the row, if it was."""
    if found is None or found.run.expires_at is None or not results:
        return None
    try:
        late = results[0].message.stored_at - parse_stored(found.run.expires_at)
    except ValueError:
        return None
    if late <= 0:
        return None
    text = f"its result was stored {_shown(late / NANOSECONDS)} after the deadline"
    if found.reaped or found.finished_at is None:
        return text
    return f"{text}; if the run had been given up, its success was moved"


def next_of_row(found: FoundRun, evidence: Evidence, now: int, whose: str) -> str:
    """Return what will happen to a run that has a row; `now` in nanoseconds since 1970.

    `whose` says by which clock, unless it is the broker's.
    """
    if found.finished_at is not None and not found.reaped:
        return f"nothing: the run ended at {found.finished_at}, by the agent's clock"
    if evidence.results:
        return _next_of_result(evidence)
    if found.reaped:
        return f"nothing: the run was reaped after its deadline, at {found.finished_at}"
    return _next_in_flight(found, now, whose)


def _next_in_flight(found: FoundRun, now: int, whose: str) -> str:
    if found.run.expires_at is None:
        return "the run has no deadline: it may be reaped a day after it was stored"
    try:
        left = (parse_stored(found.run.expires_at) - now) / NANOSECONDS
    except ValueError:
        return "unknown: another program wrote the deadline, which is not in the stored form"
    if left < 0:
        return (
            f"the deadline passed {_shown(-left)} ago{whose}: the run may be reaped at any moment"
        )
    return f"the run may be reaped in {_shown(left)}{whose} unless its result arrives"


def next_without_row(evidence: Evidence) -> str:
    """Return what will happen about a run that has no row."""
    if evidence.rejected:
        return _next_of_rejected(evidence)
    if evidence.results and not evidence.events:
        return _next_of_result(evidence)
    if not evidence.events:
        since = f", which reaches back to {evidence.reaches_back}," if evidence.reaches_back else ""
        return (
            f"nothing: the stream{since} holds no event of this run; the agent has not sent it "
            "yet, it has expired, or the result_id is wrong"
        )
    if all(event.message.stream_sequence > evidence.ack_floor for event in evidence.events):
        return "the event is not acked yet: a worker projects it when it is delivered"
    if all(event.decoded is None for event in evidence.events):
        return "nothing: the event cannot be decoded, and was discarded from the rejected events"
    return "nothing: the event was acked but its row is missing; projector rebuild restores it"


def _next_of_result(evidence: Evidence) -> str:
    """Return what will happen about a result that is in the stream and in no row."""
    if evidence.rejected:
        return _next_of_rejected(evidence)
    floor = evidence.results_ack_floor
    if any(event.message.stream_sequence > floor for event in evidence.results):
        return "the result is not acked yet: a worker projects it when it is delivered"
    if all(event.decoded is None for event in evidence.results):
        return "nothing: the result cannot be decoded, and was discarded from the rejected events"
    return "nothing: the result was acked but is in no row; projector rebuild writes it"


def _next_of_rejected(evidence: Evidence) -> str:
    return (
        "nothing until an operator retries or discards the rejected event: "
        f"projector rejected show {evidence.rejected[0]}"
    )


def _shown(seconds: float) -> str:
    return f"{round(seconds, 3):,.10g} s"
