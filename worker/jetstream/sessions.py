"""One connection after the other, and over each a session of every projection.

Consumer thread only.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Mapping, Sequence

import nats.errors

from worker.errors import BrokerError, describe
from worker.jetstream.connection import Connection, connect
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.session import Session, Shared
from worker.jetstream.tasks import FIRST_BACKOFF, Stopped, cancel
from worker.jetstream.upkeep import Upkeep
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 1
_IDLE_CHECK = 0.1
_LONG_QUEUE = 1000
_LONG_QUEUE_CHECK = 1.0
_GOOD_SESSION = 30.0


class Sessions:
    """Keeps a connection, and connects again when it must.

    `stop` ends the pulls, `closing` the sessions; `pulling_ended` is set in between, once no
    session will dispatch anything more.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        sessions: Sequence[Session],
        manifests: ManifestSync,
        upkeep: Upkeep,
        status: WorkerStatus,
        supervisor: Supervisor,
        shared: Shared,
        versions: Mapping[str, str],
    ) -> None:
        self._helpers, self.stop, self.closing = shared
        self.pulling_ended = threading.Event()
        self.all = sessions
        self.upkeep = upkeep
        self._settings = settings
        self._manifests = manifests
        self._status = status
        self._supervisor = supervisor
        self._versions = versions
        self._was_connected = False
        self._drained = 0

    @property
    def outstanding(self) -> int:
        """How many messages are received and not acked."""
        return sum(len(session.dispatcher.outstanding) for session in self.all)

    async def run(self) -> None:
        """Keep a connection to the broker until the close."""
        backoff = FIRST_BACKOFF
        with contextlib.suppress(Stopped):
            while True:
                began = time.monotonic()
                try:
                    return await self._run_once()
                except BrokerError as error:
                    self._status.not_ready(describe(error), error.cause)
                    log.warning("broker.unavailable", extra={"error": describe(error)})
                if time.monotonic() - began > _GOOD_SESSION:
                    backoff = FIRST_BACKOFF
                self._status.health.session_progressed()
                backoff = await self.stop.rest(backoff)

    async def _run_once(self) -> None:
        """Return after an orderly stop; raises BrokerError where only a new connection can help."""
        connection = await self.stop.interrupts(
            connect(self._settings, self._supervisor, self._status)
        )
        self._note_connected(connection)
        helpers = [self._manifests.run(connection)]
        if self._settings.until_idle:
            helpers.append(self._stop_when_idle(connection))
        try:
            async with self._helpers.beside(*helpers):
                await self._run_all(connection)
                await self._flush(connection)
        finally:
            await connection.shut_down()

    async def _run_all(self, connection: Connection) -> None:
        """Run all sessions; the first error of any ends them and is raised."""
        self._drained = 0
        sessions = [
            asyncio.create_task(session.run(connection, self._note_drained)) for session in self.all
        ]
        try:
            await asyncio.wait(sessions, return_when=asyncio.FIRST_EXCEPTION)
            for session in sessions:
                if session.done():
                    session.result()
        finally:
            await cancel(*sessions)

    def _note_drained(self) -> None:
        self._drained += 1
        if self._drained == len(self.all):
            self.pulling_ended.set()

    def _note_connected(self, connection: Connection) -> None:
        if self._was_connected:
            self._status.counters.add(reconnects=1)
        else:
            self._was_connected = True
            versions = {**self._versions, "server": connection.server()}
            settings = self._settings.public()
            log.info("worker.started", extra={"versions": versions, "settings": settings})
        self._status.health.session_progressed()

    async def _flush(self, connection: Connection) -> None:
        if connection.is_connected:
            try:
                await connection.flush(timeout=_FLUSH_TIMEOUT)
            except (nats.errors.Error, OSError, TimeoutError) as error:
                log.warning("broker.not_flushed", extra={"error": describe(error)})

    async def _stop_when_idle(self, connection: Connection) -> None:
        """Request the stop once all is projected: nothing pending, ack pending, or to catch up."""
        rest = _IDLE_CHECK
        while True:
            await asyncio.sleep(rest)
            if not (connection.is_connected and self.upkeep.is_done and self._may_be_idle()):
                continue
            left = [await session.not_acked() for session in self.all]
            # The question is expensive for a server with a long queue: it delivers nothing until
            # it has answered.
            is_long = any(count is not None and count > _LONG_QUEUE for count in left)
            rest = _LONG_QUEUE_CHECK if is_long else _IDLE_CHECK
            if not any(count != 0 for count in left) and self._may_be_idle():
                for session in self.all:
                    session.is_idle = True  # the stop leaves the pull at once: nothing can come
                self._supervisor.request_stop()
                return

    def _may_be_idle(self) -> bool:
        return all(session.may_be_idle for session in self.all)
