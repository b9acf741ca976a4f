"""What a pool thread writes through: batches, with retries, on a connection of its own.

The connection is opened at the first write, and again after a fault of the place.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from repo import checkpoint as checkpoints
from repo import rejected as rejected_events
from repo.batch_writer import BatchWriter, Refusal, WriteResult
from repo.checkpoint import Checkpoint, CheckpointGuard, Position, StoredCheckpoint
from repo.errors import RepositoryError, RowRejected, SchemaError, TransientError, UnavailableError
from repo.execution_results import Run
from repo.rejected import Key, RejectedEvent
from repo.retry import retry_policy
from repo.rewriting import RetryResult, RewriteWriter
from repo.sqlite.database import Connection, Database

_Result = TypeVar("_Result")


class Repository:
    """Writes whole batches; belongs to one thread.

    Passing faults are tried again for up to `retry_for` seconds, or until `give_up` is set, after
    which nothing is tried at all. With a `guard`, nothing is written before `begin`.
    """

    def __init__(
        self,
        database: Database,
        *,
        retry_for: float,
        give_up: threading.Event,
        guard: CheckpointGuard | None = None,
    ) -> None:
        self._database = database
        self._guard = guard
        self._connection: Connection | None = None
        self._writer: BatchWriter | None = None
        self._give_up = give_up
        self._retry = retry_policy(retry_for, give_up, database.observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self) -> StoredCheckpoint:
        """Return what the database knows of the guard's stream and consumer; raises as `write`.

        It takes and gives back the write lock first: a database that cannot be written to is of no
        use, and a reader would not find out.
        """
        recalled: StoredCheckpoint = self._retry(self._attempt, self._recall_once)
        return recalled

    def begin(self, checkpoint: Checkpoint, recalled: StoredCheckpoint) -> None:
        """Put a checkpoint into the file that was recalled from; raises as `write`.

        From now on batches may be written there, and there only.
        """
        self._retry(self._attempt, self._begin_once, checkpoint, recalled)

    def write(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        reached: Checkpoint | None = None,
    ) -> WriteResult:
        """Write a batch and return when it is committed in the file that the path names.

        The checkpoint moves on to `reached` in the same transaction.

        Raises TransientError when every retry met a lock, UnavailableError and CorruptDatabaseError
        at once; a batch may be written then, and is not known to be: it has to come again.
        """
        written: WriteResult = self._retry(
            self._attempt, self._write_once, runs, rejected, refusal, reached
        )
        return written

    def write_again(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> RetryResult:
        """Write rejected events after all, and return when that is committed.

        `runs` are what the projection makes of them now, `rejected` the ones it still refuses,
        `refusal` as for `write`. In one transaction, each event whose run is written leaves the
        rejected events, each other one keeps its row, with its reason of now. Raises
        TransientError when every retry met a lock, any other RepositoryError at once; nothing is
        changed then.
        """
        rewritten: RetryResult = self._retry(
            self._attempt,
            lambda: RewriteWriter(self._open()).write_again(runs, rejected, refusal),
        )
        return rewritten

    def discard_rejected(self, keys: Sequence[Key]) -> int:
        """Delete the rejected events of these messages and return how many were there.

        One transaction; raises like `write_again`.
        """
        discarded: int = self._retry(self._attempt, self._discard_once, keys)
        return discarded

    def _discard_once(self, keys: Sequence[Key]) -> int:
        connection = self._open()
        with connection.write():
            return sum(rejected_events.discard(connection, key) for key in keys)

    def close(self) -> None:
        """Close the connection, if one is open; the next write opens another."""
        connection, self._connection, self._writer = self._connection, None, None
        if connection is not None:
            connection.close()

    def _attempt(self, work: Callable[..., _Result], *arguments: Any) -> _Result:
        if self._give_up.is_set():
            # One more attempt could wait for a lock for longer than anybody waits for us.
            raise TransientError("given up at the stop")
        try:
            return work(*arguments)
        except TransientError:
            self._database.observer.locked()
            raise
        except UnavailableError:
            # The cause may be the connection itself: a file that was replaced, a dead disk.
            with contextlib.suppress(RepositoryError):
                self.close()
            raise

    def _write_once(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        reached: Checkpoint | None,
    ) -> WriteResult:
        try:
            return self._open_writer().write(runs, rejected, refusal, reached)
        except RowRejected as error:
            raise SchemaError(f"not even a rejected event can be stored: {error}") from error

    def _recall_once(self) -> StoredCheckpoint:
        connection = self._open()
        with connection.write():
            recalled = checkpoints.recall(connection, self._position())
        assert self._guard is not None
        return recalled._replace(committed=self._guard.reached)

    def _begin_once(self, checkpoint: Checkpoint, recalled: StoredCheckpoint) -> None:
        connection = self._open()
        if connection.file != recalled.file:
            raise UnavailableError("the database file was replaced while it was compared")
        with connection.write():
            stands = checkpoints.put(connection, self._position(), checkpoint)
        assert self._guard is not None
        self._guard.begin(connection.file, stands)

    def _position(self) -> Position:
        assert self._guard is not None
        return self._guard.position

    def _open(self) -> Connection:
        # Another thread may have begun with the file that took this one's place.
        if self._guard and self._connection and not self._connection.is_current():
            self.close()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _open_writer(self) -> BatchWriter:
        connection = self._open()
        if self._guard is not None:
            self._guard.check(connection.file)
        if self._writer is None:
            self._writer = BatchWriter(connection, self._guard)
        return self._writer
