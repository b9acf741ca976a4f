"""The repository pool: threads that take batches from one queue and hand back decisions.

Each thread opens its own database connection and closes it at its end.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable

from repo.database import Database
from repo.repository import Repository
from worker.messages import Batch, Decisions
from worker.projection import Projection

log = logging.getLogger(__name__)

_GRACE = 2.0


class Turns:
    """Lets batches be written in the order of their numbers, from 1, whichever thread has them.

    So the first of two starts of one run wins also where they come in neighbouring batches.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 1

    def wait(self, number: int) -> None:
        """Return when it is a batch's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)

    def end(self, number: int) -> None:
        """Give the turn to the next batch; to be called once for each number, in any case."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)
            self._next = number + 1
            self._changed.notify_all()


class Pool:
    """A fixed number of threads that project batches.

    `settle` gets the decisions of each batch and `failed` the error that ended a thread; both are
    called in a pool thread.
    """

    def __init__(
        self,
        threads: int,
        database: Database,
        projection: Projection,
        *,
        retry_for: float,
        settle: Callable[[Decisions], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._database = database
        self._projection = projection
        self._retry_for = retry_for
        self._settle = settle
        self._failed = failed
        self._batches: queue.SimpleQueue[Batch | None] = queue.SimpleQueue()
        self._turns = Turns()
        self._give_up = threading.Event()
        # Daemons: a write that hangs in a dead disk must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"pool-{number}", daemon=True)
            for number in range(1, threads + 1)
        ]

    def start(self) -> None:
        """Start the threads."""
        for thread in self._threads:
            thread.start()

    def submit(self, batch: Batch) -> None:
        """Queue a batch for the next free thread."""
        self._batches.put(batch)

    def stop(self, deadline: float) -> bool:
        """Let the threads finish what is queued; tell whether all have ended.

        Past `deadline` (monotonic) retries are given up, and what is not written is nak'd; an
        attempt that has begun gets up to 2 s more.
        """
        for _ in self._threads:
            self._batches.put(None)
        if self._joined(deadline):
            return True
        self._give_up.set()
        return self._joined(time.monotonic() + min(self._database.busy_timeout + 0.5, _GRACE))

    def _joined(self, deadline: float) -> bool:
        for thread in self._threads:
            if thread.ident is not None:
                thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in self._threads)

    def _run(self) -> None:
        try:
            with Repository(
                self._database, retry_for=self._retry_for, give_up=self._give_up
            ) as repository:
                while (batch := self._batches.get()) is not None:
                    self._settle(self._project(batch, repository))
        except BaseException as error:  # noqa: BLE001 (nothing may end a thread unseen)
            self._give_up.set()  # the others must not go on writing to a damaged file
            self._failed(error)

    def _project(self, batch: Batch, repository: Repository) -> Decisions:
        try:
            return self._projection.project(
                batch, repository, lambda: self._turns.wait(batch.number)
            )
        finally:
            self._turns.end(batch.number)
