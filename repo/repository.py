"""What a pool thread writes through: batches, with retries, on a connection of its own.

The connection is opened at the first write, and again after a fault of the place.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Any, Self, TypeVar

from repo import checkpoints, rejected_events
from repo.batch import BatchWriter, Refusal, Written
from repo.checkpoints import Checkpoint, Position, Recalled, Standing
from repo.database import Connection, Database
from repo.errors import DataRefused, PassingFault, PlaceFault, RepositoryError, SchemaFault
from repo.execution_results import Run
from repo.rejected_events import Key, RejectedEvent
from repo.retry import retry_policy
from repo.rewriting import RewriteWriter, Rewritten

_Result = TypeVar("_Result")


class Repository:
    """Writes whole batches; belongs to one thread.

    Passing faults are tried again for up to `retry_for` seconds, or until `give_up` is set, after
    which nothing is tried at all. With a `standing`, nothing is written before `begin`.
    """

    def __init__(
        self,
        database: Database,
        *,
        retry_for: float,
        give_up: threading.Event,
        standing: Standing | None = None,
    ) -> None:
        self._database = database
        self._standing = standing
        self._connection: Connection | None = None
        self._writer: BatchWriter | None = None
        self._give_up = give_up
        self._retry = retry_policy(retry_for, give_up, database.observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def recall(self) -> Recalled:
        """Return what the database knows of the standing's stream and durable; raises as `write`.

        It takes and gives back the write lock first: a database that cannot be written to is of no
        use, and a reader would not find out.
        """
        recalled: Recalled = self._retry(self._attempt, self._recall_once)
        return recalled

    def begin(self, checkpoint: Checkpoint, recalled: Recalled) -> None:
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
    ) -> Written:
        """Write a batch and return when it is committed in the file that the path names.

        The checkpoint moves on to `reached` in the same transaction.

        Raises PassingFault when every retry met a lock, PlaceFault and DatabaseUnusable at once; a
        batch may be written then, and is not known to be: it has to come again.
        """
        written: Written = self._retry(
            self._attempt, self._write_once, runs, rejected, refusal, reached
        )
        return written

    def write_again(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> Rewritten:
        """Write rejected events after all, and return when that is committed.

        `runs` are what the projection makes of them now, `rejected` the ones it still refuses,
        `refusal` as for `write`. In one transaction, each event whose run is written leaves the
        rejected events, each other one keeps its row, with its reason of now. Raises
        PassingFault when every retry met a lock, any other RepositoryError at once; nothing is
        changed then.
        """
        rewritten: Rewritten = self._retry(
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
            raise PassingFault("given up at the stop")
        try:
            return work(*arguments)
        except PassingFault:
            self._database.observer.locked()
            raise
        except PlaceFault:
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
    ) -> Written:
        try:
            return self._open_writer().write(runs, rejected, refusal, reached)
        except DataRefused as error:
            raise SchemaFault(f"not even a rejected event can be stored: {error}") from error

    def _recall_once(self) -> Recalled:
        connection = self._open()
        with connection.write():
            recalled = checkpoints.recall(connection, self._position())
        assert self._standing is not None
        return recalled._replace(committed=self._standing.reached)

    def _begin_once(self, checkpoint: Checkpoint, recalled: Recalled) -> None:
        connection = self._open()
        if connection.file != recalled.file:
            raise PlaceFault("the database file was replaced while it was compared")
        with connection.write():
            stands = checkpoints.put(connection, self._position(), checkpoint)
        assert self._standing is not None
        self._standing.begin(connection.file, stands)

    def _position(self) -> Position:
        assert self._standing is not None
        return self._standing.position

    def _open(self) -> Connection:
        # Another thread may have begun with the file that took this one's place.
        if self._standing and self._connection and not self._connection.is_current():
            self.close()
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _open_writer(self) -> BatchWriter:
        connection = self._open()
        if self._standing is not None:
            self._standing.check(connection.file)
        if self._writer is None:
            self._writer = BatchWriter(connection, self._standing)
        return self._writer
