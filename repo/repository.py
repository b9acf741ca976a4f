"""One batch, one transaction: runs, rejected events and promotions, with retries.

A `Repository` belongs to one pool thread; it opens its connection at the first write and again
after a fault of the place.
"""

import threading
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

from repo import execution_results, executions, rejected_events
from repo.database import Connection, Database
from repo.errors import DataRefused, PlaceFault, RepositoryError, SchemaFault
from repo.execution_results import Run
from repo.executions import PromotionFailure
from repo.rejected_events import RejectedEvent
from repo.retry import retry_policy

Refusal = Callable[[int, str], RejectedEvent]


@dataclass(frozen=True, slots=True)
class Written:
    """What a committed batch did, in rows.

    `refused` counts the runs that the tables refused; `rejected` holds the rejected events that
    were not there before.
    """

    inserted: int
    refused: int = 0
    rejected: list[RejectedEvent] = field(default_factory=list)
    promotion_failures: list[PromotionFailure] = field(default_factory=list)


class Repository:
    """Writes whole batches.

    Passing faults are tried again for up to `retry_for` seconds, or until `give_up` is set.
    """

    def __init__(self, database: Database, *, retry_for: float, give_up: threading.Event) -> None:
        self._database = database
        self._connection: Connection | None = None
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

        `refusal(index, reason)` makes the rejected event for a run that the tables refuse. Raises
        PassingFault when every retry met a lock, PlaceFault and DatabaseUnusable at once; nothing
        of the batch is written then.
        """
        return self._retry(self._write_once, runs, rejected, refusal)

    def close(self) -> None:
        """Close the connection, if one is open; the next write opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _write_once(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> Written:
        if self._connection is None:
            self._connection = self._database.connect()
        try:
            return self._write_whole(self._connection, runs, rejected, refusal)
        except PlaceFault:
            # The cause may be the connection itself: a file that was replaced, a dead disk.
            self._drop_connection()
            raise

    def _write_whole(
        self,
        connection: Connection,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
    ) -> Written:
        try:
            return self._write_together(connection, runs, rejected)
        except DataRefused:
            pass  # by at least one row of the batch: find out which
        try:
            return self._write_apart(connection, runs, rejected, refusal)
        except DataRefused as error:
            raise SchemaFault(f"not even a rejected event can be stored: {error}") from error

    def _drop_connection(self) -> None:
        try:
            self.close()
        except RepositoryError:
            self._connection = None

    def _write_together(
        self, connection: Connection, runs: Sequence[Run], rejected: Sequence[RejectedEvent]
    ) -> Written:
        with connection.write():
            inserted = execution_results.insert_all(connection, runs)
            new = rejected_events.insert_all(connection, rejected)
            failures = executions.promote(connection, _exec_ids(runs))
        return Written(inserted, 0, new, failures)

    def _write_apart(
        self,
        connection: Connection,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
    ) -> Written:
        """Write row by row, still in one transaction, so that a refused row costs only itself."""
        inserted = 0
        accepted: list[Run] = []
        refused: list[RejectedEvent] = []
        with connection.write():
            for index, run in enumerate(runs):
                try:
                    inserted += execution_results.insert(connection, run)
                    accepted.append(run)
                except DataRefused as error:
                    refused.append(refusal(index, str(error)))
            if not accepted:
                _suspect_the_schema(connection, runs)
            new = rejected_events.insert_all(connection, [*rejected, *refused])
            failures = executions.promote(connection, _exec_ids(accepted))
        return Written(inserted, len(refused), new, failures)


def _exec_ids(runs: Sequence[Run]) -> list[str]:
    """Return each execution that the runs name once, in order; an ad-hoc run names none."""
    return list(dict.fromkeys(run.exec_id for run in runs if run.exec_id))


def _suspect_the_schema(connection: Connection, runs: Sequence[Run]) -> None:
    """Raise SchemaFault if a plain row is refused as well, when all of a batch were.

    A schema that drifted refuses everything; rejecting on its account would lose good messages.
    """
    if not runs:
        return
    plain = runs[0]._replace(
        result_id=f"probe-{uuid.uuid4()}",
        request_id="probe",
        exec_id="",
        pc_id="probe",
        version="0",
        job_id="probe",
    )
    try:
        with connection.trial():
            execution_results.insert(connection, plain)
    except DataRefused as error:
        raise SchemaFault(f"every row is refused, also a plain one: {error}") from error
