"""Find rejected events and project them again, for commands that run beside a worker.

Pages are bounded in rows and bytes, and no transaction stays open between two pages, so the worker
never waits long for a lock.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from repo import rejected as rejected_events
from repo.execution_results import Run
from repo.reader import Reader
from repo.rejected import AFTER_ALL, Listed, RejectedEvent
from repo.repository import Repository
from worker.codec.timestamps import parse_stored
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.projections.manifests import ManifestCache
from worker.projections.starts import STARTS
from worker.status.counters import Counters

_PAGE_ROWS = 500
_PAGE_BYTES = 8 * 1024 * 1024

# Outcomes of a retry.
WRITTEN = "written"
REJECTED = "rejected"
UNKNOWN = "unknown"


class Stored(NamedTuple):
    """A rejected event and its id."""

    rejected_id: int
    event: RejectedEvent


class Outcome(NamedTuple):
    """The outcome of a retry; `reason` is why the event is still rejected."""

    rejected_id: int
    outcome: str
    reason: str | None = None


def newest_first(reader: Reader, reason: str | None) -> Iterator[Listed]:
    """Yield rejected events without their payloads, if their reason contains `reason` literally."""
    before = AFTER_ALL
    while page := reader.read(rejected_events.list_before, before, _PAGE_ROWS):
        yield from (listed for listed in page if reason is None or reason in listed.reason)
        before = page[-1].rejected_id


def select(reader: Reader, reason: str | None) -> list[int]:
    """Return the ids of the events whose reason contains `reason`, in order of arrival."""
    return [listed.rejected_id for listed in newest_first(reader, reason)][::-1]


def find(reader: Reader, rejected_id: int) -> Stored | None:
    """Return a rejected event, or None if the id does not exist."""
    event = reader.read(rejected_events.find, rejected_id)
    return None if event is None else Stored(rejected_id, event)


def pages(reader: Reader, ids: Iterable[int], unknown: list[int]) -> Iterator[list[Stored]]:
    """Yield the events of these ids in pages that fit one transaction.

    Ids that do not exist are appended to `unknown`.
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
        if len(page) == _PAGE_ROWS or size >= _PAGE_BYTES:
            yield page
            page, size = [], 0
    if page:
        yield page


class Retry:
    """Projects rejected events again."""

    def __init__(
        self, repository: Repository[Run], manifests: ManifestCache, counters: Counters
    ) -> None:
        self._repository = repository
        self._manifests = manifests
        self._counters = counters
        self._processors: dict[str, BatchProcessor] = {}

    def project(self, page: list[Stored]) -> Iterator[Outcome]:
        """Project a page in one transaction per stream, and yield the outcome of each event.

        Raises RepositoryError; the transactions of the outcomes yielded so far are committed then,
        and nothing else has changed.
        """
        by_stream: dict[str, list[tuple[Stored, Message]]] = {}
        for stored in page:
            try:
                message = _message(stored.event)
            except ValueError as error:
                yield Outcome(stored.rejected_id, REJECTED, f"its recorded_at: {error}")
            else:
                by_stream.setdefault(stored.event.stream, []).append((stored, message))
        for stream, events in by_stream.items():
            yield from self._project(self._processor(stream), events)

    def _project(
        self, processor: BatchProcessor, events: list[tuple[Stored, Message]]
    ) -> Iterator[Outcome]:
        rewritten = processor.retry([message for _, message in events], self._repository)
        for (rejected_id, event), _ in events:
            if event.key in rewritten.removed:
                yield Outcome(rejected_id, WRITTEN)
            elif event.key in rewritten.still_rejected:
                yield Outcome(rejected_id, REJECTED, rewritten.still_rejected[event.key])
            else:
                yield Outcome(rejected_id, UNKNOWN)  # another command removed it meanwhile

    def _processor(self, stream: str) -> BatchProcessor:
        # The stream is that of the event, not that of the settings.
        if stream not in self._processors:
            self._processors[stream] = BatchProcessor(
                STARTS, stream, self._manifests, self._counters
            )
        return self._processors[stream]


def _message(event: RejectedEvent) -> Message:
    """Return the original message; raises ValueError if `recorded_at` is not in stored form."""
    return Message(
        subject=event.subject,
        payload=event.payload,
        stream_sequence=event.stream_sequence,
        delivery=1,
        stored_at=parse_stored(event.recorded_at),
    )
