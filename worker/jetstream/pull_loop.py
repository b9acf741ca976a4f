"""Bind, catch up, pull; again and again as long as a connection lasts. Consumer thread only."""

import asyncio
import logging
import time
from typing import Any

from repo.errors import TransientError, UnavailableError
from worker.errors import (
    DATABASE_BLOCKED,
    BrokerError,
    ConnectionLost,
    DatabaseUnavailable,
    NoResponse,
    PullLost,
    describe,
)
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import (
    Binding,
    Consumer,
    differences,
    log_differences,
    wanted_consumer,
)
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.pull import PullSubscription
from worker.jetstream.reconcile import Reconciler
from worker.jetstream.tasks import FIRST_BACKOFF, Stop, cancel
from worker.projections.base import Projection
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_LOOK_AFTER = 2.0
_UNANSWERED_AFTER = 3
_UNAVAILABLE_AFTER = 3
# An attempt at the database costs little, and the person who has fixed it is watching.
_LONGEST_DATABASE_BACKOFF = 3.0


class PullLoop:
    """Pulls until the stop; a pull that is lost is started again with no request open."""

    def __init__(
        self,
        *,
        settings: Settings,
        projection: Projection[Any, Any],
        dispatcher: Dispatcher,
        reconciler: Reconciler,
        manifests: ManifestSync,
        status: WorkerStatus,
        supervisor: Supervisor,
        stop: Stop,
    ) -> None:
        self._settings = settings
        self._projection = projection
        self._dispatcher = dispatcher
        self._reconciler = reconciler
        self._manifests = manifests
        self._status = status
        self._supervisor = supervisor
        self._stop = stop
        self._differing: dict[str, tuple[Any, Any]] = {}
        self._is_idle = False
        self._unanswered = 0
        self._unavailable = 0

    def idle(self) -> None:
        """Let the stop leave the pull at once: the broker has nothing more to deliver."""
        self._is_idle = True

    async def run(self, connection: Connection, consumer: Consumer) -> None:
        """Bind and pull until the stop; raises BrokerError if the connection is of no use."""
        self._unanswered = 0
        backoff = FIRST_BACKOFF
        while not self._stop.is_set():
            began = time.monotonic()
            self._status.health.session_progressed()
            try:
                await self._stop.interrupts(connection.usable())
                self._status.health.session_progressed()
                await self._stop.interrupts(self._bind_while_connected(connection, consumer))
                if not self._dispatcher.on_trial:
                    backoff = FIRST_BACKOFF
                await self._pull(connection)
            except (TransientError, UnavailableError, DatabaseUnavailable) as error:
                await self._database_failed(error)
                backoff = await self._stop.rest(backoff, _LONGEST_DATABASE_BACKOFF)
            except PullLost as error:
                self._pull_failed(error, connection, began)
                if isinstance(error, ConnectionLost):
                    backoff = FIRST_BACKOFF  # earlier attempts say nothing of the new connection
                backoff = await self._stop.rest(backoff)

    # --- failures ---

    async def _database_failed(self, error: Exception) -> None:
        """Pause; nak what waits if only this worker's own way to the database is broken.

        A locked database is locked for every worker; there the messages stay outstanding.
        """
        problem = str(error) if isinstance(error, DatabaseUnavailable) else describe(error)
        self._status.readiness.not_ready(f"database: {problem}", DATABASE_BLOCKED)
        log.warning("database.unavailable", extra={"error": problem})
        broken = isinstance(error, UnavailableError)
        self._unavailable = self._unavailable + 1 if broken else 0
        if self._unavailable >= _UNAVAILABLE_AFTER and self._dispatcher.is_bound:
            await self._dispatcher.nak_waiting()

    def _pull_failed(self, error: PullLost, connection: Connection, began: float) -> None:
        self._dispatcher.unbind()
        cause = connection.problem_since(began)
        problem = f"{describe(error)} <- {cause}" if cause else describe(error)
        self._status.readiness.not_ready(problem, error.cause)
        log.warning("pull.lost", extra={"error": problem})
        connection.check()
        # A missing right to subscribe that is granted by now counts for a new connection only.
        self._unanswered = self._unanswered + 1 if isinstance(error, NoResponse) else 0
        if self._unanswered >= _UNANSWERED_AFTER:
            raise BrokerError("no request is answered on this connection")
        self._manifests.refresh()

    # --- binding ---

    async def _bind_while_connected(self, connection: Connection, consumer: Consumer) -> None:
        bound = asyncio.create_task(self._bind_and_catch_up(connection, consumer))
        lost = asyncio.create_task(connection.lost())
        try:
            await asyncio.wait({bound, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not bound.done():
                raise ConnectionLost("the connection was lost while the consumer was bound")
            bound.result()
        finally:
            await cancel(bound, lost)

    async def _bind_and_catch_up(self, connection: Connection, consumer: Consumer) -> None:
        """Bind, and resume dispatching once the database is caught up with the consumer."""
        health = self._status.health
        binding = await self._bind(consumer)
        await self._dispatcher.pool_idle()
        health.session_progressed()
        outcome = await self._reconciler.catch_up(connection, binding)
        health.session_progressed()
        if outcome.is_recreated:
            created_at, binding = binding.position.stream_created_at, await self._bind(consumer)
            if created_at != binding.position.stream_created_at:
                raise PullLost("the stream was recreated while it was compared")
        self._log_differences(binding, outcome.committed)
        await self._manifests.first_attempt()
        log.info(
            "pull.started",
            extra={
                "stream": self._settings.stream,
                "consumer": self._settings.consumer,
                "pending": binding.pending,
                "ack_pending": binding.ack_pending,
            },
        )
        self._dispatcher.resume()

    async def _bind(self, consumer: Consumer) -> Binding:
        before = self._dispatcher.binding
        binding = await consumer.bind()
        not_acked = self._dispatcher.bind(binding)
        if before is not None and not binding.same_messages(before):
            log.warning("consumer.recreated", extra={"messages_not_acked": not_acked})
        self._status.expect(binding.pending + binding.ack_pending)
        self._status.health.session_progressed()
        return binding

    def _log_differences(self, binding: Binding, committed: int) -> None:
        wanted = wanted_consumer(self._settings, self._projection)
        differing = differences(wanted, binding.config, committed)
        if differing != self._differing:
            self._differing = differing
            log_differences(self._settings, differing)

    # --- pulling ---

    async def _pull(self, connection: Connection) -> None:
        """Pull until the stop; raises DatabaseUnavailable when the database fails."""
        settings, dispatcher = self._settings, self._dispatcher
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.consumer}"
        pull = PullSubscription(connection, subject, dispatcher)
        stop = asyncio.create_task(self._stop.wait())
        stop.add_done_callback(lambda _: pull.stop(idle=self._is_idle))
        failed = asyncio.create_task(dispatcher.failed.wait())
        failed.add_done_callback(lambda _: pull.stop())
        watch = asyncio.create_task(self._watch_consumer(pull))
        watch.add_done_callback(self._supervise)
        try:
            await pull.run()
        finally:
            if pull.is_answered:
                self._unanswered = 0
            watch.remove_done_callback(self._supervise)
            await cancel(stop, failed, watch)
        if dispatcher.failed.is_set():
            raise DatabaseUnavailable(dispatcher.failure)

    def _supervise(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._supervisor.fail(error)

    async def _watch_consumer(self, pull: PullSubscription) -> None:
        """Look at the consumer regularly, also while nothing is requested."""
        dispatcher = self._dispatcher
        while True:
            await asyncio.sleep(_LOOK_AFTER)
            try:
                binding = await dispatcher.look()
            except PullLost as error:
                dispatcher.lose(describe(error))
                return
            if not dispatcher.is_bound or binding is None:
                dispatcher.lose("cannot tell whether the consumer is still the same")
                return
            self._status.health.session_progressed()
            # On trial, with nothing to try: the checkpoint was written, so the database is there.
            tried = not dispatcher.on_trial or not binding.has_work
            if tried and pull.is_answered and len(dispatcher.outstanding) == 0:
                self._status.readiness.ready()
