"""Compares every message of a stream with the database. Reads only."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from repo import queries
from repo.reader import Reader
from repo.rejected import RejectedEvent
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.projections.base import Differences
from worker.projections.manifests import ManifestCache
from worker.projections.starts import DEADLINE_CHANGED, DEADLINE_MISSING, DIFFERENT, EQUAL, EXISTING

# A row's own outcomes are the projection's; these are of messages without a row.
REJECTED = "rejected"  # kept in rejected_events
PENDING = "pending"  # not in the database: not acked yet, or above a message that is not
DISCARDED = "discarded"  # malformed, acked, and not in rejected_events any more
MARKER = "marker"  # the server's note of an expired message, which has no row of any kind
MISSING = "missing"
OUTCOMES = (
    *(EQUAL, REJECTED, PENDING, EXISTING, DEADLINE_CHANGED, DEADLINE_MISSING, DISCARDED),
    *(MARKER, DIFFERENT, MISSING),
)
WRONG = (DIFFERENT, MISSING)


class Verdict(NamedTuple):
    """One message: its outcome, its row's id, and each column that differs, expected and found."""

    outcome: str
    stream_sequence: int
    result_id: str | None
    columns: Differences


@dataclass(frozen=True, slots=True)
class Verification:
    """Compares pages of a stream with the database.

    `ack_floor` is the stream sequence up to which everything was acked before the first read.
    """

    reader: Reader
    processor: BatchProcessor
    manifests: ManifestCache
    ack_floor: int
    deadlines: bool

    def verify(self, page: Sequence[Message]) -> Iterator[Verdict]:
        """Yield a verdict for each message of a page; raises RepositoryError."""
        prepared = self.processor.prepare(page)
        for message in prepared.markers:
            yield Verdict(MARKER, message.stream_sequence, None, {})
        for event in prepared.rejected:
            outcome = self._without_row(event, DISCARDED)
            yield Verdict(outcome, event.stream_sequence, None, {})
        for row, message in zip(prepared.rows, prepared.sources, strict=True):
            yield self._verify_row(row, message)

    def _verify_row(self, row: Any, message: Message) -> Verdict:
        projection, sequence = self.processor.projection, message.stream_sequence
        key = projection.key(row)
        found = self.reader.read(projection.find, key)
        if found is None:
            outcome = self._without_row(self.processor.rejected(message, ""), MISSING)
            return Verdict(outcome, sequence, key, {})
        comparison = projection.compare(row, found, self.manifests, self.deadlines)
        return Verdict(comparison.outcome, sequence, key, comparison.columns)

    def _without_row(self, event: RejectedEvent, otherwise: str) -> str:
        """Return the outcome of a message that has no row."""
        if self.reader.read(queries.rejection_reason, event.key) is not None:
            return REJECTED
        return PENDING if event.stream_sequence > self.ack_floor else otherwise
