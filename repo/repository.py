"""What a pool thread writes through: batches, with retries, on a connection of its own.

The connection is opened at the first write, and again after a fault of the place.
"""

import contextlib
import threading
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from repo import rejected_events
from repo.batch import BatchWriter, Refusal, Written
from repo.database import Connection, Database
from repo.errors import DataRefused, PassingFault, PlaceFault, RepositoryError, SchemaFault
from repo.execution_results import Run
from repo.rejected_events import Key, RejectedEvent
from repo.retry import retry_policy
from repo.rewriting import RewriteWriter, Rewritten


class Repository:
    """Writes whole batches; belongs to one thread.

    Passing faults are tried again for up to `retry_for` seconds, or until `give_up` is set, after
    which nothing is tried at all.
    """

    def __init__(self, database: Database, *, retry_for: float, give_up: threading.Event) -> None:
        self._database = database
        self._connection: Connection | None = None
        self._writer: BatchWriter | None = None
        self._give_up = give_up
        self._retry = retry_policy(retry_for, give_up)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def write(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> Written:
        """Write a batch and return when it is committed in the file that the path names.

        Raises PassingFault when every retry met a lock, PlaceFault and DatabaseUnusable at once; a
        batch may be written then, and is not known to be: it has to come again.
        """
        return self._retry(self._write_once, runs, rejected, refusal)

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
        return self._retry(
            lambda: RewriteWriter(self._connected()).write_again(runs, rejected, refusal)
        )

    def discard_rejected(self, keys: Sequence[Key]) -> int:
        """Delete the rejected events of these messages and return how many were there.

        One transaction; raises like `write_again`.
        """
        return self._retry(self._discard_once, keys)

    def _discard_once(self, keys: Sequence[Key]) -> int:
        connection = self._connected()
        with connection.write():
            return sum(rejected_events.discard(connection, key) for key in keys)

    def _connected(self) -> Connection:
        self._open_writer()
        assert self._connection is not None
        return self._connection

    def close(self) -> None:
        """Close the connection, if one is open; the next write opens another."""
        connection, self._connection, self._writer = self._connection, None, None
        if connection is not None:
            connection.close()

    def _write_once(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> Written:
        if self._give_up.is_set():
            # One more attempt could wait for a lock for longer than anybody waits for us.
            raise PassingFault("given up at the stop")
        try:
            return self._open_writer().write(runs, rejected, refusal)
        except DataRefused as error:
            raise SchemaFault(f"not even a rejected event can be stored: {error}") from error
        except PlaceFault:
            # The cause may be the connection itself: a file that was replaced, a dead disk.
            with contextlib.suppress(RepositoryError):
                self.close()
            raise

    def _open_writer(self) -> BatchWriter:
        if self._writer is None:
            self._connection = self._database.connect()
            self._writer = BatchWriter(self._connection)
        return self._writer
