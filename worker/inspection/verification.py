"""Compares every message of a stream with the database. Reads only."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from repo import queries
from repo.reader import Reader
from repo.rejected import RejectedEvent
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.projections.base import Differences, Projection
from worker.projections.manifests import ManifestCache
from worker.projections.starts import (
    DEADLINE_CHANGED,
    DEADLINE_MISSING,
    DIFFERENT,
    EQUAL,
    EXISTING,
)
from worker.status.counters import Counters

# A row's own outcomes are the projection's; these are of messages without a row.
REJECTED = "rejected"  # kept in rejected_events
PENDING = "pending"  # not in the database: not acked yet, or above a message that is not
DISCARDED = "discarded"  # malformed, acked, and not in rejected_events any more
MISSING = "missing"
OUTCOMES = (
    *(EQUAL, REJECTED, PENDING, EXISTING, DEADLINE_CHANGED, DEADLINE_MISSING, DISCARDED),
    *(DIFFERENT, MISSING),
)
WRONG = (DIFFERENT, MISSING)


class Verdict(NamedTuple):
    """One message: its outcome, its row's id, and each column that differs, expected and found."""

    outcome: str
    stream_sequence: int
    result_id: str | None
    columns: Differences


class Verification:
    """Compares pages of a stream with the database.

    `ack_floor` is the stream sequence up to which everything was acked before the first read.
    """

    def __init__(
        self,
        reader: Reader,
        projection: Projection[Any, Any],
        stream: str,
        ack_floor: int,
        manifests: ManifestCache,
        *,
        deadlines: bool = True,
    ) -> None:
        self._reader = reader
        self._projection = projection
        self._ack_floor = ack_floor
        self._manifests = manifests
        self._deadlines = deadlines
        self._processor = BatchProcessor(projection, stream, manifests, Counters())

    def verify(self, page: Sequence[Message]) -> Iterator[Verdict]:
        """Yield a verdict for each message of a page; raises RepositoryError."""
        prepared = self._processor.prepare(page)
        for event in prepared.rejected:
            outcome = self._without_row(event, DISCARDED)
            yield Verdict(outcome, event.stream_sequence, None, {})
        for row, message in zip(prepared.rows, prepared.sources, strict=True):
            yield self._verify_row(row, message)

    def _verify_row(self, row: Any, message: Message) -> Verdict:
        projection, sequence = self._projection, message.stream_sequence
        key = projection.key(row)
        found = self._reader.read(projection.find, key)
        if found is None:
            outcome = self._without_row(self._processor.rejected(message, ""), MISSING)
            return Verdict(outcome, sequence, key, {})
        comparison = projection.compare(row, found, self._manifests, self._deadlines)
        return Verdict(comparison.outcome, sequence, key, comparison.columns)

    def _without_row(self, event: RejectedEvent, otherwise: str) -> str:
        """Return the outcome of a message that has no row."""
        if self._reader.read(queries.rejection_reason, event.key) is not None:
            return REJECTED
        return PENDING if event.stream_sequence > self._ack_floor else otherwise
