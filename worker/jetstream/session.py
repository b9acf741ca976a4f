"""One session with the broker after the other: connect, bind, catch up, pull, leave.

Consumer thread only.
"""

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import AsyncIterator, Coroutine, Mapping
from typing import Any

import nats.errors

from repo.errors import RepositoryError, TransientError, UnavailableError
from worker.errors import (
    BROKER_UNREACHABLE,
    DATABASE_BLOCKED,
    BrokerError,
    ConnectionLost,
    DatabaseUnavailable,
    NoResponse,
    PullLost,
    WorkerError,
    describe,
)
from worker.jetstream.connection import API, Connection, connect
from worker.jetstream.consumer import Binding, Consumer, differences, wanted_consumer
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import LagMonitor
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.presence import Presence
from worker.jetstream.pull import PullSubscription
from worker.jetstream.recovery import Recovery
from worker.jetstream.tasks import FIRST_BACKOFF, Stop, Stopped, cancel, run_until
from worker.jetstream.upkeep import Upkeep
from worker.processing.pool import RepositoryPool
from worker.processing.queues import ResultQueue
from worker.projections.base import Projection
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_FLUSH_TIMEOUT = 1
_LOSES_MESSAGES = (
    "will lose messages: the broker gives one up after so many deliveries without an ack, and the "
    "worker reads it again only when it connects"
)
_IDLE_CHECK = 0.1
_LONG_QUEUE = 1000
_LONG_QUEUE_CHECK = 1.0
_GOOD_SESSION = 30.0
_RECORD_EVERY = 5.0
_LOOK_AFTER = 2.0
_LOOK_AT_MOST_EVERY = 0.1
_LAST_CHECKPOINT_TIMEOUT = 1.0
_UNANSWERED_AFTER = 3
_UNAVAILABLE_AFTER = 3
# An attempt at the database costs little, and the person who has fixed it is watching.
_LONGEST_DATABASE_BACKOFF = 3.0


class Session:
    """Pulls until the stop, acks until the close, and connects again when it must.

    `stop` ends the pull, `closing` the session; `pulling_ended` is set in between, once nothing
    more will be dispatched.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        projection: Projection[Any, Any],
        manifests: ManifestCache,
        pool: RepositoryPool,
        results: ResultQueue,
        status: WorkerStatus,
        supervisor: Supervisor,
        versions: Mapping[str, str],
    ) -> None:
        self.stop = Stop()
        self.closing = asyncio.Event()
        self.pulling_ended = threading.Event()
        self._settings = settings
        self._projection = projection
        self._status = status
        self._supervisor = supervisor
        self._versions = versions
        self._manifests = ManifestSync(settings.bucket, manifests)
        self.dispatcher = Dispatcher(settings, pool, results, self._manifests, status)
        self._presence = Presence(settings)
        self._recovery = Recovery(
            settings=settings,
            projection=projection,
            pool=pool,
            manifests=self._manifests,
            dispatcher=self.dispatcher,
            presence=self._presence,
            status=status,
        )
        self.upkeep = Upkeep(settings.upkeep_every, self.dispatcher, pool.work, status.counters)
        self._lag = LagMonitor(settings, projection.filter_subject, self.dispatcher, status)
        self._was_connected = False
        self._differing: dict[str, tuple[Any, Any]] = {}
        self._is_idle = False
        self._unanswered = 0
        self._unavailable = 0

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
                backoff = await self.stop.rest(backoff)

    async def _run_once(self) -> None:
        """Return after an orderly stop; raises BrokerError where only a new session can help."""
        dispatcher = self.dispatcher
        connection = await self.stop.interrupts(
            connect(self._settings, self._supervisor, self._status)
        )
        self._note_connected(connection)
        consumer = Consumer(connection, self._settings, self._projection)
        dispatcher.attach(connection, consumer)
        try:
            await self._presence.open(connection)
            helpers = [
                self._manifests.run(connection),
                dispatcher.extend_ack_wait(),
                self._lag.run(connection),
            ]
            if self._settings.until_idle:
                helpers.append(self._stop_when_idle(connection))
            async with self._helped_by(*helpers):
                with contextlib.suppress(Stopped):
                    await self._pull_until_stopped(connection, consumer)
                dispatcher.stop_dispatching()
                await dispatcher.nak_waiting()
                await self._write_last_checkpoint()
                self.pulling_ended.set()
                await self.closing.wait()
                await dispatcher.ack_results()
                await dispatcher.nak_waiting()
                await self._flush(connection)
        finally:
            dispatcher.detach()
            self._presence.close()
            await connection.shut_down()

    async def _write_last_checkpoint(self) -> None:
        """Advance the checkpoint while the pool still runs: the next start has nothing to read."""
        dispatcher = self.dispatcher
        if not (dispatcher.is_bound and self._recovery.is_complete):
            return
        with contextlib.suppress(WorkerError, RepositoryError, TimeoutError):
            async with asyncio.timeout(_LAST_CHECKPOINT_TIMEOUT):
                await dispatcher.pool_idle()
                await dispatcher.ack_results()
                binding = await dispatcher.look()
                if binding is not None:
                    await self._recovery.look(binding)

    def _note_connected(self, connection: Connection) -> None:
        if self._was_connected:
            self._status.counters.add(reconnects=1)
        else:
            self._was_connected = True
            versions = {**self._versions, "server": connection.server()}
            settings = self._settings.public()
            log.info("worker.started", extra={"versions": versions, "settings": settings})
        self._status.health.session_progressed()

    @contextlib.asynccontextmanager
    async def _helped_by(self, *helpers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run helpers beside the body, and end them with it."""
        tasks = [asyncio.create_task(helper) for helper in helpers]
        for task in tasks:
            task.add_done_callback(self._supervise)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(self._supervise)
            await cancel(*tasks)

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
        """Request the stop once all is projected: nothing pending, ack pending, or to catch up."""
        dispatcher = self.dispatcher
        rest = _IDLE_CHECK
        while True:
            await asyncio.sleep(rest)
            if not dispatcher.is_dispatching or not connection.is_connected:
                continue
            done = self._recovery.is_complete and self.upkeep.is_done
            if len(dispatcher.outstanding) > 0 or not done:
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
            self._status.expect(binding.not_acked)
            is_left = binding.has_work or not self._recovery.is_complete
            if not is_left and len(dispatcher.outstanding) == 0:
                self._is_idle = True  # the stop leaves the pull at once: nothing can come
                self._supervisor.request_stop()
                return

    # --- the pull ---

    async def _pull_until_stopped(self, connection: Connection, consumer: Consumer) -> None:
        """Bind and pull until the stop; raises BrokerError if the connection is of no use."""
        self._unanswered = 0
        backoff = FIRST_BACKOFF
        while not self.stop.is_set():
            began = time.monotonic()
            self._status.health.session_progressed()
            try:
                await self.stop.interrupts(connection.usable())
                self._status.health.session_progressed()
                await self.stop.interrupts(self._bind_while_connected(connection, consumer))
                if not self.dispatcher.on_trial:
                    backoff = FIRST_BACKOFF
                await self._pull(connection)
            except (TransientError, UnavailableError, DatabaseUnavailable) as error:
                await self._database_failed(error)
                backoff = await self.stop.rest(backoff, _LONGEST_DATABASE_BACKOFF)
            except PullLost as error:
                self._pull_failed(error, connection, began)
                if isinstance(error, ConnectionLost):
                    backoff = FIRST_BACKOFF  # earlier attempts say nothing of the new connection
                backoff = await self.stop.rest(backoff)

    async def _database_failed(self, error: Exception) -> None:
        """Pause; nak what waits if only this worker's own way to the database is broken.

        A locked database is locked for every worker; there the messages stay outstanding.
        """
        problem = str(error) if isinstance(error, DatabaseUnavailable) else describe(error)
        self._status.readiness.not_ready(f"database: {problem}", DATABASE_BLOCKED)
        log.warning("database.unavailable", extra={"error": problem})
        broken = isinstance(error, UnavailableError)
        self._unavailable = self._unavailable + 1 if broken else 0
        if self._unavailable >= _UNAVAILABLE_AFTER and self.dispatcher.is_bound:
            await self.dispatcher.nak_waiting()

    def _pull_failed(self, error: PullLost, connection: Connection, began: float) -> None:
        self.dispatcher.unbind()
        problem = connection.explained(error, began)
        cause = error.cause if connection.is_connected else BROKER_UNREACHABLE
        self._status.readiness.not_ready(problem, cause)
        log.warning("pull.lost", extra={"error": problem})
        connection.check()
        # A missing right to subscribe that is granted by now counts for a new connection only.
        self._unanswered = self._unanswered + 1 if isinstance(error, NoResponse) else 0
        if self._unanswered >= _UNANSWERED_AFTER:
            raise BrokerError("no request is answered on this connection")
        self._manifests.refresh()

    async def _bind_while_connected(self, connection: Connection, consumer: Consumer) -> None:
        lost = ConnectionLost("the connection was lost while the consumer was bound")
        await run_until(connection.lost(), self._bind_and_begin(connection, consumer), lost)

    async def _bind_and_begin(self, connection: Connection, consumer: Consumer) -> None:
        """Bind, and resume dispatching once the database accepts writes."""
        health = self._status.health
        binding = await self._bind(consumer)
        await self.dispatcher.pool_idle()
        health.session_progressed()
        # Over a slow link a large bucket takes long; what makes no progress is given up.
        async with self._helped_by(self._record_progress()):
            await self._manifests.catch_up()
        await self._recovery.begin(connection, consumer, binding)
        health.session_progressed()
        self._log_differences(binding)
        log.info(
            "pull.started",
            extra={
                "stream": self._settings.stream,
                "consumer": self._settings.consumer,
                "pending": binding.pending,
                "ack_pending": binding.ack_pending,
            },
        )
        self.dispatcher.resume()

    async def _record_progress(self) -> None:
        while True:
            self._status.health.session_progressed()
            await asyncio.sleep(_RECORD_EVERY)

    async def _bind(self, consumer: Consumer) -> Binding:
        before = self.dispatcher.binding
        binding = await consumer.bind()
        recreated = before is not None and (
            binding.is_new
            or not binding.follows(before)
            or binding.delivered.consumer_seq < self._recovery.deliveries.known
        )
        not_acked = self.dispatcher.bind(binding, recreated=recreated)
        if recreated:
            log.warning("consumer.recreated", extra={"messages_not_acked": not_acked})
        self._status.expect(binding.not_acked)
        self._status.health.session_progressed()
        return binding

    def _log_differences(self, binding: Binding) -> None:
        wanted = wanted_consumer(self._settings, self._projection)
        differing = differences(wanted, binding.config)
        if differing == self._differing:
            return
        self._differing = differing
        for name, (expected, found) in differing.items():
            log.warning(
                "consumer.differs",
                extra={
                    "consumer": self._settings.consumer,
                    "setting": name,
                    "expected": expected,
                    "found": found,
                    "kept": found,
                    **({"error": _LOSES_MESSAGES} if name == "max_deliver" else {}),
                },
            )

    async def _pull(self, connection: Connection) -> None:
        """Pull until the stop; raises DatabaseUnavailable when the database fails."""
        settings, dispatcher = self._settings, self.dispatcher
        subject = f"{API}.CONSUMER.MSG.NEXT.{settings.stream}.{settings.consumer}"
        pull = PullSubscription(
            connection,
            subject,
            self._projection.filter_subject,
            dispatcher,
            self._recovery.deliveries,
        )
        stop = asyncio.create_task(self.stop.wait())
        stop.add_done_callback(lambda _: pull.stop(idle=self._is_idle))
        failed = asyncio.create_task(dispatcher.failed.wait())
        failed.add_done_callback(lambda _: pull.stop())
        try:
            async with self._helped_by(self._watch_consumer(pull), self._recovery.run()):
                await pull.run()
        finally:
            if pull.is_answered:
                self._unanswered = 0
            await cancel(stop, failed)
        if dispatcher.failed.is_set():
            raise DatabaseUnavailable(dispatcher.failure)

    async def _watch_consumer(self, pull: PullSubscription) -> None:
        """Look at the consumer regularly, also while nothing is requested."""
        dispatcher = self.dispatcher
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AFTER):
                    await pull.in_doubt.wait()
            try:
                binding = await dispatcher.look()
                if not dispatcher.is_bound or binding is None:
                    raise PullLost("the consumer may be another one by now")
                pull.clear_doubt()
                self._log_differences(binding)
                await self._recovery.look(binding)
            except (TransientError, UnavailableError) as error:
                dispatcher.fail(describe(error))
                return
            except PullLost as error:
                dispatcher.lose(describe(error))
                return
            self._status.health.session_progressed()
            # On trial, with nothing to try: the checkpoint was written, so the database is there.
            tried = not dispatcher.on_trial or not binding.has_work
            if tried and pull.is_answered and len(dispatcher.outstanding) == 0:
                self._status.readiness.ready()
            await asyncio.sleep(_LOOK_AT_MOST_EVERY)
