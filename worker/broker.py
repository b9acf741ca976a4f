"""The broker thread: one asyncio loop that connects, binds, pulls, settles and leaves.

Everything of the broker stays in this thread. Batches go out through `submit`, decisions come back
through `settle`; `start`, `stop_pulling` and `close` are called by the main thread.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable

import nats.errors
from nats.js import JetStreamContext

from worker.binding import Binding, backlog, bind
from worker.connection import Connection, close, connect
from worker.errors import BrokerFault, PullLost, describe
from worker.handover import Handover
from worker.logs import Repeats
from worker.manifest_watch import ManifestWatch
from worker.manifests import ManifestCache
from worker.messages import Batch, Decisions
from worker.puller import Puller
from worker.settings import Settings
from worker.stopping import FIRST_BACKOFF, Stop, Stopped, cancel
from worker.totals import Totals

log = logging.getLogger(__name__)

API_TIMEOUT = 5.0
_FLUSH_TIMEOUT = 1
_REPEAT_WARNING_AFTER = 15.0
_IDLE_CHECK = 0.1


class Broker:
    """Owns the thread, its loop, and all that is in flight.

    `failed` gets the error that ended the thread, `idle` is called once when `until_idle` is set
    and nothing is pending and nothing unsettled, `connected` once with the server's version; all
    are called in the broker thread. `expected` is how many messages the process will have projected
    when it is idle, or None before the first bind.
    """

    def __init__(
        self,
        settings: Settings,
        manifests: ManifestCache,
        totals: Totals,
        *,
        submit: Callable[[Batch], None],
        failed: Callable[[BaseException], None],
        idle: Callable[[], None],
        connected: Callable[[str], None],
    ) -> None:
        self.expected: int | None = None
        self._settings = settings
        self._totals = totals
        self._failed = failed
        self._idle = idle
        self._connected = connected
        self._was_connected = False
        self._is_idle = False
        self._repeats = Repeats(_REPEAT_WARNING_AFTER)
        self._watch = ManifestWatch(settings.bucket, manifests)
        self._handover = Handover(settings, totals, submit, self._watch.catch_up)
        self._binding: Binding | None = None
        self._stop = Stop()
        self._closing = asyncio.Event()
        self._pulling_ended = threading.Event()
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
        self._handover.decide(decisions)
        self._call(self._handover.work.set)

    def stop_pulling(self, timeout: float) -> None:
        """Stop pulling and give back what was not begun; waits for that up to `timeout` seconds."""
        if self._thread.is_alive():
            self._call(self._stop.set)
            self._pulling_ended.wait(timeout)

    def close(self, timeout: float) -> int:
        """Settle what was decided, flush, close the connection and end the thread.

        Waits up to `timeout` seconds; returns how many messages were left unsettled, which the
        broker will deliver again.
        """
        if self._thread.is_alive():
            self._call(self._stop.set)
            self._call(self._closing.set)
            self._thread.join(timeout)
        return len(self._handover.in_flight)

    def is_alive(self) -> bool:
        """Tell whether the thread still runs."""
        return self._thread.is_alive()

    def _call(self, callback: Callable[[], object]) -> None:
        # A loop that has ended takes nothing more: what was left unsettled is delivered again.
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
        attend = asyncio.create_task(self._handover.attend())
        sessions = asyncio.create_task(self._sessions())
        parts = {attend, sessions, self._fatal}
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            await cancel(attend, sessions)

    def _end(self, error: BaseException) -> None:
        """End the thread with an error that happened in a callback."""
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _sessions(self) -> None:
        """Keep a session with the broker until the close; a lost one is made anew."""
        backoff = FIRST_BACKOFF
        with contextlib.suppress(Stopped):
            while True:
                try:
                    return await self._session()
                except BrokerFault as error:
                    log.warning("broker.unavailable", extra={"error": describe(error)})
                backoff = await self._stop.rest(backoff)

    async def _session(self) -> None:
        """Connect, pull until the stop, settle until the close, leave."""
        connection = await self._stop.interrupts(connect(self._settings, self._end, self._repeats))
        self._handover.connection = connection
        if not self._was_connected:
            self._was_connected = True
            self._connected(connection.server())
        js = connection.jetstream(timeout=API_TIMEOUT)
        helpers = self._start_helpers(js)
        try:
            with contextlib.suppress(Stopped):
                await self._keep_pulling(connection, js)
            self._handover.stop_dispatching()
            await self._handover.give_back_waiting()
            self._pulling_ended.set()
            await self._closing.wait()
            await self._handover.settle_decided()
            await self._handover.give_back_waiting()
            await self._flush(connection)
        finally:
            for helper in helpers:
                helper.remove_done_callback(self._helper_done)
            await cancel(*helpers)
            self._handover.unbind()
            self._handover.connection = None
            await close(connection)

    def _start_helpers(self, js: JetStreamContext) -> list[asyncio.Task[None]]:
        helpers = [asyncio.create_task(self._watch.run(js))]
        if self._settings.until_idle:
            helpers.append(asyncio.create_task(self._report_idle(js)))
        for helper in helpers:
            helper.add_done_callback(self._helper_done)
        return helpers

    def _helper_done(self, helper: asyncio.Task[None]) -> None:
        """See to it that no helper ends unseen; the library may cancel what waits on it."""
        if helper.cancelled():
            self._end(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self._end(error)

    async def _keep_pulling(self, connection: Connection, js: JetStreamContext) -> None:
        """Bind and pull until the stop; a lost pull is made anew with fresh credit."""
        backoff = FIRST_BACKOFF
        while not self._stop.is_set():
            try:
                await self._stop.interrupts(connection.usable())
                puller = await self._stop.interrupts(self._bound(connection, js))
                backoff = FIRST_BACKOFF
                await self._pull(puller)
            except PullLost as error:
                self._handover.unbind()
                connection.check()
                log.warning("pull.lost", extra={"error": describe(error)})
                self._watch.refresh()
                backoff = await self._stop.rest(backoff)

    async def _bound(self, connection: Connection, js: JetStreamContext) -> Puller:
        settings = self._settings
        binding = await bind(js, settings)
        anew = self._binding is not None and not binding.same_messages(self._binding)
        unsettled = self._handover.bind(anew=anew)
        if anew:
            log.warning("durable.anew", extra={"messages_not_settled": unsettled})
        self._binding = binding
        self._expect(binding.pending + binding.unsettled)
        await self._watch.first_attempt()
        log.info(
            "pull.started",
            extra={
                "stream": settings.stream,
                "durable": settings.durable,
                "pending": binding.pending,
                "unsettled": binding.unsettled,
            },
        )
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.durable}"
        return Puller(connection, subject, self._handover.in_flight, self._handover.work.set)

    def _expect(self, more: int) -> None:
        self.expected = self._totals["messages"] + more

    async def _pull(self, puller: Puller) -> None:
        self._handover.puller = puller
        stop = asyncio.create_task(self._stop.wait())
        stop.add_done_callback(lambda _: puller.stop(idle=self._is_idle))
        try:
            await puller.run()
        finally:
            self._handover.puller = None
            stop.cancel()

    async def _flush(self, connection: Connection) -> None:
        if connection.is_connected:
            try:
                await connection.flush(timeout=_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("broker.not_flushed", extra={"error": describe(error)})

    async def _report_idle(self, js: JetStreamContext) -> None:
        """Call `idle` as soon as nothing is pending and nothing unsettled, here or elsewhere."""
        while True:
            await asyncio.sleep(_IDLE_CHECK)
            if self._binding is None:
                continue
            try:
                pending, unsettled = await backlog(js, self._settings)
            except BrokerFault:
                continue  # the session notices by itself
            self._expect(pending + unsettled)
            if pending == unsettled == 0 and len(self._handover.in_flight) == 0:
                self._is_idle = True
                self._idle()
                return
