"""One batch in one transaction; taken apart only when the tables refuse some of it.

What may refuse a row, or a promotion, is somebody else's: a trigger, a CHECK, an index on these
tables. Each case below is one of those, and each has to cost no more than what was refused.
"""

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from repo import execution_results, executions
from repo import rejected as rejected_events
from repo.checkpoint import Checkpoint, CheckpointGuard
from repo.errors import RepositoryError, RowRejected, SchemaError, TransactionAborted
from repo.execution_results import Run
from repo.executions import PromotionFailure
from repo.rejected import RejectedEvent
from repo.sqlite.database import Connection

Refusal = Callable[[int, str], RejectedEvent]
"""Makes the rejected event for a run that the tables refuse, from its index and the reason."""

Promote = Callable[[Connection, Sequence[str]], list[PromotionFailure]]


@dataclass(frozen=True, slots=True)
class WriteResult:
    """What a committed batch did, in rows.

    `refused` counts the runs that the tables refused; `rejected` holds the rejected events that
    were not there before.
    """

    inserted: int
    refused: int = 0
    rejected: list[RejectedEvent] = field(default_factory=list)
    promotion_failures: list[PromotionFailure] = field(default_factory=list)


class BatchWriter:
    """Writes batches through one connection."""

    def __init__(self, connection: Connection, guard: CheckpointGuard | None = None) -> None:
        self._connection = connection
        self._guard = guard
        self._reached: Checkpoint | None = None
        self._last_inserted: Run | None = None

    def write(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        reached: Checkpoint | None = None,
    ) -> WriteResult:
        """Write a batch and return when it is committed; raises where it may not be."""
        self._reached = reached
        try:
            return self._write_together(runs, rejected)
        except (RowRejected, SchemaError):
            pass  # by at least one row of the batch, or by the tables: find out which
        try:
            return self._write_rows_apart(runs, rejected, refusal, executions.promote)
        except TransactionAborted:
            # By a trigger on executions. The rows do without a promotion rather than not be there.
            later: list[str] = []

            def put_off(_: Connection, exec_ids: Sequence[str]) -> list[PromotionFailure]:
                later[:] = exec_ids
                return []

            written = self._write_rows_apart(runs, rejected, refusal, put_off)
        failures = executions.promote_each(self._connection, later)
        return replace(written, promotion_failures=failures)

    def _write_rows_apart(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        promote: Promote,
    ) -> WriteResult:
        refused: dict[int, RepositoryError] = {}
        while True:
            try:
                return self._write_apart(runs, rejected, refusal, promote, refused)
            except _RowEndedTransaction as ended:
                refused[ended.index] = ended.refusal

    def _write_together(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent]
    ) -> WriteResult:
        connection = self._connection
        with self._transaction():
            inserted = execution_results.insert_all(connection, runs)
            new = self._keep(rejected)
            executions.promote_together(connection, _exec_ids(runs))
        if runs and inserted == len(runs):
            self._last_inserted = runs[-1]
        return WriteResult(inserted, 0, new)

    def _write_apart(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        promote: Promote,
        known_refused: dict[int, RepositoryError],
    ) -> WriteResult:
        """Write row by row, still in one transaction, so that a refused row costs only itself."""
        connection = self._connection
        refused = dict(known_refused)
        inserted = 0
        with self._transaction():
            for index, run in enumerate(runs):
                if index in refused:
                    continue
                try:
                    inserted += self._insert(run)
                except (RowRejected, SchemaError) as error:
                    refused[index] = error
                except TransactionAborted as error:
                    raise _RowEndedTransaction(index, error) from error
            if refused and not inserted:
                self._suspect_the_schema(runs[min(refused)], refused[min(refused)])
            refusals = [refusal(index, str(error)) for index, error in sorted(refused.items())]
            new = self._keep([*rejected, *refusals])
            accepted = [run for index, run in enumerate(runs) if index not in refused]
            failures = promote(connection, _exec_ids(accepted))
        return WriteResult(inserted, len(refused), new, failures)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Commit what is inside together with the checkpoint that it reaches."""
        guard, reached = self._guard, self._reached
        with self._connection.write():
            yield
            if guard is not None and reached is not None:
                sequence = guard.advance(self._connection, reached)
        if guard is not None and reached is not None:
            guard.committed(reached.stream_created_at, sequence)

    def _keep(self, rejected: Sequence[RejectedEvent]) -> list[RejectedEvent]:
        """Keep what is rejected, inside the transaction, and return what was not there before."""
        return rejected_events.insert_all(self._connection, rejected)

    def _insert(self, run: Run) -> int:
        # The savepoint is for a trigger with RAISE(FAIL), which keeps the row that it refuses.
        with self._connection.savepoint():
            inserted = execution_results.insert(self._connection, run)
        if inserted:
            self._last_inserted = run
        return inserted

    def _suspect_the_schema(self, refused: Run, error: RepositoryError) -> None:
        """Raise SchemaError if the table takes no row at all, when none of a batch was inserted.

        A schema that drifted refuses everything; rejecting on its account would lose good messages.
        """
        probe = f"probe-{uuid.uuid4()}"
        probes = [refused._replace(result_id=probe, request_id=probe, pc_id=probe, job_id=probe)]
        if self._last_inserted is not None:
            # Plain text may break somebody's CHECK on good data; this one is known to fit.
            probes.append(self._last_inserted._replace(result_id=str(uuid.uuid4())))
        for run in probes:
            try:
                with self._connection.trial():
                    execution_results.insert(self._connection, run)
            except (RowRejected, SchemaError):
                continue
            except TransactionAborted:
                break
            return
        raise SchemaError(f"every row is refused, also a plain one: {error}") from error


class _RowEndedTransaction(Exception):
    """The row at `index` is refused, and took the whole transaction with it."""

    def __init__(self, index: int, refusal: RepositoryError) -> None:
        super().__init__(str(refusal))
        self.index = index
        self.refusal = refusal


def _exec_ids(runs: Sequence[Run]) -> list[str]:
    """Return each execution that the runs name once, in order; an ad-hoc run names none."""
    return list(dict.fromkeys(run.exec_id for run in runs if run.exec_id))
