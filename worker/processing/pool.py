"""The repository pool: threads that take batches from one queue and hand back decisions.

Between batches they answer questions of the broker thread about what is in the database.

Each thread opens its own database connection and closes it at its end.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

from repo.checkpoint import Checkpoint, CheckpointGuard, StoredCheckpoint
from repo.errors import TransientError, UnavailableError
from repo.repository import Repository
from repo.sqlite.database import Database
from worker.errors import DatabaseBroken, DatabaseUnavailable, describe
from worker.messages import Batch, Decisions
from worker.processing.processor import Projection

log = logging.getLogger(__name__)

_GRACE = 2.0

_Answer = TypeVar("_Answer")


class CommitOrder:
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


class _Question(Generic[_Answer]):
    """Something to find out or to do in the database, with a place for the answer or the error."""

    def __init__(self, question: Callable[[Repository], _Answer]) -> None:
        self.answer: Future[_Answer] = Future()
        self._question = question

    def put_to(self, repository: Repository) -> None:
        if not self.answer.set_running_or_notify_cancel():
            return
        try:
            self.answer.set_result(self._question(repository))
        except (TransientError, UnavailableError) as error:
            broken = isinstance(error, UnavailableError)
            away = (DatabaseBroken if broken else DatabaseUnavailable)(describe(error))
            away.__cause__ = error
            self.answer.set_exception(away)
        except Exception as error:  # noqa: BLE001 (whoever asked gets it, and decides)
            self.answer.set_exception(error)


class Pool:
    """A fixed number of threads that project batches.

    `settle` gets the decisions of each batch, `projected` the messages of each that is committed
    and the seconds that it took, and `failed` the error that ended a thread; all are called in a
    pool thread.
    """

    def __init__(
        self,
        threads: int,
        database: Database,
        guard: CheckpointGuard,
        projection: Projection,
        *,
        retry_for: float,
        settle: Callable[[Decisions], None],
        failed: Callable[[BaseException], None],
        projected: Callable[[int, float], None] = lambda _messages, _seconds: None,
    ) -> None:
        self._database = database
        self._guard = guard
        self._projection = projection
        self._retry_for = retry_for
        self._settle = settle
        self._failed = failed
        self._projected = projected
        self._work: queue.SimpleQueue[Batch | _Question[Any] | None] = queue.SimpleQueue()
        self._commit_order = CommitOrder()
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
        self._work.put(batch)

    def recall(self) -> Future[StoredCheckpoint]:
        """Return what the database knows of the checkpoint; raises DatabaseUnavailable."""
        return self._ask(lambda repository: repository.recall())

    def begin(self, checkpoint: Checkpoint, recalled: StoredCheckpoint) -> Future[None]:
        """Put a checkpoint into the file that was recalled from; raises DatabaseUnavailable."""
        return self._ask(lambda repository: repository.begin(checkpoint, recalled))

    def _ask(self, question: Callable[[Repository], _Answer]) -> Future[_Answer]:
        asked = _Question(question)
        self._work.put(asked)
        return asked.answer

    def stop(self, deadline: float) -> bool:
        """Let the threads finish what is queued; tell whether all have ended.

        Past `deadline` (monotonic) retries are given up, and what is not written is nak'd; an
        attempt that has begun gets up to 2 s more.
        """
        for _ in self._threads:
            self._work.put(None)
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
                self._database,
                retry_for=self._retry_for,
                give_up=self._give_up,
                guard=self._guard,
            ) as repository:
                while (work := self._work.get()) is not None:
                    if isinstance(work, _Question):
                        work.put_to(repository)
                    else:
                        self._settle(self._project(work, repository))
        except BaseException as error:  # noqa: BLE001 (nothing may end a thread unseen)
            self._give_up.set()  # the others must not go on writing to a damaged file
            self._failed(error)

    def _project(self, batch: Batch, repository: Repository) -> Decisions:
        began = time.monotonic()
        try:
            decisions = self._projection.project(
                batch, repository, lambda: self._commit_order.wait(batch.number)
            )
        finally:
            self._commit_order.end(batch.number)
        if not decisions.fault:
            self._projected(len(batch.messages), time.monotonic() - began)
        return decisions
