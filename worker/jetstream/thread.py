"""The broker thread: one asyncio loop that connects, binds, pulls, settles and leaves.

Everything of the broker stays in this thread. Batches go out through `submit`, decisions come back
through `settle`; `start`, `stop_pulling` and `close` are called by the main thread.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Callable

from worker.errors import BrokerError, describe
from worker.jetstream.context import Shared
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import Lag
from worker.jetstream.manifest_sync import ManifestWatch
from worker.jetstream.reconcile import InStep
from worker.jetstream.reconciliation import Records
from worker.jetstream.session import Session
from worker.jetstream.tasks import FIRST_BACKOFF, Stopped, cancel
from worker.logs import Repeats
from worker.messages import Batch, Decisions
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.health import Progress
from worker.status.readiness import Readiness

log = logging.getLogger(__name__)

_REPEAT_WARNING_AFTER = 15.0
_GOOD_SESSION = 30.0
_TURN_AFTER = 0.5


class Broker:
    """Owns the thread, its loop, and all that is in flight.

    `failed` gets the error that ended the thread, `idle` is called once when `until_idle` is set
    and nothing is pending and nothing ack_pending, `connected` once with the server's version; all
    are called in the broker thread. `expected` is how many messages the process will have projected
    when it is idle, or None before the first bind.
    """

    def __init__(
        self,
        settings: Settings,
        manifests: ManifestCache,
        counters: Counters,
        readiness: Readiness,
        progress: Progress,
        *,
        submit: Callable[[Batch], None],
        records: Records,
        failed: Callable[[BaseException], None],
        idle: Callable[[], None],
        connected: Callable[[str], None],
    ) -> None:
        self._failed = failed
        watch = ManifestWatch(settings.bucket, manifests)
        self._dispatcher = Dispatcher(settings, counters, readiness, submit, watch.catch_up)
        self._pulling_ended = threading.Event()
        self._shared = Shared(
            settings=settings,
            counters=counters,
            dispatcher=self._dispatcher,
            watch=watch,
            caught_up=InStep(settings, records, progress),
            readiness=readiness,
            progress=progress,
            lag=Lag(settings.stream, self._dispatcher, progress),
            repeats=Repeats(_REPEAT_WARNING_AFTER),
            end=self._end,
            connected=connected,
            idle=idle,
            pulling_ended=self._pulling_ended.set,
        )
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None

    # --- called by other threads ---

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._fatal: asyncio.Future[None] = self._loop.create_future()
        self._thread.start()

    def settle(self, decisions: Decisions) -> None:
        """Take the decisions of a batch, from any thread."""
        self._dispatcher.decide(decisions)
        self._call(self._dispatcher.wake)

    def stop_pulling(self, timeout: float) -> None:
        """Stop pulling and give back what was not begun; waits for that up to `timeout` seconds."""
        if self._thread.is_alive():
            self._call(self._shared.stop.set)
            self._pulling_ended.wait(timeout)

    def close(self, timeout: float) -> int:
        """Settle what was decided, flush, close the connection and end the thread.

        Waits up to `timeout` seconds; returns how many messages were left ack_pending, which the
        broker will deliver again.
        """
        if self._thread.is_alive():
            self._call(self._shared.stop.set)
            self._call(self._shared.closing.set)
            self._thread.join(timeout)
        return len(self._dispatcher.outstanding)

    @property
    def expected(self) -> int | None:
        """How many messages the process will have projected when idle; None before it is bound."""
        return self._shared.expected

    def is_alive(self) -> bool:
        """Tell whether the thread still runs."""
        return self._thread.is_alive()

    def _call(self, callback: Callable[[], object]) -> None:
        # A loop that has ended takes nothing more: what was left ack_pending is delivered again.
        with contextlib.suppress(RuntimeError):
            if self._loop is not None:
                self._loop.call_soon_threadsafe(callback)

    # --- the broker thread ---

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (nothing may end a thread unseen)
            self._failed(error)
        finally:
            self._pulling_ended.set()

    async def _serve(self) -> None:
        """Run until closed; the first error of any part ends it and is raised."""
        attend = asyncio.create_task(self._dispatcher.attend())
        catching_up = asyncio.create_task(self._dispatcher.keep_caught_up())
        sessions = asyncio.create_task(self._sessions())
        turning = asyncio.create_task(self._turn())
        parts = {attend, catching_up, sessions, turning, self._fatal}
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            await cancel(attend, catching_up, sessions, turning)

    async def _turn(self) -> None:
        """Show that the loop turns; whether it gets anything done is shown elsewhere."""
        while True:
            self._shared.progress.turn()
            await asyncio.sleep(_TURN_AFTER)

    def _end(self, error: BaseException) -> None:
        """End the thread with an error that happened in a callback."""
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _sessions(self) -> None:
        """Keep a session with the broker until the close; a lost one is made anew."""
        stop = self._shared.stop
        backoff = FIRST_BACKOFF
        with contextlib.suppress(Stopped):
            while True:
                began = time.monotonic()
                try:
                    return await Session(self._shared).run()
                except BrokerError as error:
                    self._shared.readiness.not_ready(describe(error), error.cause)
                    log.warning("broker.unavailable", extra={"error": describe(error)})
                if time.monotonic() - began > _GOOD_SESSION:
                    backoff = FIRST_BACKOFF
                self._shared.progress.step()
                backoff = await stop.rest(backoff)
