"""One session with the broker after the other, from connect to close. Consumer thread only."""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import nats.errors

from worker.errors import BrokerError, PullLost, describe
from worker.jetstream.connection import API_TIMEOUT, Connection, connect
from worker.jetstream.consumer import Consumer
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import LagMonitor
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.pull_loop import PullLoop
from worker.jetstream.tasks import FIRST_BACKOFF, Stop, Stopped, cancel
from worker.projections.base import Projection
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 1
_IDLE_CHECK = 0.1
_LONG_QUEUE = 1000
_LONG_QUEUE_CHECK = 1.0
_GOOD_SESSION = 30.0


class Session:
    """Connects, pulls until the stop, acks until the close, leaves; connects again when it must.

    `stop` ends the pull, `closing` the session; `pulling_ended` is set in between, once nothing
    more will be dispatched.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        projection: Projection[Any, Any],
        dispatcher: Dispatcher,
        pull_loop: PullLoop,
        manifests: ManifestSync,
        status: WorkerStatus,
        supervisor: Supervisor,
        stop: Stop,
        versions: Mapping[str, str],
    ) -> None:
        self.closing = asyncio.Event()
        self.pulling_ended = threading.Event()
        self._settings = settings
        self._projection = projection
        self._dispatcher = dispatcher
        self._pull_loop = pull_loop
        self._manifests = manifests
        self._status = status
        self._supervisor = supervisor
        self._stop = stop
        self._versions = versions
        self._lag = LagMonitor(settings.stream, projection.filter_subject, dispatcher, status)
        self._was_connected = False

    async def run(self) -> None:
        """Keep a session with the broker until the close."""
        backoff = FIRST_BACKOFF
        with contextlib.suppress(Stopped):
            while True:
                began = time.monotonic()
                try:
                    return await self._run_once()
                except BrokerError as error:
                    self._status.readiness.not_ready(describe(error), error.cause)
                    log.warning("broker.unavailable", extra={"error": describe(error)})
                if time.monotonic() - began > _GOOD_SESSION:
                    backoff = FIRST_BACKOFF
                self._status.health.session_progressed()
                backoff = await self._stop.rest(backoff)

    async def _run_once(self) -> None:
        """Return after an orderly stop; raises BrokerError where only a new session can help."""
        dispatcher = self._dispatcher
        connection = await self._stop.interrupts(
            connect(self._settings, self._supervisor, self._status)
        )
        self._note_connected(connection)
        js = connection.jetstream(timeout=API_TIMEOUT)
        consumer = Consumer(js, self._settings, self._projection)
        dispatcher.attach(connection, consumer)
        helpers = [
            asyncio.create_task(self._manifests.run(connection, js)),
            asyncio.create_task(dispatcher.extend_ack_wait()),
            asyncio.create_task(self._lag.run(connection)),
        ]
        if self._settings.until_idle:
            helpers.append(asyncio.create_task(self._stop_when_idle(connection)))
        for helper in helpers:
            helper.add_done_callback(self._supervise)
        try:
            with contextlib.suppress(Stopped):
                await self._pull_loop.run(connection, consumer)
            dispatcher.stop_dispatching()
            await dispatcher.nak_waiting()
            self.pulling_ended.set()
            await self.closing.wait()
            await dispatcher.ack_results()
            await dispatcher.nak_waiting()
            await self._flush(connection)
        finally:
            for helper in helpers:
                helper.remove_done_callback(self._supervise)
            await cancel(*helpers)
            dispatcher.detach()
            await connection.shut_down()

    def _note_connected(self, connection: Connection) -> None:
        if self._was_connected:
            self._status.counters.add(reconnects=1)
        else:
            self._was_connected = True
            versions = {**self._versions, "server": connection.server()}
            settings = self._settings.public()
            log.info("worker.started", extra={"versions": versions, "settings": settings})
        self._status.health.session_progressed()

    def _supervise(self, helper: asyncio.Task[None]) -> None:
        """Report the end of a helper task; the library may cancel what waits on it."""
        if helper.cancelled():
            self._supervisor.fail(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self._supervisor.fail(error)

    async def _flush(self, connection: Connection) -> None:
        if connection.is_connected:
            try:
                await connection.flush(timeout=_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("broker.not_flushed", extra={"error": describe(error)})

    async def _stop_when_idle(self, connection: Connection) -> None:
        """Request the stop once no message is pending or ack pending, here or elsewhere."""
        dispatcher = self._dispatcher
        rest = _IDLE_CHECK
        while True:
            await asyncio.sleep(rest)
            # While nothing is dispatched, the database is not known to be caught up.
            if not dispatcher.is_dispatching or not connection.is_connected:
                continue
            if len(dispatcher.outstanding) > 0:
                continue
            try:
                binding = await dispatcher.look()
            except PullLost:
                continue  # the pull notices by itself
            if binding is None:
                continue
            # The question is expensive for a server with a long queue: it delivers nothing until
            # it has answered.
            rest = _LONG_QUEUE_CHECK if binding.pending > _LONG_QUEUE else _IDLE_CHECK
            self._status.expect(binding.pending + binding.ack_pending)
            if not binding.has_work and len(dispatcher.outstanding) == 0:
                self._pull_loop.idle()
                self._supervisor.request_stop()
                return
