"""Rejected events for a person who puts them right: which ones, in which pages, and again.

Everything goes in pages that are bounded in rows and bytes, and no transaction stays open between
two of them: the worker beside it never waits for long.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from repo import rejected as rejected_events
from repo.reader import Reader
from repo.rejected import AFTER_ALL, Listed, RejectedEvent
from repo.repository import Repository
from worker.codec.timestamps import parse_stored
from worker.messages import Message
from worker.processing.processor import Projection
from worker.projections.manifests import ManifestCache
from worker.status.counters import Counters

PAGE_ROWS = 500
_PAGE_BYTES = 8 * 1024 * 1024

WRITTEN = "written"
REJECTED = "rejected"
UNKNOWN = "unknown"


class Stored(NamedTuple):
    """A rejected event and its id."""

    rejected_id: int
    event: RejectedEvent


class Outcome(NamedTuple):
    """What became of a rejected event: one of the three words above, and why it is rejected."""

    rejected_id: int
    outcome: str
    reason: str = ""


def newest_first(reader: Reader, reason: str | None) -> Iterator[Listed]:
    """Yield the rejected events, without payloads, whose reason contains `reason` as it is."""
    before = AFTER_ALL
    while page := reader.read(rejected_events.list_before, before, PAGE_ROWS):
        yield from (listed for listed in page if reason is None or reason in listed.reason)
        before = page[-1].rejected_id


def select(reader: Reader, reason: str | None) -> list[int]:
    """Return the ids of the events whose reason contains `reason`, in the order they came in."""
    return [listed.rejected_id for listed in newest_first(reader, reason)][::-1]


def find(reader: Reader, rejected_id: int) -> Stored | None:
    """Return one rejected event, or None if there is none of this id."""
    event = reader.read(rejected_events.find, rejected_id)
    return None if event is None else Stored(rejected_id, event)


def pages(reader: Reader, ids: Iterable[int], unknown: list[int]) -> Iterator[list[Stored]]:
    """Yield the events of these ids, a transaction's worth at a time.

    Ids that are not there are added to `unknown`.
    """
    page: list[Stored] = []
    size = 0
    for rejected_id in ids:
        stored = find(reader, rejected_id)
        if stored is None:
            unknown.append(rejected_id)
            continue
        page.append(stored)
        size += len(stored.event.payload)
        if len(page) == PAGE_ROWS or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


class Retry:
    """Has rejected events projected again."""

    def __init__(
        self, repository: Repository, manifests: ManifestCache, counters: Counters
    ) -> None:
        self._repository = repository
        self._manifests = manifests
        self._counters = counters
        self._projections: dict[str, Projection] = {}

    def project(self, page: list[Stored]) -> Iterator[Outcome]:
        """Project a page, one transaction for each stream in it, and tell what became of each.

        Raises RepositoryError; what was told before is committed then, and nothing else changed.
        """
        readable: dict[str, list[tuple[Stored, Message]]] = {}
        for stored in page:
            try:
                message = _message(stored.event)
            except ValueError as error:
                yield Outcome(stored.rejected_id, REJECTED, f"its recorded_at: {error}")
            else:
                readable.setdefault(stored.event.stream, []).append((stored, message))
        for stream, events in readable.items():
            yield from self._project(self._projection(stream), events)

    def _project(
        self, projection: Projection, events: list[tuple[Stored, Message]]
    ) -> Iterator[Outcome]:
        rewritten = projection.project_again([message for _, message in events], self._repository)
        for (rejected_id, event), _ in events:
            if event.key in rewritten.removed:
                yield Outcome(rejected_id, WRITTEN)
            elif event.key in rewritten.refused:
                yield Outcome(rejected_id, REJECTED, rewritten.refused[event.key])
            else:
                yield Outcome(rejected_id, UNKNOWN)  # somebody else was faster

    def _projection(self, stream: str) -> Projection:
        # The stream is the event's own, whatever stream a worker of these settings would read.
        if stream not in self._projections:
            self._projections[stream] = Projection(stream, self._manifests, self._counters)
        return self._projections[stream]


def _message(event: RejectedEvent) -> Message:
    """Return the message as it once came; raises ValueError if its time is not of this program."""
    return Message(
        subject=event.subject,
        payload=event.payload,
        stream_sequence=event.stream_sequence,
        delivery=1,
        recorded_at=parse_stored(event.recorded_at),
    )
