"""The table checkpoints: how far a consumer's messages are in this very database."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from repo import Connection
from repo.errors import UnavailableError
from repo.statements import statement

_READ = statement("read_checkpoint")
_PUT = statement("put_checkpoint")
_ADVANCE = statement("advance_checkpoint")
_RECORD_LOST = statement("record_lost_sequences")


class Checkpoint(NamedTuple):
    """How far one stream's messages are in a database. Times are stored text.

    Every message of the projection at or below `caught_up_to` is in it. `last_sequence` and
    `last_stored_at` name one message that the stream held: a sequence alone proves nothing, since a
    stream that went back uses sequences twice.
    """

    stream_created_at: str
    caught_up_to: int = 0
    last_sequence: int = 0
    last_stored_at: str = ""
    committed_at: str = ""


NO_CHECKPOINT = Checkpoint("")
"""Reached by a batch that belongs to no position in a stream."""


class Lost(NamedTuple):
    """How many sequences were lost in all, the last one, and when that was noticed."""

    sequences: int
    up_to: int
    at: str | None


class Stored(NamedTuple):
    """The row, and the place that it was written in."""

    checkpoint: Checkpoint
    place: str
    commits: int
    lost: Lost


class Recalled(NamedTuple):
    """The row, or None, and the place that it was read in."""

    stored: Stored | None
    place: str


class Position(NamedTuple):
    """The stream and the consumer that a checkpoint belongs to."""

    stream: str
    consumer: str


class CheckpointGuard:
    """Which database this process has begun with, and how often that was committed to.

    Shared by all threads. Nothing is written before `begin`, nor to any other database afterwards:
    the row, which names its place, decides.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self._lock = threading.Lock()
        self._created_at = ""
        self._commits: int | None = None

    def begin(self, connection: Connection, checkpoint: Checkpoint) -> None:
        """Put a checkpoint into a database, inside a transaction, and accept writes there."""
        values = (*self.position, *checkpoint, connection.place)
        commits = int(connection.fetch(_PUT, values)[0][0])
        with self._lock:
            self._created_at, self._commits = checkpoint.stream_created_at, commits

    @contextmanager
    def transaction(self, connection: Connection, reached: Checkpoint) -> Iterator[None]:
        """Commit the body together with the checkpoint that it reaches.

        Raises UnavailableError in a database that this process has not begun with, or that went
        back behind what it committed. A late batch of a former stream advances nothing.
        """
        with connection.write():
            yield
            created_at, seen = self._created_at, self._commits
            if seen is None:
                raise UnavailableError("refusing to write: the checkpoint has not been read")
            if reached.stream_created_at != created_at:
                reached = NO_CHECKPOINT
            commits = self._advance(connection, reached, created_at, seen)
        with self._lock:
            if self._created_at == created_at and self._commits is not None:
                self._commits = max(self._commits, commits)

    def _advance(
        self, connection: Connection, reached: Checkpoint, created_at: str, seen: int
    ) -> int:
        _, caught_up_to, sequence, stored_at, now = reached
        values = {
            "caught_up_to": caught_up_to,
            "last_sequence": sequence,
            "last_stored_at": stored_at,
            "committed_at": now,
            **self.position._asdict(),
            "stream_created_at": created_at,
            "place": connection.place,
            "commits_seen": seen,
        }
        advanced = connection.fetch(_ADVANCE, values)
        if advanced:
            return int(advanced[0][0])
        found = read(connection, self.position)
        # Another worker may have reset it for a stream that was created later.
        if (
            found is None
            or found.place != connection.place
            or found.checkpoint.stream_created_at <= created_at
        ):
            raise UnavailableError(
                "the database is not the one that was caught up, or an older copy was restored "
                "into it"
            )
        return 0


def read(connection: Connection, position: Position) -> Stored | None:
    """Return the row of a stream and a consumer, or None."""
    found = connection.fetch(_READ, position)
    if not found:
        return None
    place, commits, *lost = found[0][5:]
    return Stored(Checkpoint(*found[0][:5]), place, commits, Lost(*lost))


def record_lost(connection: Connection, position: Position, lost: Lost) -> None:
    """Add lost sequences to the row, inside a transaction."""
    connection.execute(_RECORD_LOST, (*lost, *position))
