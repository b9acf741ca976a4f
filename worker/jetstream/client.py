"""A connection to the broker for a command: one thread, without a worker around it.

The loop runs only while something is asked for, so that a command reads as one sequence. That is
enough for the broker, which waits for minutes for an answer to its pings.
"""

import asyncio
import contextlib
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from types import FrameType
from typing import Any, Self, TypeVar

from worker.errors import BrokerError
from worker.jetstream.connection import Connection, connect
from worker.jetstream.tasks import cancel
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

_Result = TypeVar("_Result")


class _CommandSupervisor(Supervisor):
    """Ends whatever the command waits for with the error."""

    def __init__(self, failure: "asyncio.Future[None]") -> None:
        super().__init__()
        self._failure = failure

    def fail(self, error: BaseException) -> None:
        super().fail(error)
        if not self._failure.done():
            self._failure.set_exception(error)


class BrokerClient:
    """Connected inside `with`, which raises BrokerError or ConfigurationError where it cannot be.

    Belongs to one thread.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._failure: asyncio.Future[None]
        self._task: asyncio.Task[Any] | None = None
        self._is_running = self._is_interrupted = False
        self.connection: Connection

    def __enter__(self) -> Self:
        self._catch_signals()
        self._runner = asyncio.Runner()
        try:
            self._failure = self._runner.get_loop().create_future()
            self.connection = self._run(self._connect())
        except BaseException:
            self._runner.close()
            self._end_by_signal()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        try:
            with self._uninterrupted():
                self._runner.run(self.connection.shut_down())
        finally:
            if self._failure.done():
                self._failure.exception()  # it was raised, or came too late to matter
            self._runner.close()
            self._end_by_signal()

    def _catch_signals(self) -> None:
        """Leave in order on signals that would kill the command: consumers would stay for a while.

        Until the end of the `with` they count as Ctrl-C; then the signal kills the process. While
        the loop runs, none raises: asyncio's own handler may do so in any task of the library, and
        the loop would not go on.
        """
        self._signal: int | None = None
        self._handlers: dict[int, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):
            if signal.getsignal(number) is signal.SIG_DFL:
                self._handlers[number] = signal.signal(number, self._on_signal)
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._handlers[signal.SIGINT] = signal.signal(signal.SIGINT, self._on_interrupt)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._signal = number
        self._on_interrupt(signal.SIGINT, frame)

    def _on_interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._is_running:
            raise KeyboardInterrupt
        self._is_interrupted = True
        if self._task is not None:
            self._runner.get_loop().call_soon_threadsafe(self._task.cancel)

    @contextlib.contextmanager
    def _uninterrupted(self) -> Iterator[None]:
        """Raise KeyboardInterrupt only at the end of the body."""
        self._is_running = True
        try:
            yield
        finally:
            self._is_running, self._task = False, None
            if self._is_interrupted:
                self._is_interrupted = False
                raise KeyboardInterrupt

    def _end_by_signal(self) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        if self._signal is not None:
            signal.raise_signal(self._signal)

    def do(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns.

        Raises its error, with what the server refused meanwhile where that caused it: a request
        that is not permitted only times out.
        """
        began = time.monotonic()
        try:
            return self._run(work)
        except BrokerError as error:
            problem = self.connection.problem_since(began)
            if problem is None:
                raise
            raise type(error)(f"{error}: {problem}") from error.__cause__

    def _run(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; raises its error, or KeyboardInterrupt once it has ended."""
        with self._uninterrupted():
            return self._runner.run(self._guarded(work))

    async def _connect(self) -> Connection:
        settings = self._settings
        status = WorkerStatus(
            [],
            stalled_after=settings.stalled_after,
            busy_timeout=settings.busy_timeout,
            is_observed=False,
        )
        return await connect(settings, _CommandSupervisor(self._failure), status, briefly=True)

    async def _guarded(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns; an error that no retry can repair ends it."""
        self._task = asyncio.current_task()
        if self._is_interrupted:
            work.close()
            raise asyncio.CancelledError
        doing = asyncio.create_task(work)
        try:
            parts: set[asyncio.Future[Any]] = {doing, self._failure}
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            if self._failure.done():
                self._failure.result()
            return doing.result()
        finally:
            await cancel(doing)
