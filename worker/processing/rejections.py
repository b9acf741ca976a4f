"""Find rejected events and project them again, for commands that run beside a worker.

Pages are bounded in rows and bytes, and no transaction stays open between two pages, so the worker
never waits long for a lock.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

from repo import rejected as rejected_events
from repo.batch_writer import WriteResult
from repo.reader import Reader
from repo.rejected import AFTER_ALL, Key, Listed, RejectedEvent
from repo.repository import Repository
from worker.codec.jsontext import parse_json
from worker.codec.timestamps import parse_stored
from worker.messages import Fetch, Message
from worker.processing.processor import BatchProcessor

_PAGE_ROWS = 500
_PAGE_BYTES = 8 * 1024 * 1024

# The subject of a start: events.started.<execution>.<PC>.
_STARTS = "events.started."
_TOKENS_BEFORE_PC = 3

# Outcomes of a retry.
WRITTEN = "written"
REJECTED = "rejected"
UNKNOWN = "unknown"


Complete = Callable[[Sequence[Message], Mapping[Message, Fetch]], Iterator[list[Message]]]
"""Yields all messages in groups, in their order, with the objects that some of them name."""


@dataclass(frozen=True, slots=True)
class Destination:
    """How the events of one stream are projected: as fresh messages are."""

    processor: BatchProcessor
    repository: Repository[Any]
    complete: Complete


class Filters(NamedTuple):
    """Which rejected events: None lets every event through.

    `reason` is contained in theirs, literally; `since` is stored text.
    """

    reason: str | None = None
    pc_id: str | None = None
    since: str | None = None


class Outcome(NamedTuple):
    """The outcome of a retry; `reason` is why the event is still rejected."""

    rejected_id: int
    outcome: str
    reason: str | None = None


def newest_first(reader: Reader, filters: Filters) -> Iterator[Listed]:
    """Yield the rejected events that match every filter, without their payloads."""
    before = AFTER_ALL
    while page := reader.read(rejected_events.list_before, before, _PAGE_ROWS):
        yield from (listed for listed in page if _matches(reader, listed, filters))
        before = page[-1].rejected_id


def _matches(reader: Reader, listed: Listed, filters: Filters) -> bool:
    return (
        (filters.reason is None or filters.reason in listed.reason)
        and (filters.since is None or listed.rejected_at >= filters.since)
        and (filters.pc_id is None or filters.pc_id == pc_of(reader, listed))
    )


def pc_of(reader: Reader, listed: Listed) -> str | None:
    """Return the PC that an event came from, if it names one.

    The subject of a start ends in it; for any other event its payload is read.
    """
    parts = listed.subject.split(".", _TOKENS_BEFORE_PC)
    if listed.subject.startswith(_STARTS) and len(parts) > _TOKENS_BEFORE_PC:
        return parts[-1]
    event = reader.read(rejected_events.find, listed.rejected_id)
    try:
        pc_id = parse_json(event.payload)["pc_id"] if event is not None else None
    except (ValueError, TypeError, KeyError):
        return None
    return pc_id if isinstance(pc_id, str) else None


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
    reader: Reader, ids: Iterable[int], destination: Callable[[str], Destination]
) -> Iterator[Outcome]:
    """Project events again, in transactions of one stream each; yield the outcome of each event.

    `destination` returns that of a stream. Raises RepositoryError, and BrokerError where an object
    cannot be fetched; the transactions of the outcomes yielded so far are committed then, and
    nothing else has changed.
    """
    unknown: list[int] = []
    for page in pages(reader, ids, unknown):
        # By stream: that of the event, not that of the settings.
        messages: dict[str, dict[int, Message]] = {}
        for rejected_id, event in page.items():
            try:
                messages.setdefault(event.stream, {})[rejected_id] = _message(event)
            except ValueError as error:
                yield Outcome(rejected_id, REJECTED, f"its recorded_at: {error}")
        for stream, chosen in messages.items():
            keys = {rejected_id: page[rejected_id].key for rejected_id in chosen}
            yield from _retry(reader, chosen, keys, destination(stream))
    yield from (Outcome(rejected_id, UNKNOWN) for rejected_id in unknown)


def _retry(
    reader: Reader, chosen: Mapping[int, Message], keys: Mapping[int, Key], to: Destination
) -> Iterator[Outcome]:
    messages = list(chosen.values())
    missing = to.processor.missing_objects(messages, reader)
    ids = iter(chosen)
    for group in to.complete(messages, missing):
        written = to.processor.retry(group, to.repository)
        for rejected_id in islice(ids, len(group)):
            yield _outcome(rejected_id, keys[rejected_id], written)


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
