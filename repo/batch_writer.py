"""One batch in one transaction; split only when a row or a promotion is rejected.

Triggers, CHECKs and indexes that other programs added to the tables may reject a row or a
promotion. Each case below is one of those, and each costs no more than what was rejected.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from repo import Connection
from repo.checkpoint import NO_CHECKPOINT, Checkpoint
from repo.errors import RepositoryError, RowRejected, SchemaError, TransactionAborted
from repo.rejected import Key, RejectedEvent, change_reason, insert_all

Row = TypeVar("Row")

Reject = Callable[[int, str], RejectedEvent]
"""Makes the rejected event of a row, from the row's index in the batch and the reason."""

Transaction = Callable[[Connection, Checkpoint], AbstractContextManager[None]]
"""Commits its body together with the checkpoint that it reaches."""

_Errors = dict[int, RepositoryError]


class PromotionFailure(NamedTuple):
    """An execution that could not be promoted, and why."""

    execution: str
    reason: str


_Promote = Callable[[Sequence[str]], list[PromotionFailure]]


@dataclass(frozen=True, slots=True)
class Writer(Generic[Row]):
    """How rows are inserted and what follows. All functions run inside the caller's transaction.

    `insert_all` and `insert` return how many rows are new; an existing row is left unchanged. They
    raise RowRejected. `probes` returns rows to try if a batch was rejected entirely, made of a
    rejected row and of the last row that was inserted, if any. `delete_rejected` deletes a
    message's rejected event if its row exists, and returns whether it was deleted. `parents`
    returns the ids of the rows' parents, each once; `promote` promotes the parents with these ids
    and returns how many it changed.
    """

    insert_all: Callable[[Connection, Sequence[Row]], int]
    insert: Callable[[Connection, Row], int]
    probes: Callable[[Row, Row | None], list[Row]]
    delete_rejected: Callable[[Connection, Key, Row], bool]
    parents: Callable[[Sequence[Row]], list[str]]
    promote: Callable[[Connection, Sequence[str]], int]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a committed batch did, in rows.

    `rows_rejected` counts the rows that were rejected by a constraint or trigger. `rejected` holds
    the rejected events that are new. After a retry, `removed` names the rejected events that were
    deleted because their row was written, and `still_rejected` has the reasons of the others; an
    event in neither was deleted by another program.
    """

    inserted: int = 0
    rows_rejected: int = 0
    rejected: list[RejectedEvent] = field(default_factory=list)
    still_rejected: Mapping[Key, str] = field(default_factory=dict)
    removed: frozenset[Key] = frozenset()
    promotion_failures: list[PromotionFailure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class RowBatch(Generic[Row]):
    """What is written in one transaction, and the checkpoint that it reaches.

    `again` is set for rejected events that are retried. An event whose row is written is deleted,
    any other gets its new reason. Nothing is inserted: an event that another program deletes
    meanwhile must not come back.
    """

    rows: Sequence[Row]
    rejected: Sequence[RejectedEvent]
    reject: Reject
    reached: Checkpoint = NO_CHECKPOINT
    again: bool = False


class BatchWriter(Generic[Row]):
    """Writes batches through one connection."""

    def __init__(
        self, connection: Connection, writer: Writer[Row], transaction: Transaction
    ) -> None:
        self.connection = connection
        self._writer = writer
        self._transaction = transaction
        self._last_inserted: Row | None = None

    def write(self, batch: RowBatch[Row]) -> WriteResult:
        """Write a batch and return when it is committed; raises if it may not be."""
        try:
            return self._write_together(batch)
        except (RowRejected, SchemaError):
            pass  # at least one row, or the tables: find out which
        parents: list[str] = []

        def postpone(accepted: Sequence[str]) -> list[PromotionFailure]:
            parents.extend(accepted)
            return []

        try:
            return self._write_apart(
                batch, lambda accepted: self._promote(accepted, self.connection.savepoint)
            )
        except TransactionAborted:
            # By a trigger on the parents. A promotion must not cost the rows.
            written = self._write_apart(batch, postpone)
        failures = self._promote(parents, self.connection.write)
        return replace(written, promotion_failures=failures)

    def promote(self, parents: Sequence[str]) -> tuple[int, list[PromotionFailure]]:
        """Promote parents in one transaction, or, if one is rejected, each in its own.

        Returns how many were promoted, and the failures.
        """

        def scope() -> AbstractContextManager[None]:
            return self._transaction(self.connection, NO_CHECKPOINT)

        try:
            with scope():
                return self._writer.promote(self.connection, parents), []
        except (RowRejected, SchemaError):
            failures = self._promote(parents, scope)
        return len(parents) - len(failures), failures

    def _write_together(self, batch: RowBatch[Row]) -> WriteResult:
        connection, rows = self.connection, batch.rows
        with self._transaction(connection, batch.reached):
            inserted = self._writer.insert_all(connection, rows)
            kept = self._keep(batch, batch.rejected, enumerate(rows))
            self._writer.promote(connection, self._writer.parents(rows))
        if rows and inserted == len(rows):
            self._last_inserted = rows[-1]
        return replace(kept, inserted=inserted)

    def _write_apart(self, batch: RowBatch[Row], promote: _Promote) -> WriteResult:
        """Write row by row; begins again without each row that ends the transaction."""
        ended: _Errors = {}
        while True:
            before = len(ended)
            try:
                return self._write_each(batch, promote, ended)
            except TransactionAborted:
                if len(ended) == before:  # by a promotion, not by a row
                    raise

    def _write_each(self, batch: RowBatch[Row], promote: _Promote, ended: _Errors) -> WriteResult:
        """Write row by row in one transaction, so that a rejected row costs only itself.

        A row that ends the transaction is added to `ended`, by its index, and raises
        TransactionAborted; the rows in `ended` already count as rejected.
        """
        rejected = dict(ended)
        with self._transaction(self.connection, batch.reached):
            inserted = self._insert_each(batch.rows, rejected, ended)
            if rejected and not inserted:
                self._try_probes(batch.rows, rejected)
            events = [batch.reject(index, str(error)) for index, error in sorted(rejected.items())]
            accepted = [(at, row) for at, row in enumerate(batch.rows) if at not in rejected]
            kept = self._keep(batch, [*batch.rejected, *events], accepted)
            failures = promote(self._writer.parents([row for _, row in accepted]))
        return replace(
            kept, inserted=inserted, rows_rejected=len(rejected), promotion_failures=failures
        )

    def _keep(
        self,
        batch: RowBatch[Row],
        events: Sequence[RejectedEvent],
        written: Iterable[tuple[int, Row]],
    ) -> WriteResult:
        """Store the rejected events; `written` are the accepted rows with their indexes."""
        connection, delete = self.connection, self._writer.delete_rejected
        if not batch.again:
            return WriteResult(rejected=insert_all(connection, events))
        for event in events:
            change_reason(connection, event)
        keys = ((batch.reject(index, "").key, row) for index, row in written)
        return WriteResult(
            still_rejected={event.key: event.reason for event in events},
            removed=frozenset(key for key, row in keys if delete(connection, key, row)),
        )

    def _promote(
        self, parents: Sequence[str], scope: Callable[[], AbstractContextManager[None]]
    ) -> list[PromotionFailure]:
        """Promote parents one by one, each in a scope of its own; return the failures.

        Best effort: a rejection or a missing table never costs the rows. Raises TransactionAborted
        if the scope is a savepoint, and the transaction and its rows are lost already.
        """
        failures = []
        for parent in parents:
            try:
                with scope():
                    self._writer.promote(self.connection, [parent])
            except (RowRejected, SchemaError) as error:
                failures.append(PromotionFailure(parent, str(error)))
        return failures

    def _insert_each(self, rows: Sequence[Row], rejected: _Errors, ended: _Errors) -> int:
        """Return how many rows are new; adds the errors of the others to the arguments."""
        inserted = 0
        for index, row in enumerate(rows):
            if index in ended:
                continue
            try:
                # For a trigger with RAISE(FAIL), which keeps the row that it rejects.
                with self.connection.savepoint():
                    is_new = self._writer.insert(self.connection, row)
            except (RowRejected, SchemaError) as error:
                rejected[index] = error
                continue
            except TransactionAborted as error:
                ended[index] = error
                raise
            if is_new:
                inserted += 1
                self._last_inserted = row
        return inserted

    def _try_probes(self, rows: Sequence[Row], rejected: _Errors) -> None:
        """Raise SchemaError if the table takes no row at all.

        A schema that drifted rejects everything; rejecting messages for that would lose good ones.
        """
        first = min(rejected)
        for probe in self._writer.probes(rows[first], self._last_inserted):
            try:
                with self.connection.savepoint(keep=False):
                    self._writer.insert(self.connection, probe)
            except (RowRejected, SchemaError):
                continue
            except TransactionAborted:
                break
            return
        error = rejected[first]
        raise SchemaError(f"the table rejects every row, even a test row: {error}") from error
