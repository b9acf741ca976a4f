"""One session with the broker, from the connect to the close. Broker thread only."""

import asyncio
import contextlib
import logging

import nats.errors
from nats.js import JetStreamContext

from worker.errors import PullLost, describe
from worker.jetstream.connection import API_TIMEOUT, Connection, close, connect
from worker.jetstream.context import Shared
from worker.jetstream.pull_loop import Pulling
from worker.jetstream.tasks import Stopped, cancel

log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 1
_IDLE_CHECK = 0.1
_LONG_QUEUE = 1000
_LONG_QUEUE_CHECK = 1.0


class Session:
    """Connects, pulls until the stop, settles until the close, leaves."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._dispatcher = shared.dispatcher
        self._stop = shared.stop
        self._connection: Connection
        self._js: JetStreamContext
        self._pulling: Pulling

    async def run(self) -> None:
        """Return after an orderly stop; raises BrokerError where only a new session can help."""
        shared, dispatcher = self._shared, self._dispatcher
        self._connection = connection = await self._stop.interrupts(
            connect(self._settings, shared.end, shared.repeats, shared.readiness)
        )
        dispatcher.connection = connection
        self._note_connected()
        self._js = connection.jetstream(timeout=API_TIMEOUT)
        self._pulling = Pulling(shared, connection, self._js)
        dispatcher.look = self._pulling.look
        helpers = self._start_helpers()
        try:
            with contextlib.suppress(Stopped):
                await self._pulling.run()
            dispatcher.stop_dispatching()
            await dispatcher.give_back_waiting()
            shared.pulling_ended()
            await shared.closing.wait()
            await dispatcher.settle_decided()
            await dispatcher.give_back_waiting()
            await self._flush()
        finally:
            for helper in helpers:
                helper.remove_done_callback(shared.helper_done)
            await cancel(*helpers)
            dispatcher.unbind()
            dispatcher.connection = dispatcher.look = None
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
            asyncio.create_task(self._shared.watch.run(self._connection, self._js)),
            asyncio.create_task(self._dispatcher.keep_in_hand()),
            asyncio.create_task(self._shared.lag.run(self._connection)),
        ]
        if self._settings.until_idle:
            helpers.append(asyncio.create_task(self._report_idle()))
        for helper in helpers:
            helper.add_done_callback(self._shared.helper_done)
        return helpers

    async def _flush(self) -> None:
        if self._connection.is_connected:
            try:
                await self._connection.flush(timeout=_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("broker.not_flushed", extra={"error": describe(error)})

    async def _report_idle(self) -> None:
        """Call `idle` as soon as nothing is pending and nothing ack_pending, here or elsewhere."""
        shared = self._shared
        rest = _IDLE_CHECK
        while True:
            await asyncio.sleep(rest)
            # Without a puller, database and broker are not known to be in step.
            if self._dispatcher.puller is None or not self._connection.is_connected:
                continue
            if len(self._dispatcher.outstanding) > 0:
                continue
            try:
                binding = await self._pulling.look()
            except PullLost:
                continue  # the pull notices by itself
            # The question is dear for a server with a long queue, which delivers nothing meanwhile.
            rest = _LONG_QUEUE_CHECK if binding.pending > _LONG_QUEUE else _IDLE_CHECK
            shared.expect(binding.pending + binding.ack_pending)
            if (
                binding.pending == binding.ack_pending == 0
                and len(self._dispatcher.outstanding) == 0
            ):
                shared.is_idle = True
                shared.idle()
                return
