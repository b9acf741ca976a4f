"""One session with the broker, from the connect to the close. Broker thread only."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import nats.errors
from nats.js import JetStreamContext

from worker.binding import Binding, bind, differences, look, tell_differences, wanted_durable
from worker.connection import API_TIMEOUT, Connection, close, connect
from worker.errors import ConnectionLost, DatabaseAway, PullLost, describe
from worker.handover import Handover
from worker.in_step import InStep
from worker.lag import Lag
from worker.logs import Repeats
from worker.manifest_watch import ManifestWatch
from worker.progress import Progress
from worker.puller import Puller
from worker.readiness import Readiness
from worker.settings import Settings
from worker.stopping import FIRST_BACKOFF, Stop, Stopped, cancel
from worker.totals import Totals

log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 1
_IDLE_CHECK = 0.1
_LOOK_AFTER = 2.0


@dataclass
class Shared:
    """What outlives a session.

    `end` ends the thread with an error, `connected` is called once with the server's version,
    `idle` once when `until_idle` is set and nothing is left to do, `pulling_ended` when nothing
    more will be begun. `expected` is how many messages the process will have projected then.
    """

    settings: Settings
    totals: Totals
    handover: Handover
    watch: ManifestWatch
    in_step: InStep
    readiness: Readiness
    progress: Progress
    lag: Lag
    repeats: Repeats
    end: Callable[[BaseException], None]
    connected: Callable[[str], None]
    idle: Callable[[], None]
    pulling_ended: Callable[[], None]
    stop: Stop = field(default_factory=Stop)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    expected: int | None = None
    was_connected: bool = False
    is_idle: bool = False
    differing: dict[str, tuple[Any, Any]] = field(default_factory=dict)


class Session:
    """Connects, pulls until the stop, settles until the close, leaves."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._handover = shared.handover
        self._stop = shared.stop
        self._connection: Connection
        self._js: JetStreamContext

    async def run(self) -> None:
        """Return after an orderly stop; raises BrokerFault where only a new session can help."""
        shared, handover = self._shared, self._handover
        self._connection = connection = await self._stop.interrupts(
            connect(self._settings, shared.end, shared.repeats, shared.readiness)
        )
        handover.connection = connection
        handover.look = self._look
        self._note_connected()
        self._js = connection.jetstream(timeout=API_TIMEOUT)
        helpers = self._start_helpers()
        try:
            with contextlib.suppress(Stopped):
                await self._keep_pulling()
            handover.stop_dispatching()
            await handover.give_back_waiting()
            shared.pulling_ended()
            await shared.closing.wait()
            await handover.settle_decided()
            await handover.give_back_waiting()
            await self._flush()
        finally:
            for helper in helpers:
                helper.remove_done_callback(self._helper_done)
            await cancel(*helpers)
            handover.unbind()
            handover.connection = handover.look = None
            await close(connection)

    def _note_connected(self) -> None:
        if not self._shared.was_connected:
            self._shared.was_connected = True
            self._shared.connected(self._connection.server())
        else:
            self._shared.readiness.reconnections += 1
        self._shared.progress.step()

    def _start_helpers(self) -> list[asyncio.Task[None]]:
        helpers = [
            asyncio.create_task(self._shared.watch.run(self._js, self._connection.problem_since)),
            asyncio.create_task(self._handover.keep_in_hand()),
            asyncio.create_task(self._shared.lag.run(self._connection)),
        ]
        if self._settings.until_idle:
            helpers.append(asyncio.create_task(self._report_idle()))
        for helper in helpers:
            helper.add_done_callback(self._helper_done)
        return helpers

    def _helper_done(self, helper: asyncio.Task[None]) -> None:
        """See to it that no helper ends unseen; the library may cancel what waits on it."""
        if helper.cancelled():
            self._shared.end(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self._shared.end(error)

    async def _keep_pulling(self) -> None:
        """Bind and pull until the stop; what is lost is made anew with fresh credit."""
        backoff = FIRST_BACKOFF
        while not self._stop.is_set():
            began = time.monotonic()
            self._shared.progress.step()
            try:
                await self._stop.interrupts(self._connection.usable())
                self._shared.progress.step()
                puller = await self._stop.interrupts(self._bound_while_connected())
                if not self._handover.on_trial:
                    backoff = FIRST_BACKOFF
                await self._pull(puller)
            except DatabaseAway as error:
                self._shared.readiness.not_ready(f"database: {error}", error.cause)
                log.warning("database.away", extra={"error": str(error)})
                backoff = await self._stop.rest(backoff)
            except PullLost as error:
                self._handover.unbind()
                self._tell_lost(error, began)
                self._connection.check()
                self._shared.watch.refresh()
                if isinstance(error, ConnectionLost):
                    backoff = FIRST_BACKOFF  # what was tried before says nothing of the new one
                backoff = await self._stop.rest(backoff)

    async def _bound_while_connected(self) -> Puller:
        bound = asyncio.create_task(self._bound())
        lost = asyncio.create_task(self._connection.lost())
        try:
            await asyncio.wait({bound, lost}, return_when=asyncio.FIRST_COMPLETED)
            if bound.done():
                return bound.result()
            raise ConnectionLost("the connection was lost while the durable was bound")
        finally:
            await cancel(bound, lost)

    def _tell_lost(self, error: PullLost, began: float) -> None:
        cause = self._connection.problem_since(began)
        problem = f"{describe(error)} <- {cause}" if cause else describe(error)
        self._shared.readiness.not_ready(problem, error.cause)
        log.warning("pull.lost", extra={"error": problem})

    async def _bound(self) -> Puller:
        """Return a puller for the durable, once the database is in step with it."""
        settings, handover, progress = self._settings, self._handover, self._shared.progress
        binding = await self._bind()
        await handover.pool_idle()
        progress.step()
        outcome = await self._shared.in_step.come_in_step(self._connection, binding)
        progress.step()
        if outcome.is_anew:
            binding = await self._bind()
        self._tell_differences(binding, outcome.committed)
        await self._shared.watch.first_attempt()
        log.info(
            "pull.started",
            extra={
                "stream": settings.stream,
                "durable": settings.durable,
                "pending": binding.pending,
                "unsettled": binding.unsettled,
            },
        )
        handover.resume()
        if not handover.on_trial:
            self._shared.readiness.ready()
        return self._puller()

    def _puller(self) -> Puller:
        settings, handover = self._settings, self._handover
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.durable}"
        return Puller(
            self._connection, subject, handover.in_flight, lambda: handover.room, handover.work.set
        )

    async def _bind(self) -> Binding:
        binding = await bind(self._js, self._settings)
        is_first = self._handover.binding is None
        same = is_first or binding.same_messages(self._handover.binding)
        unsettled = self._handover.bind(binding)
        if not same:
            log.warning("durable.anew", extra={"messages_not_settled": unsettled})
        self._expect(binding)
        self._shared.progress.step()
        return binding

    def _tell_differences(self, binding: Binding, committed: int) -> None:
        wanted = wanted_durable(self._settings)
        differing = differences(wanted, binding.config, committed)
        if differing != self._shared.differing:
            self._shared.differing = differing
            tell_differences(self._settings, differing)

    def _expect(self, binding: Binding) -> None:
        more = binding.pending + binding.unsettled
        self._shared.expected = self._shared.totals["messages"] + more

    async def _pull(self, puller: Puller) -> None:
        """Pull until the stop; raises DatabaseAway at a fault of the database."""
        handover = self._handover
        handover.puller = puller
        stop = asyncio.create_task(self._stop.wait())
        stop.add_done_callback(lambda _: puller.stop(idle=self._shared.is_idle))
        fault = asyncio.create_task(handover.fault.wait())
        fault.add_done_callback(lambda _: puller.stop())
        watch = asyncio.create_task(self._watch_durable(puller))
        try:
            await puller.run()
        finally:
            handover.puller = None
            await cancel(stop, fault, watch)
        if handover.fault.is_set():
            raise DatabaseAway(handover.problem)

    async def _watch_durable(self, puller: Puller) -> None:
        """Look at the durable now and then, also while nothing is asked of it."""
        while True:
            await asyncio.sleep(_LOOK_AFTER)
            try:
                binding = await self._look()
            except PullLost as error:
                puller.lose(describe(error))
                return
            self._handover.note(binding)
            self._shared.progress.step()
            # On trial, with nothing to try: the checkpoint was written, so the database is there.
            if len(self._handover.in_flight) == 0:
                self._shared.readiness.ready()

    async def _look(self) -> Binding:
        assert self._handover.binding is not None
        return await look(self._js, self._settings, self._handover.binding)

    async def _flush(self) -> None:
        if self._connection.is_connected:
            try:
                await self._connection.flush(timeout=_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("broker.not_flushed", extra={"error": describe(error)})

    async def _report_idle(self) -> None:
        """Call `idle` as soon as nothing is pending and nothing unsettled, here or elsewhere."""
        shared = self._shared
        while True:
            await asyncio.sleep(_IDLE_CHECK)
            if self._handover.binding is None or not self._connection.is_connected:
                continue
            try:
                binding = await self._look()
            except PullLost:
                continue  # the pull notices by itself
            self._expect(binding)
            if binding.pending == binding.unsettled == 0 and len(self._handover.in_flight) == 0:
                shared.is_idle = True
                shared.idle()
                return
