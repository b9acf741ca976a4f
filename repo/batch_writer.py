"""One batch in one transaction; split only when a row or a promotion is rejected.

Triggers, CHECKs and indexes that other programs added to the tables may reject a row or a
promotion. Each case below is one of those, and each costs no more than what was rejected.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Generic, NamedTuple, TypeVar

from repo import Connection
from repo.checkpoint import NO_CHECKPOINT, Checkpoint
from repo.errors import (
    ExecutionsBusy,
    RepositoryError,
    RowRejected,
    RowsHeld,
    SchemaError,
    TransactionAborted,
)
from repo.executions import Changed
from repo.rejected import Key, RejectedEvent, change_reason, insert_all

Row = TypeVar("Row")

Reject = Callable[[int, str], RejectedEvent]
"""Makes the rejected event of a row, from the row's index in the batch and the reason."""

Transaction = Callable[[Connection, Checkpoint], AbstractContextManager[None]]
"""Commits its body together with the checkpoint that it reaches."""

INSERTED = "inserted"

# Above every stored text of an instant.
ALWAYS = "~"

Outcomes = Counter[str]
"""How many rows a batch changed, by what became of them, and ended runs also by how they ended.

Rows left unchanged are not counted.
"""

_MOST_HELD = 1000

_Errors = dict[int, RepositoryError]


class PromotionFailure(NamedTuple):
    """An execution that could not be promoted, or expired, and why."""

    execution: str
    reason: str


Change = Callable[[Connection, Sequence[str]], Changed]
"""Changes the executions with these ids."""

_Promote = Callable[[Sequence[str]], list[PromotionFailure]]


@dataclass(frozen=True, slots=True)
class Writer(Generic[Row]):
    """How rows are written and what follows. All functions run inside the caller's transaction.

    `write_all` returns what changed, and raises RowRejected. Its last argument is the time, stored
    text, up to which everything that its rows depend on is written; it raises MustWait, before it
    writes anything, where that is too early for one of them. `probes` returns rows to try
    if the tables may reject every row, made of a rejected row and of the last row that was written,
    if any. `delete_rejected` deletes a message's rejected event if its row exists, and returns
    whether it was deleted. `parents` returns the ids of the rows' parents, each once; `promote`
    promotes the parents with these ids. `counted_in` returns the id of the execution that a row is
    counted in, if any.
    """

    write_all: Callable[[Connection, Sequence[Row], str], Outcomes]
    probes: Callable[[Row, Row | None], list[Row]]
    delete_rejected: Callable[[Connection, Key, Row], bool]
    parents: Callable[[Sequence[Row]], list[str]]
    promote: Change
    counted_in: Callable[[Row], str | None] = lambda _: None


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a committed batch did, in rows.

    `outcomes` counts the rows that it changed, `rows_rejected` those that were rejected by a
    constraint or trigger. `rejected` holds the rejected events that are new. After a retry,
    `removed` names the rejected events that were deleted because their row was written, and
    `still_rejected` has the reasons of the others; an event in neither was deleted by another
    program.
    """

    outcomes: Outcomes = field(default_factory=Counter)
    rows_rejected: int = 0
    rejected: list[RejectedEvent] = field(default_factory=list)
    still_rejected: Mapping[Key, str] = field(default_factory=dict)
    removed: frozenset[Key] = frozenset()
    promotion_failures: list[PromotionFailure] = field(default_factory=list)

    @property
    def inserted(self) -> int:
        """How many rows are new."""
        return self.outcomes[INSERTED]


@dataclass(frozen=True, slots=True)
class RowBatch(Generic[Row]):
    """What is written in one transaction, and the checkpoint that it reaches.

    Everything that its rows depend on is written up to `ready_until`, stored text.
    `again` is set for rejected events that are retried. An event whose row is written is deleted,
    any other gets its new reason. Nothing is inserted: an event that another program deletes
    meanwhile must not come back.
    """

    rows: Sequence[Row]
    rejected: Sequence[RejectedEvent]
    reject: Reject
    reached: Checkpoint = NO_CHECKPOINT
    ready_until: str = ALWAYS
    again: bool = False


class BatchWriter(Generic[Row]):
    """Writes batches through one connection."""

    def __init__(
        self, connection: Connection, writer: Writer[Row], transaction: Transaction
    ) -> None:
        self.connection = connection
        self._writer = writer
        self._transaction = transaction
        self._last_written: Row | None = None
        # Executions that other transactions held, to be promoted later. What is lost of it, by an
        # error or a kill, the sweep finds.
        self._held: set[str] = set()

    def write(self, batch: RowBatch[Row]) -> WriteResult:
        """Write a batch and return when it is committed; raises if it might not be."""
        before = self._held
        try:
            written = self._write(batch)
        except ExecutionsBusy:
            if left_out := self._of_held_executions(batch.rows):
                raise RowsHeld(left_out) from None
            raise
        except RepositoryError:
            self._held = set()  # one of them may be what the database refuses
            raise
        if held := self._held - before:
            self._promote_held(held)
        return written

    def _write(self, batch: RowBatch[Row]) -> WriteResult:
        try:
            return self._write_together(batch)
        except (RowRejected, SchemaError):
            self._held = set()  # as one of them may be: the sweep promotes and reports it
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

    def change(
        self, change: Change, executions: Sequence[str]
    ) -> tuple[int, list[PromotionFailure]]:
        """Change executions in one transaction, or, if one is rejected, each in its own.

        Returns how many were changed, and the failures.
        """

        @contextmanager
        def scope() -> Iterator[None]:
            with self._transaction(self.connection, NO_CHECKPOINT):
                self.connection.exclude_other_upkeep()
                yield

        try:
            with scope():
                return change(self.connection, executions).executions, []
        except (RowRejected, SchemaError):
            return self._change_each(change, executions, scope)

    def _write_together(self, batch: RowBatch[Row]) -> WriteResult:
        connection, rows = self.connection, batch.rows
        with self._transaction(connection, batch.reached):
            outcomes = self._writer.write_all(connection, rows, batch.ready_until)
            kept = self._keep(batch, batch.rejected, enumerate(rows))
            self._promote_free(connection, [*{*self._writer.parents(rows), *self._held}])
        if rows and outcomes.total() == len(rows):
            self._last_written = rows[-1]
        return replace(kept, outcomes=outcomes)

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
            outcomes = self._write_rows(batch.rows, rejected, ended)
            if rejected and (not outcomes or _may_be_the_schema(rejected)):
                self._try_probes(batch.rows, rejected)
            events = [batch.reject(index, str(error)) for index, error in sorted(rejected.items())]
            accepted = [(at, row) for at, row in enumerate(batch.rows) if at not in rejected]
            kept = self._keep(batch, [*batch.rejected, *events], accepted)
            failures = promote(self._writer.parents([row for _, row in accepted]))
        return replace(
            kept, outcomes=outcomes, rows_rejected=len(rejected), promotion_failures=failures
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
        return self._change_each(self._promote_free, parents, scope)[1]

    def _of_held_executions(self, rows: Sequence[Row]) -> frozenset[int]:
        """Return the indexes of the rows whose executions other transactions hold right now."""
        of_rows = [*map(self._writer.counted_in, rows)]
        names = sorted({one for one in of_rows if one})
        with self._transaction(self.connection, NO_CHECKPOINT):
            held = self.connection.held_executions(names)
        return frozenset(index for index, one in enumerate(of_rows) if one in held)

    def _promote_free(self, connection: Connection, parents: Sequence[str]) -> Changed:
        """Promote parents, and keep the ids of those that other transactions hold for later."""
        changed = self._writer.promote(connection, parents)
        self._held = {*self._held.difference(parents), *changed.held}
        if len(self._held) > _MOST_HELD:
            self._held = set(changed.held[:_MOST_HELD])
        return changed

    def _promote_held(self, held: Iterable[str]) -> None:
        """Try once more, after the commit: most transactions are short.

        Those of other workers are waited for now: without a later batch, the sweep would come next.
        """
        names = sorted(held)
        with suppress(RepositoryError), self._transaction(self.connection, NO_CHECKPOINT):
            self.connection.hold_counts(names)
            self._promote_free(self.connection, names)

    def _change_each(
        self,
        change: Change,
        executions: Sequence[str],
        scope: Callable[[], AbstractContextManager[None]],
    ) -> tuple[int, list[PromotionFailure]]:
        changed, failures = 0, []
        for execution in executions:
            try:
                with scope():
                    changed += change(self.connection, [execution]).executions
            except (RowRejected, SchemaError) as error:
                failures.append(PromotionFailure(execution, str(error)))
        return changed, failures

    def _write_rows(self, rows: Sequence[Row], rejected: _Errors, ended: _Errors) -> Outcomes:
        """Return what changed; adds the errors of the other rows to the arguments."""
        outcomes: Outcomes = Counter()
        for index, row in enumerate(rows):
            if index in ended:
                continue
            try:
                # For a trigger with RAISE(FAIL), which keeps the row that it rejects.
                with self.connection.savepoint():
                    changed = self._writer.write_all(self.connection, [row], ALWAYS)
            except (RowRejected, SchemaError) as error:
                rejected[index] = error
                continue
            except TransactionAborted as error:
                ended[index] = error
                raise
            if changed.total():
                outcomes += changed
                self._last_written = row
        return outcomes

    def _try_probes(self, rows: Sequence[Row], rejected: _Errors) -> None:
        """Raise SchemaError if the table takes no row at all.

        A schema that drifted rejects everything; rejecting messages for that would lose good ones.
        """
        first = min(rejected)
        for probe in self._writer.probes(rows[first], self._last_written):
            try:
                with self.connection.savepoint(keep=False):
                    self._writer.write_all(self.connection, [probe], ALWAYS)
            except (RowRejected, SchemaError):
                continue
            except TransactionAborted:
                break
            return
        error = rejected[first]
        raise SchemaError(f"the table rejects every row, even a test row: {error}") from error


def _may_be_the_schema(rejected: _Errors) -> bool:
    """Return whether a table or column may be missing that only some of the rows need."""
    return any(isinstance(error, SchemaError) for error in rejected.values())
