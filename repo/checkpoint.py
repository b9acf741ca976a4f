"""The table checkpoints: how far a consumer's messages are committed in this very file."""

import threading
from typing import NamedTuple

from repo.errors import UnavailableError
from repo.sqlite.database import Connection
from repo.sqlite.files import FileIdentity
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


class Position(NamedTuple):
    """The stream and the consumer that a checkpoint is of."""

    stream: str
    consumer: str


class Committed(NamedTuple):
    """How far this process has committed a stream, in whichever file; the time is stored text."""

    stream_created_at: str = ""
    sequence: int = 0


class StoredCheckpoint(NamedTuple):
    """What the database knows before a pull, and in which file it was read."""

    checkpoint: Checkpoint | None
    has_rows: bool
    file: FileIdentity
    committed: Committed = Committed()


class CheckpointGuard:
    """What this process has made sure of: which file it writes to, and how far it has come.

    Shared by all threads. Nothing is written before `begin`, nor to any other file afterwards.
    """

    def __init__(self, position: Position) -> None:
        self.position = position
        self._lock = threading.Lock()
        self._file: FileIdentity | None = None
        self._stream_created_at = ""
        self._highest_sequence = 0

    def begin(self, file: FileIdentity, checkpoint: Checkpoint) -> None:
        """Trust a file from now on, with the checkpoint that was put into it."""
        with self._lock:
            self._file = file
            self._stream_created_at = checkpoint.stream_created_at
            self._highest_sequence = checkpoint.highest_sequence

    @property
    def reached(self) -> Committed:
        """How far this process has come."""
        with self._lock:
            return Committed(self._stream_created_at, self._highest_sequence)

    def check(self, file: FileIdentity) -> None:
        """Raise UnavailableError for a file that was not compared with the broker."""
        with self._lock:
            if self._file != file:
                raise UnavailableError("the database file is another one than was compared")

    def advance(self, connection: Connection, reached: Checkpoint) -> int:
        """Move the checkpoint on, inside the batch's transaction, and return where it is then.

        Raises UnavailableError where it is not where this process left it, or farther on: the
        file's content went back. A late batch of a stream that is no more moves nothing.
        """
        with self._lock:
            least = self._highest_sequence
            if reached.stream_created_at != self._stream_created_at:
                return 0
        created, highest, low, now = reached
        values = (highest, low, now, *self.position, created, least)
        if moved := connection.fetch(_ADVANCE, values):
            return int(moved[0][0])
        found = connection.fetch(_READ, self.position)
        # Another worker may have started it anew, for a stream that was created later.
        if not found or found[0][0] <= created:
            raise UnavailableError(
                "the checkpoint went back: an older copy was put into the open file"
            )
        return 0

    def committed(self, stream_created_at: str, sequence: int) -> None:
        """Note that a transaction is committed, with the checkpoint at a sequence."""
        with self._lock:
            if stream_created_at == self._stream_created_at:
                self._highest_sequence = max(self._highest_sequence, sequence)


def recall(connection: Connection, position: Position) -> StoredCheckpoint:
    """Return a checkpoint, or None, and whether any run or rejected event is there."""
    found = connection.fetch(_READ, position)
    checkpoint = Checkpoint(*found[0]) if found else None
    has_rows = checkpoint is not None or bool(connection.fetch(_HAS_ROWS)[0][0])
    return StoredCheckpoint(checkpoint, has_rows, connection.file)


def put(connection: Connection, position: Position, checkpoint: Checkpoint) -> Checkpoint:
    """Start a checkpoint, inside a transaction, and return it as it stands then.

    One that is there for the same stream only moves on.
    """
    connection.execute(_PUT, (*position, *checkpoint))
    return Checkpoint(*connection.fetch(_READ, position)[0])
