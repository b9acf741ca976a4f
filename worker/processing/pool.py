"""The repository pool: threads that take work from one queue, each with its own connection."""

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any, TypeVar

from repo import Database
from repo.batch_writer import Writer, WriteResult
from repo.checkpoint import CheckpointGuard, Position
from repo.repository import GuardedRepository
from worker.messages import Batch, Fetch, Message
from worker.processing.processor import BatchProcessor
from worker.processing.queues import MakeRepository, PoolThread, ResultQueue, WorkQueue
from worker.settings import Settings
from worker.status.worker_status import ProjectionStatus
from worker.supervisor import Supervisor

_Answer = TypeVar("_Answer")

_GRACE = 2.0


class CommitOrder:
    """Lets batches be written in the order of their numbers, from 1, whichever thread has them.

    So the first of two events of one run wins also where they come in neighbouring batches.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next = 1

    def wait(self, number: int) -> None:
        """Return when it is a batch's turn."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)

    def end(self, number: int) -> None:
        """Give the turn to the next batch; called once for each number, also after an error."""
        with self._changed:
            self._changed.wait_for(lambda: self._next == number)
            self._next = number + 1
            self._changed.notify_all()


class ProjectionPool:
    """The pool as one projection uses it: its batches, its order of commits, its checkpoint.

    The result of each batch goes to the projection's result queue.
    """

    def __init__(
        self,
        pool: "RepositoryPool",
        position: Position,
        processor: BatchProcessor,
        results: ResultQueue,
        status: ProjectionStatus,
    ) -> None:
        self._work = pool.work
        self._processor = processor
        self._results = results
        self._status = status
        self._commit_order = CommitOrder()
        self._repositories = pool.add(
            processor.projection.writer(position), CheckpointGuard(position)
        )

    def submit(self, batch: Batch) -> None:
        """Queue a batch for the next free thread."""
        self._work.put(partial(self._process, batch))

    def catch_up(self, batch: Batch) -> "Future[WriteResult]":
        """Queue messages that were read again, for the next free thread."""
        return self.ask(lambda repository: self._processor.catch_up(batch, repository))

    def missing_objects(self, messages: Sequence[Message]) -> "Future[dict[Message, Fetch]]":
        """Ask what has to be fetched before these messages can be written."""
        return self.ask(lambda repository: self._processor.missing_objects(messages, repository))

    def report(self, *, at_end: bool = False) -> None:
        """Log what has been held back to be counted; from any thread."""
        self._processor.report(at_end=at_end)

    def ask(self, question: Callable[[GuardedRepository[Any]], _Answer]) -> "Future[_Answer]":
        """Queue a question about the database; its error, too, becomes the future's."""
        return self._work.ask(lambda thread: question(thread.repository(self._repositories)))

    def _process(self, batch: Batch, thread: PoolThread) -> None:
        began = time.monotonic()
        try:
            result = self._processor.process(
                batch,
                thread.repository(self._repositories),
                partial(self._commit_order.wait, batch.number),
            )
        finally:
            self._commit_order.end(batch.number)
        if result.failure is None:
            self._status.projected(len(batch.messages) - result.left, time.monotonic() - began)
        self._results.put(result)


class RepositoryPool:
    """A fixed number of threads that process batches and answer questions about the database.

    The error that ends a thread goes to the supervisor.
    """

    def __init__(self, settings: Settings, database: Database, supervisor: Supervisor) -> None:
        self.work = WorkQueue()
        self._settings = settings
        self._database = database
        self._supervisor = supervisor
        self._give_up = threading.Event()
        # Daemons: a write that hangs in a dead disk must not keep the process from ending.
        self._threads = [
            threading.Thread(target=self._run, name=f"pool-{number}", daemon=True)
            for number in range(1, settings.threads + 1)
        ]

    def add(self, writer: Writer[Any], guard: CheckpointGuard) -> MakeRepository:
        """Return what makes the repositories of a projection, one for each thread."""
        return partial(
            GuardedRepository,
            self._database,
            writer,
            retry_for=self._settings.retry_for,
            give_up=self._give_up,
            guard=guard,
        )

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self, deadline: float) -> bool:
        """Let the threads finish what is queued; returns whether all have ended.

        Past `deadline` (monotonic) retries are given up, and what is not written is nak'd; an
        attempt that has begun gets up to 2 s more.
        """
        self.work.close(len(self._threads))
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
            with PoolThread() as thread:
                while (work := self.work.get()) is not None:
                    work(thread)
        except BaseException as error:  # noqa: BLE001 (no thread may end unseen)
            self._give_up.set()  # the others must not go on writing to a corrupt database
            self._supervisor.fail(error)
