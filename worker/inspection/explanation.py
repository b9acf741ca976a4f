"""Why does a run look as it does? What the stream, the row and the manifest say together. Pure."""

from typing import NamedTuple

from repo.execution_results import Run
from repo.queries import FoundRun
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.messages import Message
from worker.projections.deadline import LEAST_SLACK, deadline
from worker.projections.manifests import ManifestCache, NoTimeout
from worker.projections.starts import EventStarted, MalformedEvent, decode_start


class Event(NamedTuple):
    """A message that is of the run, or at least names it: `problem` is why it is no start then."""

    message: Message
    start: EventStarted | None
    problem: str = ""


class Sum(NamedTuple):
    """A deadline as it is computed today, from nanoseconds; or why there is none."""

    recorded_at: int
    timeout: int | None
    expires_at: str | None
    problem: str = ""

    @property
    def slack(self) -> int | None:
        """What is added to the timeout."""
        return None if self.timeout is None else max(LEAST_SLACK, self.timeout // 2)

    def __str__(self) -> str:
        if self.timeout is None or self.slack is None:
            return f"none can be computed: {self.problem}"
        return (
            f"{format_instant(self.recorded_at)} + timeout {_seconds(self.timeout)} + slack "
            f"{_seconds(self.slack)} (half the timeout, at least 120 s) = {self.expires_at}"
        )


class Place(NamedTuple):
    """Where the search for a run without a row ended up.

    `settled` is the sequence up to which all is settled, `reaches_back` when the oldest event of
    the stream was stored, as text, and `rejected` the ids of rejected events that name the run.
    """

    events: list[Event]
    rejected: list[int]
    settled: int
    reaches_back: str | None


def read_event(message: Message, result_id: str) -> Event | None:
    """Return a message as an event of the run, or None if it is of another."""
    try:
        start = decode_start(message.payload)
    except MalformedEvent as error:
        names_it = bool(result_id) and result_id.encode("utf-8", "replace") in message.payload
        return Event(message, None, str(error)) if names_it else None
    return Event(message, start) if start.result_id == result_id else None


def add_up(manifests: ManifestCache, manifest_id: str, recorded_at: int) -> Sum:
    """Return the deadline that the manifest of today gives."""
    timeout = manifests.timeout(manifest_id)
    if isinstance(timeout, NoTimeout):
        problem = f"{timeout.reason.replace('_', ' ')} {timeout.problem}".strip()
        return Sum(recorded_at, None, None, problem)
    expires_at = format_instant(deadline(recorded_at, timeout.nanoseconds))
    return Sum(recorded_at, timeout.nanoseconds, expires_at)


def compared(run: Run, today: Sum) -> str:
    """Return how the row's deadline stands to the one of today's manifest."""
    if run.expires_at == today.expires_at:
        return "as the manifest of today gives it"
    if run.expires_at is None:
        return "none: the manifest was not known when the start was projected; it stays so"
    if today.expires_at is None:
        return "of the manifest as it was when the start was projected"
    return "not as the manifest of today gives it, which was another one then; it stays so"


def next_of_row(found: FoundRun, now: int) -> str:
    """Return what will happen to a run that has a row; `now` in nanoseconds."""
    if found.finished_at is not None:
        how = "it was given up after its deadline" if found.reaped else "its result came"
        return f"nothing: {how}, at {found.finished_at}"
    if found.run.expires_at is None:
        return "it has no deadline: nothing but its result ends it"
    try:
        left = parse_stored(found.run.expires_at) - now
    except ValueError:
        return "its deadline is no time of this program's: who wrote it?"
    if left < 0:
        return f"its deadline passed {_seconds(-left)} ago: it may be given up at any moment"
    return f"unless its result comes, it may be given up in {_seconds(left)}"


def next_without_row(place: Place) -> str:
    """Return what will happen about a run that has no row."""
    if place.rejected:
        return f"a person decides: projector rejected show {place.rejected[0]}"
    if not place.events:
        since = f", which reaches back to {place.reaches_back}," if place.reaches_back else ""
        return (
            f"nothing: the stream{since} holds no such event; the agent has not sent it yet, or it "
            "has expired, or the result_id is another one"
        )
    if all(event.message.stream_sequence > place.settled for event in place.events):
        return "it is not settled: a worker projects it as soon as it is delivered"
    if all(event.start is None for event in place.events):
        return "nothing: it is no start, and was discarded from the rejected events"
    return "nothing: it is settled, and its row is missing; projector rebuild brings it back"


def _seconds(nanoseconds: int) -> str:
    return f"{round(nanoseconds / NANOSECONDS, 3):,.10g} s"
