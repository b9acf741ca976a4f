"""Writes batches with retries, on a connection of its own.

The connection is opened at the first write, and again after the database was unavailable.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, field
from functools import partial
from typing import Any, Generic, Self, TypeVar

from repo import Connection, Database, deadlines, executions, reaper
from repo import checkpoint as checkpoints
from repo import rejected as rejected_events
from repo.batch_writer import (
    ALWAYS,
    BatchWriter,
    Change,
    PromotionFailure,
    Reject,
    Row,
    RowBatch,
    Transaction,
    Writer,
    WriteResult,
)
from repo.checkpoint import NO_CHECKPOINT, Checkpoint, CheckpointGuard, Lost, Recalled
from repo.deadlines import DeadlineChange
from repo.errors import (
    ExecutionsBusy,
    RepositoryError,
    RowRejected,
    SchemaError,
    TransactionAborted,
    TransientError,
    UnavailableError,
)
from repo.reaper import Overdue, Reaping
from repo.rejected import Key, RejectedEvent
from repo.retry import retry_policy, retrying

_Result = TypeVar("_Result")

# Bounded, so that the batches of the worker never wait long for the thread or for the write lock.
_PAGE = 500
_CHANGED_AT_ONCE = 50
_DELETED_AT_ONCE = 10_000

Delete = Callable[[Connection, str, int], int]


@dataclass(slots=True)
class Sweep:
    """A sweep over the pending executions, which `Repository.sweep` takes on by one page.

    Those without runs expire if they were initiated before `old_before`, stored text; None expires
    nothing. `promoted` is how many had runs and left pending, `after` the last id that was looked
    at; None once the sweep is complete.
    """

    old_before: str | None = None
    promoted: int = 0
    expired: int = 0
    failures: list[PromotionFailure] = field(default_factory=list)
    expiry_failures: list[PromotionFailure] = field(default_factory=list)
    after: str | None = ""


@dataclass(eq=False)
class Repository(Generic[Row]):
    """Writes whole batches; belongs to one thread.

    Transient errors are retried for up to `retry_for` seconds, or until `give_up` is set; then
    nothing is attempted any more.
    """

    database: Database
    writer: Writer[Row]
    _: KW_ONLY
    retry_for: float
    give_up: threading.Event

    def __post_init__(self) -> None:
        self._batches: BatchWriter[Row] | None = None
        self._transaction: Transaction = lambda connection, _: connection.write()
        self._retry = retry_policy(self.retry_for, self.give_up, self.database.observer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(
        self,
        rows: Sequence[Row],
        rejected: Sequence[RejectedEvent],
        reject: Reject,
        reached: Checkpoint = NO_CHECKPOINT,
        ready_until: str = ALWAYS,
    ) -> WriteResult:
        """Write a batch and return when it is committed in the database that the URL names.

        The checkpoint advances to `reached` in the same transaction. What has to be written before
        the rows is written up to `ready_until`, stored text; raises MustWait, with nothing written,
        where a row needs more.

        Raises TransientError when every retry met a lock, UnavailableError and CorruptDatabaseError
        at once. The batch may be written then, but is not known to be: it has to come again.
        """
        return self._write(RowBatch(rows, rejected, reject, reached, ready_until))

    def write_again(
        self, rows: Sequence[Row], rejected: Sequence[RejectedEvent], reject: Reject
    ) -> WriteResult:
        """Write rejected events after all; arguments and errors as for `write`.

        `rows` are what the projection makes of the events now, `rejected` those that still cannot
        be decoded. In one transaction, each event whose row is written is deleted; any other keeps
        its row and gets its new reason. Nothing is changed if this raises.
        """
        return self._write(RowBatch(rows, rejected, reject, again=True))

    def discard_rejected(self, keys: Sequence[Key]) -> int:
        """Delete the rejected events of these messages; return how many existed.

        One transaction; raises like `write_again`.
        """
        return self._in_transaction(
            lambda connection: sum(rejected_events.discard(connection, key) for key in keys)
        )

    def read(self, query: Callable[..., _Result], *arguments: Any) -> _Result:
        """Return what a query of this package finds; raises like `write`."""
        return self._retrying(lambda: query(self._open().connection, *arguments))

    def sweep(self, sweep: Sweep) -> None:
        """Look at the next page of pending executions; promote those with runs, expire old ones.

        In short transactions; only these take the write lock. A change that is rejected costs no
        other one. Raises like `write`; what was changed by then is counted.
        """
        page = self._retrying(
            lambda: executions.pending_after(
                self._open().connection, sweep.after or "", sweep.old_before, _PAGE
            )
        )
        for promoted, failures in self._change_executions(executions.promote, page.with_runs):
            sweep.promoted += promoted
            sweep.failures += failures
        for expired, failures in self._change_executions(executions.expire, page.old):
            sweep.expired += expired
            sweep.expiry_failures += failures
        sweep.after = page.last

    def reap(self, reaping: Reaping) -> list[Overdue]:
        """Give up the runs that are overdue longest, at most 500, and return them.

        One transaction. A run that the tables reject costs no other one and is not tried again. A
        page that gives up no run is the last. Raises like `write`.
        """
        return self._retrying(partial(self._reap, reaping))

    def change_deadlines(self, changes: Sequence[DeadlineChange]) -> list[str]:
        """Change deadlines of runs in flight; returns the ids of those that were changed.

        One transaction; raises like `write`, and RowRejected if a constraint forbids it.
        """
        return self._in_transaction(lambda connection: deadlines.change(connection, changes))

    def delete_old(self, delete: Delete, before: str) -> int:
        """Delete up to 10 000 rows that are older than a time; return how many.

        `delete` is that of a table. One transaction; raises like `write`, and RowRejected if a
        trigger forbids it.
        """
        return self._retrying(lambda: self._delete_old(delete, before))

    def close(self) -> None:
        """Close the connection, if one is open; the next write opens another."""
        batches, self._batches = self._batches, None
        if batches is not None:
            batches.connection.close()

    def _write(self, batch: RowBatch[Row]) -> WriteResult:
        def write() -> WriteResult:
            try:
                return self._open().write(batch)
            except RowRejected as error:
                raise SchemaError(f"rejected events cannot be stored either: {error}") from error

        return self._retrying(write)

    def _change_executions(
        self, change: Change, exec_ids: Sequence[str]
    ) -> Iterator[tuple[int, list[PromotionFailure]]]:
        for start in range(0, len(exec_ids), _CHANGED_AT_ONCE):
            some = exec_ids[start : start + _CHANGED_AT_ONCE]
            yield self._retrying(partial(self._change_some, change, some))

    def _change_some(
        self, change: Change, exec_ids: Sequence[str]
    ) -> tuple[int, list[PromotionFailure]]:
        return self._open().change(change, exec_ids)

    def _reap(self, reaping: Reaping) -> list[Overdue]:
        connection = self._open().connection
        reap_page = reaper.reap
        while True:
            try:
                with self._transaction(connection, NO_CHECKPOINT):
                    connection.exclude_other_upkeep()
                    reaped = reap_page(connection, reaping, _PAGE)
            except ExecutionsBusy:
                if not self._leave_out_held(connection, reaping):
                    raise
            except (RowRejected, SchemaError):
                if reap_page is reaper.reap_each:  # no single run, but the tables
                    raise
                reap_page = reaper.reap_each
            except TransactionAborted:
                continue  # by a run that is among the failures now
            else:
                reaping.is_complete = not reaped
                return reaped

    def _leave_out_held(self, connection: Connection, reaping: Reaping) -> bool:
        """Note the overdue runs whose executions other transactions hold; return whether any are.

        The next tick tries them again.
        """
        with self._transaction(connection, NO_CHECKPOINT):
            overdue = reaper.page(connection, reaping, _PAGE)
            names = sorted({run.exec_id for run in overdue if run.exec_id})
            held = connection.held_executions(names)
        left_out = [run.result_id for run in overdue if run.exec_id in held]
        reaping.failures |= dict.fromkeys(left_out, "another program holds its execution")
        return bool(left_out)

    def _delete_old(self, delete: Delete, before: str) -> int:
        connection = self._open().connection
        with self._transaction(connection, NO_CHECKPOINT):
            connection.exclude_other_upkeep()
            return delete(connection, before, _DELETED_AT_ONCE)

    def _in_transaction(self, work: Callable[[Connection], _Result]) -> _Result:
        def attempt() -> _Result:
            connection = self._open().connection
            with connection.write():
                return work(connection)

        return self._retrying(attempt)

    def _retrying(self, work: Callable[[], _Result]) -> _Result:
        return retrying(self._retry, partial(self._attempt, work))

    def _attempt(self, work: Callable[[], _Result]) -> _Result:
        if self.give_up.is_set():
            # One more attempt could wait for a lock for longer than the drain may take.
            raise TransientError("gave up because the worker is stopping")
        try:
            return work()
        except TransientError:
            self.database.observer.locked()
            raise
        except UnavailableError:
            # The cause may be the connection itself: a file that was replaced, a dead disk.
            with suppress(RepositoryError):
                self.close()
            raise

    def _open(self) -> BatchWriter[Row]:
        if self._batches is None:
            self._batches = BatchWriter(self.database.connect(), self.writer, self._transaction)
        return self._batches


@dataclass(eq=False, kw_only=True)
class GuardedRepository(Repository[Row]):
    """What a pool thread of the worker writes through: nothing is written before `begin`."""

    guard: CheckpointGuard

    def __post_init__(self) -> None:
        super().__post_init__()
        self._transaction = self.guard.transaction

    def recall(self) -> Recalled:
        """Return the stored checkpoint of the guard's stream and consumer; raises as `write`.

        It takes and releases the write lock first: a database that cannot be written to is useless
        here, and a reader would not notice.
        """
        return self._in_transaction(
            lambda connection: Recalled(
                checkpoints.read(connection, self.guard.position), connection.place
            )
        )

    def begin(
        self, recalled: Recalled, stream_created_at: str, now: str, *, start_over: bool
    ) -> Checkpoint:
        """Return where to catch up from, in the database that was recalled from; raises as `write`.

        That is the stored checkpoint, or a new one for another stream, or where `start_over` is set
        because the stream went back. From now on batches may be written there, and there only.
        """

        def begin(connection: Connection) -> Checkpoint:
            if connection.place != recalled.place:
                raise UnavailableError("the database was replaced after its checkpoint was read")
            found = checkpoints.read(connection, self.guard.position)
            checkpoint = Checkpoint(stream_created_at)
            if found and found.checkpoint.stream_created_at == stream_created_at:
                # Another worker may have started it over meanwhile.
                before = recalled.stored and recalled.stored.checkpoint
                is_ours = before is not None and before[:4] == found.checkpoint[:4]
                if not (start_over and is_ours):
                    checkpoint = found.checkpoint
            checkpoint = checkpoint._replace(committed_at=now)
            self.guard.begin(connection, checkpoint)
            return checkpoint

        return self._in_transaction(begin)

    def advance(self, reached: Checkpoint, lost: Lost | None = None) -> None:
        """Advance the checkpoint without a batch, and count lost sequences; raises as `write`."""

        def advance() -> None:
            connection = self._open().connection
            with self.guard.transaction(connection, reached):
                if lost:
                    checkpoints.record_lost(connection, self.guard.position, lost)

        self._retrying(advance)

    def _open(self) -> BatchWriter[Row]:
        # Another thread may have begun with the database that took this one's place; and readers of
        # that one may meet what is written to the log of this one.
        if self._batches is not None and not self._batches.connection.is_current():
            self.close()
        return super()._open()
