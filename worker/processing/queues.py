"""The two queues between the consumer thread and the pool."""

import asyncio
import contextlib
import queue
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, Self, TypeVar

from repo.repository import GuardedRepository
from worker.messages import BatchResult

_Answer = TypeVar("_Answer")

MakeRepository = Callable[[], GuardedRepository[Any]]
"""Makes a projection's repository for one thread."""


class PoolThread:
    """What one thread of the pool owns: a repository for each projection, closed at its end."""

    def __init__(self) -> None:
        self._repositories: dict[MakeRepository, GuardedRepository[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.ExitStack() as closing:
            for repository in self._repositories.values():
                closing.callback(repository.close)

    def repository(self, make: MakeRepository) -> GuardedRepository[Any]:
        """Return this thread's repository of a projection, made at its first use."""
        if make not in self._repositories:
            self._repositories[make] = make()
        return self._repositories[make]


Work = Callable[[PoolThread], None]


class WorkQueue:
    """Work for the pool: callables that take the thread that runs them."""

    def __init__(self) -> None:
        self._queue: queue.SimpleQueue[Work | None] = queue.SimpleQueue()

    def put(self, work: Work) -> None:
        """Queue work for the next free thread."""
        self._queue.put(work)

    def ask(self, question: Callable[[PoolThread], _Answer]) -> "Future[_Answer]":
        """Queue a question about the database; its error, too, becomes the future's."""
        future: Future[_Answer] = Future()

        def answer(thread: PoolThread) -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(question(thread))
            except Exception as error:  # noqa: BLE001 (raised where the future is awaited)
                future.set_exception(error)

        self.put(answer)
        return future

    def get(self) -> Work | None:
        """Wait for work; None means that the thread should end."""
        return self._queue.get()

    def close(self, threads: int) -> None:
        """End so many threads, once all that is queued is done."""
        for _ in range(threads):
            self._queue.put(None)


class ResultQueue:
    """Results on their way back; `put` may be called by any thread, the rest by the reader's."""

    def __init__(self) -> None:
        self._results: deque[BatchResult] = deque()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._results)

    def open(self, loop: asyncio.AbstractEventLoop, wake: Callable[[], None]) -> None:
        """Have `wake` called in a loop's thread after every result."""
        self._loop, self._wake = loop, wake

    def put(self, result: BatchResult) -> None:
        """Hand a result to the reader."""
        self._results.append(result)
        # A closed loop acks nothing more: the broker delivers those messages again.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake)

    def get(self) -> BatchResult:
        """Return the oldest result; raises IndexError where there is none."""
        return self._results.popleft()
