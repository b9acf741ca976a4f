"""The broker thread: one asyncio loop that connects, binds, pulls, settles and leaves.

Everything of the broker stays in this thread. Batches go out through `submit`, decisions come back
through `settle`; `start`, `stop_pulling` and `close` are called by the main thread.
"""

import asyncio
import contextlib
import logging
import random
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import nats.errors
from nats.js import JetStreamContext

from worker.binding import Binding, backlog, bind
from worker.connection import Connection, close, connect
from worker.decisions import Ack, Decision
from worker.errors import BrokerFault, PullLost, describe
from worker.in_flight import InFlight
from worker.instants import NANOSECONDS
from worker.manifest_watch import ManifestWatch
from worker.manifests import ManifestCache
from worker.messages import Batch, Decisions
from worker.puller import Puller
from worker.settings import Settings
from worker.totals import Totals

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

API_TIMEOUT = 5.0
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 10.0
_IDLE_CHECK = 0.1
_YIELD_AFTER = 500


class _Stopped(Exception):
    """The stop came while something else was awaited."""


class Broker:
    """Owns the thread, its loop, and all that is in flight.

    `failed` gets the error that ended the thread, `idle` is called once when `until_idle` is set
    and nothing is pending and nothing unsettled, `connected` once with the server's version; all
    are called in the broker thread.
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
        self._settings = settings
        self._manifests = manifests
        self._totals = totals
        self._submit = submit
        self._failed = failed
        self._idle = idle
        self._connected = connected
        self._in_flight = InFlight(settings.in_flight)
        self._decided: deque[Decisions] = deque()
        self._thread = threading.Thread(target=self._run, name="broker", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._connection: Connection | None = None
        self._puller: Puller | None = None
        self._binding: Binding | None = None
        self._paused_until = 0.0
        self._was_connected = False
        self.pending: int | None = None

    # --- called by other threads ---

    def start(self) -> None:
        """Start the thread."""
        self._loop = asyncio.new_event_loop()
        self._work = asyncio.Event()
        self._stopping = asyncio.Event()
        self._stopped_pulling = asyncio.Event()
        self._closing = asyncio.Event()
        self._fatal: asyncio.Future[None] = self._loop.create_future()
        self._watch = ManifestWatch(self._settings.bucket, self._manifests)
        self._thread.start()

    def settle(self, decisions: Decisions) -> None:
        """Take the decisions of a batch, from any thread."""
        self._decided.append(decisions)
        self._call(self._work.set)

    def stop_pulling(self, timeout: float) -> None:
        """Stop pulling and give back what was not begun; waits for that up to `timeout` seconds."""
        if self._thread.ident is None:
            return
        self._call(self._stopping.set)
        self._wait(self._stopped_pulling, timeout)

    def close(self, timeout: float) -> int:
        """Settle what was decided, flush, close the connection and end the thread.

        Waits up to `timeout` seconds; returns how many messages were left unsettled, which the
        broker will deliver again.
        """
        if self._thread.ident is None:
            return 0
        self._call(self._stopping.set)
        self._call(self._closing.set)
        self._thread.join(timeout)
        return len(self._in_flight)

    def _call(self, callback: Callable[[], object]) -> None:
        if self._loop is None:
            return
        # A loop that has ended takes nothing more: what was left unsettled is delivered again.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback)

    def _wait(self, event: asyncio.Event, timeout: float) -> None:
        reached = threading.Event()

        async def report() -> None:
            await event.wait()
            reached.set()

        def begin() -> None:
            self._report = asyncio.ensure_future(report())

        self._call(begin)
        reached.wait(timeout if self._thread.is_alive() else 0)

    # --- the broker thread ---

    def _run(self) -> None:
        loop = self._loop
        assert loop is not None
        try:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(self._serve())
        except BaseException as error:  # noqa: BLE001 (nothing may end a thread unseen)
            self._failed(error)

    async def _serve(self) -> None:
        """Run until closed; the first error of any part ends it and is raised."""
        attend = asyncio.create_task(self._attend())
        sessions = asyncio.create_task(self._sessions())
        parts = {attend, sessions, self._fatal}
        try:
            await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in parts:
                if part.done():
                    part.result()
        finally:
            self._stopped_pulling.set()
            for task in (attend, sessions):
                task.cancel()
            await asyncio.gather(attend, sessions, return_exceptions=True)

    def _end(self, error: BaseException) -> None:
        """End the thread with an error that happened in a callback."""
        if not self._fatal.done():
            self._fatal.set_exception(error)

    async def _attend(self) -> None:
        """Hand on what arrived and settle what was decided, whenever there is something."""
        while True:
            await self._work.wait()
            self._work.clear()
            await self._settle_decided()
            self._dispatch()

    def _dispatch(self) -> None:
        """Give all that has arrived to the threads that are free, so that batches grow by load."""
        if self._stopping.is_set() or asyncio.get_running_loop().time() < self._paused_until:
            return
        while self._in_flight.waiting and self._in_flight.batches < self._settings.threads:
            self._submit(self._in_flight.begin(self._settings.batch))

    async def _settle_decided(self) -> None:
        published = 0
        while self._decided:
            decisions = self._decided.popleft()
            for reply, decision in self._in_flight.settle(decisions):
                await self._publish(reply, _verb(decision))
                published += 1
                # A publish that only fills a buffer never yields to the loop by itself.
                if published % _YIELD_AFTER == 0:
                    await asyncio.sleep(0)
            if decisions.pause:
                self._pause(decisions.pause)
        if published and self._puller is not None:
            self._puller.changed.set()

    async def _publish(self, reply: str, verb: bytes) -> None:
        """Settle one message; what cannot be sent is delivered again, which is harmless."""
        try:
            if self._connection is None:
                raise nats.errors.ConnectionClosedError
            await self._connection.publish(reply, verb)
            self._totals.add(settled=1)
        except (nats.errors.Error, OSError):
            self._totals.add(settlements_dropped=1)

    def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.call_later(seconds, self._work.set)
        if self._puller is not None:
            self._puller.pause(seconds)

    async def _sessions(self) -> None:
        """Keep a session with the broker until the close; a lost one is made anew."""
        backoff = _FIRST_BACKOFF
        with contextlib.suppress(_Stopped):
            while True:
                try:
                    await self._session()
                    return
                except BrokerFault as error:
                    log.warning("broker.unavailable", extra={"error": describe(error)})
                backoff = await self._rest(backoff)

    async def _session(self) -> None:
        connection = await self._or_stop(connect(self._settings, self._end))
        self._connection = connection
        if not self._was_connected:
            self._was_connected = True
            self._connected(connection.server())
        js = connection.jetstream(timeout=API_TIMEOUT)
        helpers = [asyncio.create_task(self._watch.run(js))]
        if self._settings.until_idle:
            helpers.append(asyncio.create_task(self._report_idle(js)))
        for helper in helpers:
            helper.add_done_callback(self._helper_done)
        try:
            with contextlib.suppress(_Stopped):
                await self._keep_pulling(connection, js)
            await self._give_back_waiting()
            self._stopped_pulling.set()
            await self._closing.wait()
            await self._settle_decided()
            await self._flush(connection)
        finally:
            for helper in helpers:
                helper.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)
            self._connection = None
            await close(connection)

    def _helper_done(self, helper: asyncio.Task[None]) -> None:
        error = None if helper.cancelled() else helper.exception()
        if error is not None:
            self._end(error)

    async def _keep_pulling(self, connection: Connection, js: JetStreamContext) -> None:
        backoff = _FIRST_BACKOFF
        while not self._stopping.is_set():
            try:
                await self._or_stop(connection.usable())
                puller = await self._or_stop(self._bound(connection, js))
                backoff = _FIRST_BACKOFF
                await self._pull(puller)
            except PullLost as error:
                connection.check()
                log.warning("pull.lost", extra={"error": describe(error)})
                self._watch.refresh()
                backoff = await self._rest(backoff)

    async def _bound(self, connection: Connection, js: JetStreamContext) -> Puller:
        settings = self._settings
        binding = await bind(js, settings)
        if self._binding is not None and not binding.same_messages(self._binding):
            forgotten = self._in_flight.forget()
            log.warning("durable.anew", extra={"messages_forgotten": forgotten})
        self._binding = binding
        self.pending = binding.pending + binding.unsettled
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
        return Puller(connection, subject, self._in_flight, self._work.set)

    async def _pull(self, puller: Puller) -> None:
        self._puller = puller
        stop = asyncio.create_task(self._stopping.wait())
        stop.add_done_callback(lambda _: puller.stop())
        try:
            await puller.run()
        finally:
            self._puller = None
            stop.cancel()

    async def _give_back_waiting(self) -> None:
        for reply in self._in_flight.give_up_waiting():
            await self._publish(reply, b"-NAK")
            self._totals.add(given_back=1)

    async def _flush(self, connection: Connection) -> None:
        if connection.is_connected:
            try:
                await connection.flush(timeout=2)
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
            self.pending = pending + unsettled
            if self.pending == 0 and len(self._in_flight) == 0:
                self._idle()
                return

    async def _rest(self, backoff: float) -> float:
        """Wait for about `backoff` seconds and return the next; raises _Stopped at a stop."""
        seconds = backoff * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
        await self._or_stop(asyncio.sleep(seconds))
        return min(backoff * 2, _LONGEST_BACKOFF)

    async def _or_stop(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns, or cancel it and raise _Stopped when the stop comes first."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise _Stopped
        finally:
            task.cancel()
            stop.cancel()
            await asyncio.gather(task, stop, return_exceptions=True)


def _verb(decision: Decision) -> bytes:
    if isinstance(decision, Ack):
        return b"+ACK"
    return b'-NAK {"delay": %d}' % int(decision.delay * NANOSECONDS)
