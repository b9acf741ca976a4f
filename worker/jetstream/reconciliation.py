"""Do the database and the broker belong together? What their figures say of it. Pure.

A consumer's position lives on the broker, the rows live in a file. Where the file is new, or older
than the consumer, the broker would go on from where it was, and history would silently be missing.
"""

from concurrent.futures import Future
from dataclasses import dataclass, replace
from enum import Enum
from typing import Protocol

from repo.checkpoint import Checkpoint, StoredCheckpoint


class Records(Protocol):
    """The checkpoint in the database, behind the threads that may touch it.

    Both raise DatabaseUnavailable where nothing can be written for now.
    """

    def recall(self) -> Future[StoredCheckpoint]:
        """Return what the database knows."""

    def begin(self, checkpoint: Checkpoint, recalled: StoredCheckpoint) -> Future[None]:
        """Put a checkpoint into the file that was recalled from; batches may be written then."""


class Case(Enum):
    """What the figures look like; the worst is to be confirmed by a look into the stream."""

    IN_STEP = "in step"
    NEW = "new"
    ADOPTED = "rows without a checkpoint"
    WIPED = "a new or wiped file"
    OLDER = "an older file"


@dataclass(frozen=True, slots=True)
class Footing:
    """Where the broker stands: the stream, and the consumer on it. Sequences are the stream's.

    `stream_created_at` is stored text. Everything up to `floor` is settled, and nothing above
    `settled`, if the consumer `has_delivered` at all; one that was made to begin later counts what
    it skips as settled, and what expires or is purged counts as well. Up to `delivered` messages
    were handed out, `ack_pending` of which are not settled.
    """

    stream_created_at: str
    first_sequence: int
    has_delivered: bool
    floor: int
    settled: int
    delivered: int = 0
    ack_pending: int = 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """A case, and the sequences that it is about.

    If the stream holds a start above `known`, up to `until`, it was settled and is not in the file:
    every start above `caught_up_to` has to be replayed then. `stream_recreated` tells that the
    checkpoint was of a stream that is no more.
    """

    case: Case
    known: int
    caught_up_to: int
    until: int
    stream_recreated: bool = False

    @property
    def is_suspect(self) -> bool:
        """Tell whether a start may be missing; only the stream can say whether one is."""
        return self.until > self.known

    def is_missing(self, start: int | None) -> bool:
        """Tell whether a start is missing, from the sequence of the first one above `known`."""
        return start is not None and start <= self.until

    def needs_a_count(self, footing: Footing) -> bool:
        """Tell whether starts may have been settled out of order, above a floor that lags.

        So they were, if more of them were handed out above `known` than are ack_pending.
        """
        return self.case is Case.IN_STEP and self.known < footing.delivered

    def found_older(self, footing: Footing) -> "Comparison":
        """Return the comparison after a count that found starts missing."""
        return replace(self, case=Case.OLDER, until=footing.delivered)

    def gone(self, footing: Footing) -> int:
        """Return how many sequences that a replay would begin with the stream holds no more."""
        return max(0, footing.first_sequence - 1 - self.caught_up_to)

    def checkpoint(self, footing: Footing, now: str, *, missing: bool) -> Checkpoint:
        """Return the checkpoint to begin with; `now` is stored text.

        With nothing missing all that the broker counts as settled is in the file.
        """
        settled = 0 if missing else footing.floor
        highest = self.known if self.case is not Case.ADOPTED else settled
        return Checkpoint(footing.stream_created_at, highest, max(self.caught_up_to, settled), now)


def compare(recalled: StoredCheckpoint, footing: Footing) -> Comparison:
    """Compare what the database knows with where the broker stood before that was asked.

    In that order, a worker beside this one cannot make the broker look farther than the database.
    """
    checkpoint = recalled.checkpoint
    created, ours = recalled.committed
    if created != footing.stream_created_at:
        ours = 0
    if checkpoint is None:
        if ours:
            return Comparison(Case.WIPED, 0, 0, until=max(ours, footing.settled))
        if recalled.has_rows:
            return Comparison(Case.ADOPTED, 0, 0, until=0)
        # Every worker puts a checkpoint before its first pull: what is settled was committed to
        # another file.
        if footing.has_delivered:
            return Comparison(Case.WIPED, 0, 0, until=footing.settled)
        return Comparison(Case.NEW, 0, 0, until=0)
    if checkpoint.stream_created_at != footing.stream_created_at:
        return _compared(0, 0, footing, stream_recreated=True)
    known = max(checkpoint.highest_sequence, checkpoint.caught_up_to)
    return _compared(known, checkpoint.caught_up_to, footing, ours)


def _compared(
    known: int,
    caught_up_to: int,
    footing: Footing,
    ours: int = 0,
    *,
    stream_recreated: bool = False,
) -> Comparison:
    until = max(footing.floor, ours)
    case = Case.OLDER if until > known else Case.IN_STEP
    return Comparison(case, known, caught_up_to, until, stream_recreated)
