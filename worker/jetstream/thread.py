"""The consumer thread: one asyncio loop that owns everything of the broker.

Batches go out through the pool's work queue, results come back through the result queue. The main
thread calls `start`, `stop_pulling` and `close`.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from worker.jetstream.sessions import Sessions
from worker.jetstream.tasks import cancel
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

_TURN_AFTER = 0.5


class ConsumerThread:
    """Owns the thread, its loop, and the outstanding messages.

    The error that ends the thread goes to the supervisor.
    """

    def __init__(self, sessions: Sessions, status: WorkerStatus, supervisor: Supervisor) -> None:
        self._sessions = sessions
        self._status = status
        self._supervisor = supervisor
        self._thread = threading.Thread(target=self._run, name="consumer", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- called by the main thread ---

    def start(self) -> None:
        self._loop = asyncio.new_event_loop()
        for session in self._sessions.all:
            session.results.open(self._loop, session.dispatcher.wake)
        self._thread.start()

    def stop_pulling(self, timeout: float) -> None:
        """Stop pulling and nak what was not begun; waits for that up to `timeout` seconds."""
        if self._thread.is_alive():
            self._call(self._sessions.stop.set)
            self._sessions.pulling_ended.wait(timeout)

    def close(self, timeout: float) -> int:
        """Ack the last results, flush, close the connection and end the thread.

        Waits up to `timeout` seconds; returns how many messages are still outstanding, which the
        broker will deliver again.
        """
        if self._thread.is_alive():
            self._call(self._sessions.stop.set)
            self._call(self._sessions.closing.set)
            self._thread.join(timeout)
        return self._sessions.outstanding

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def _call(self, callback: Callable[[], object]) -> None:
        # A closed loop calls nothing more: what is outstanding is delivered again.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    # --- the consumer thread ---

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (no thread may end unseen)
            self._supervisor.fail(error)
        finally:
            self._sessions.pulling_ended.set()

    async def _serve(self) -> None:
        """Run until closed; the first error of any part ends it and is raised."""
        running = [self._sessions.run(), self._sessions.upkeep.run(), self._turn()]
        for session in self._sessions.all:
            running += [session.dispatcher.run(), session.dispatcher.keep_ready()]
        parts = [asyncio.create_task(part) for part in running]
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            await cancel(*parts)

    async def _turn(self) -> None:
        """Show that the loop turns; whether it gets anything done is shown elsewhere."""
        while True:
            self._status.health.loop_alive()
            await asyncio.sleep(_TURN_AFTER)
