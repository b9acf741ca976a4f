"""The table checkpoints: how far a consumer's messages are committed in this very database."""

import threading
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from repo import Connection
from repo.errors import UnavailableError
from repo.statements import statement

_READ = statement("read_checkpoint")
_HAS_ROWS = statement("has_rows")
_PUT = statement("put_checkpoint")
_ADVANCE = statement("advance_checkpoint")


class Checkpoint(NamedTuple):
    """How far one stream's messages are committed. Times are stored text.

    Everything at or below `caught_up_to` is; above `highest_sequence` nothing is known to be.
    """

    stream_created_at: str
    highest_sequence: int
    caught_up_to: int
    committed_at: str


NO_CHECKPOINT = Checkpoint("", 0, 0, "")
"""Reached by a batch that belongs to no position in a stream."""


class Position(NamedTuple):
    """The stream and the consumer that a checkpoint belongs to."""

    stream: str
    consumer: str


class Committed(NamedTuple):
    """How far this process has committed a stream, in any database; the time is stored text."""

    stream_created_at: str = ""
    sequence: int = 0


class StoredCheckpoint(NamedTuple):
    """What the database holds before a pull, and the place that it was read in."""

    checkpoint: Checkpoint | None
    has_rows: bool
    place: Hashable
    committed: Committed = Committed()


class CheckpointGuard:
    """Which database this process has verified, and how far it has committed.

    Shared by all threads. Nothing is written before `begin`, nor to any other database afterwards.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self.committed = Committed()
        self._lock = threading.Lock()
        self._place: Hashable = None

    def begin(self, place: Hashable, checkpoint: Checkpoint) -> None:
        """Accept writes to a database from now on, with the checkpoint that was put into it."""
        with self._lock:
            self._place = place
            self.committed = Committed(checkpoint.stream_created_at, checkpoint.highest_sequence)

    @contextmanager
    def transaction(self, connection: Connection, reached: Checkpoint) -> Iterator[None]:
        """Commit the body together with the checkpoint that it reaches.

        Raises UnavailableError for a database that was not compared with the broker, and for a
        checkpoint behind what this process has committed: an older copy was restored into the open
        database. A late batch of a former stream advances nothing.
        """
        if self._place != connection.place:
            raise UnavailableError(
                "refusing to write: the database has not been compared with the broker"
            )
        with connection.write():
            yield
            sequence = self._advance(connection, reached)
        with self._lock:
            created, highest = self.committed
            if reached.stream_created_at == created:
                self.committed = Committed(created, max(highest, sequence))

    def _advance(self, connection: Connection, reached: Checkpoint) -> int:
        """Advance the checkpoint in the database; return its new sequence."""
        created, highest, caught_up_to, now = reached
        committed = self.committed
        if created != committed.stream_created_at:
            return 0
        values = (highest, caught_up_to, now, *self.position, *committed)
        if advanced := connection.fetch(_ADVANCE, values):
            return int(advanced[0][0])
        found = connection.fetch(_READ, self.position)
        # Another worker may have reset it for a stream that was created later.
        if not found or found[0][0] <= created:
            raise UnavailableError(
                "the checkpoint went back: an older copy was restored into the open database"
            )
        return 0


def recall(connection: Connection, position: Position) -> StoredCheckpoint:
    """Return a checkpoint, or None, and whether any run or rejected event exists."""
    found = connection.fetch(_READ, position)
    checkpoint = Checkpoint(*found[0]) if found else None
    has_rows = checkpoint is not None or bool(connection.fetch(_HAS_ROWS)[0][0])
    return StoredCheckpoint(checkpoint, has_rows, connection.place)


def put(connection: Connection, position: Position, checkpoint: Checkpoint) -> Checkpoint:
    """Insert or advance a checkpoint inside a transaction; return it as it is then.

    For the same stream it only moves forward.
    """
    connection.execute(_PUT, (*position, *checkpoint))
    return Checkpoint(*connection.fetch(_READ, position)[0])
