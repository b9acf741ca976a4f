"""Find rejected events and project them again, for commands that run beside a worker.

Pages are bounded in rows and bytes, and no transaction stays open between two pages, so the worker
never waits long for a lock.
"""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from repo import rejected as rejected_events
from repo.batch_writer import WriteResult
from repo.execution_results import Run
from repo.reader import Reader
from repo.rejected import AFTER_ALL, Key, Listed, RejectedEvent
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


def pages(
    reader: Reader, ids: Iterable[int], unknown: list[int]
) -> Iterator[dict[int, RejectedEvent]]:
    """Yield the events of these ids in pages that fit one transaction.

    Ids that do not exist are appended to `unknown`.
    """
    page: dict[int, RejectedEvent] = {}
    size = 0
    for rejected_id in ids:
        event = reader.read(rejected_events.find, rejected_id)
        if event is None:
            unknown.append(rejected_id)
            continue
        page[rejected_id] = event
        size += len(event.payload)
        if len(page) == _PAGE_ROWS or size >= _PAGE_BYTES:
            yield page
            page, size = {}, 0
    if page:
        yield page


def retry(
    reader: Reader,
    ids: Iterable[int],
    repository: Repository[Run],
    manifests: ManifestCache,
    counters: Counters,
) -> Iterator[Outcome]:
    """Project events again, in one transaction per page and stream; yield the outcome of each.

    Raises RepositoryError; the transactions of the outcomes yielded so far are committed then, and
    nothing else has changed.
    """
    unknown: list[int] = []
    # By stream: that of the event, not that of the settings.
    processors: dict[str, BatchProcessor] = {}
    for page in pages(reader, ids, unknown):
        messages: dict[str, dict[int, Message]] = {}
        for rejected_id, event in page.items():
            try:
                messages.setdefault(event.stream, {})[rejected_id] = _message(event)
            except ValueError as error:
                yield Outcome(rejected_id, REJECTED, f"its recorded_at: {error}")
        for stream, chosen in messages.items():
            if stream not in processors:
                processors[stream] = BatchProcessor(STARTS, stream, manifests, counters)
            written = processors[stream].retry(list(chosen.values()), repository)
            for rejected_id in chosen:
                yield _outcome(rejected_id, page[rejected_id].key, written)
    yield from (Outcome(rejected_id, UNKNOWN) for rejected_id in unknown)


def _outcome(rejected_id: int, key: Key, written: WriteResult) -> Outcome:
    if key in written.removed:
        return Outcome(rejected_id, WRITTEN)
    if key in written.still_rejected:
        return Outcome(rejected_id, REJECTED, written.still_rejected[key])
    return Outcome(rejected_id, UNKNOWN)  # another command removed it meanwhile


def _message(event: RejectedEvent) -> Message:
    """Return the original message; raises ValueError if `recorded_at` is not in stored form."""
    stored_at = parse_stored(event.recorded_at)
    return Message(event.subject, event.payload, event.stream_sequence, 1, stored_at)
