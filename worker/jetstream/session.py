"""One projection's session over a connection: bind, catch up, pull, leave. Consumer thread only."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from repo.errors import RepositoryError, TransientError, UnavailableError
from worker.codec.timestamps import parse_instant
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
from worker.jetstream.clock import broker_time
from worker.jetstream.connection import API, Connection
from worker.jetstream.consumer import Binding, Consumer, differences, wanted_consumer
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import LagMonitor
from worker.jetstream.link import rest_after
from worker.jetstream.outputs import Outputs
from worker.jetstream.prerequisite import Prerequisite
from worker.jetstream.presence import Presence
from worker.jetstream.pull import PullSubscription
from worker.jetstream.recovery import Recovery
from worker.jetstream.stream import first_message
from worker.jetstream.tasks import FIRST_BACKOFF, Helpers, Stop, Stopped, cancel, run_until
from worker.jetstream.watermark import projected_up_to
from worker.processing.pool import ProjectionPool
from worker.processing.queues import ResultQueue
from worker.projections.base import Projection
from worker.settings import Settings
from worker.status.worker_status import ProjectionStatus

log = logging.getLogger(__name__)

_LOSES_MESSAGES = (
    "will lose messages: the broker gives one up after so many deliveries without an ack, and the "
    "worker reads it again only when it connects"
)
_RECORD_EVERY = 5.0
_LOOK_AFTER = 2.0
_LOOK_AT_MOST_EVERY = 0.1
_LAST_CHECKPOINT_TIMEOUT = 1.0
_UNANSWERED_AFTER = 3
_UNAVAILABLE_AFTER = 3
# An attempt at the database costs little, and the person who has fixed it is watching.
_LONGEST_DATABASE_BACKOFF = 3.0


class Shared(NamedTuple):
    """What the sessions of all projections share: `stop` ends the pulls, `closing` the sessions."""

    helpers: Helpers
    stop: Stop
    closing: asyncio.Event


class Session:
    """Pulls until the stop, and acks until the close.

    `is_idle` is set when the stop finds nothing left: then nothing can come any more. `max_age` is
    for how many seconds the stream keeps a message, 0 for ever, None while that is unknown.
    """

    def __init__(
        self,
        *,
        settings: Settings,
        projection: Projection[Any, Any],
        prerequisite: Prerequisite,
        outputs: Outputs | None,
        pool: ProjectionPool,
        results: ResultQueue,
        status: ProjectionStatus,
        shared: Shared,
    ) -> None:
        self.results = results
        self.is_idle = False
        self._settings = settings
        self._projection = projection
        self._filter = projection.read_filter
        self._connection: Connection | None = None
        self._status = status
        self._helpers, self._stop, self._closing = shared
        self._prerequisite = prerequisite
        self._outputs = outputs
        self.dispatcher = Dispatcher(settings, pool, results, prerequisite, status, outputs=outputs)
        self._pool = pool
        self._presence = Presence(settings)
        self._recovery = Recovery(
            settings=settings,
            projection=projection,
            pool=pool,
            prerequisite=prerequisite,
            outputs=outputs,
            dispatcher=self.dispatcher,
            presence=self._presence,
            status=status,
        )
        self._lag = LagMonitor(settings, self._filter, self.dispatcher, self._recovery, status)
        self._differing: dict[str, tuple[Any, Any]] = {}
        self._unanswered = 0
        self._unavailable = 0
        self._projected_up_to: int | None = None
        # One stream alone does not say up to when everything is in the database.
        self._is_measured = len(settings.projections) > 1
        self._measure_again_at = 0.0
        self.max_age: float | None = None

    async def run(self, connection: Connection, drained: Callable[[], None]) -> None:
        """Return after an orderly stop; raises BrokerError where only a new connection can help.

        `drained` is called once nothing more will be dispatched; then this waits for the close.
        """
        dispatcher = self.dispatcher
        self._connection = connection
        consumer = Consumer(connection, self._settings, self._projection)
        dispatcher.attach(connection, consumer)
        if self._outputs is not None:
            self._outputs.attach(connection)
        try:
            await self._presence.open(connection)
            async with self._helpers.beside(
                dispatcher.extend_ack_wait(), self._lag.run(connection)
            ):
                with contextlib.suppress(Stopped):
                    await self._pull_until_stopped(connection, consumer)
                dispatcher.stop_dispatching()
                await dispatcher.nak_waiting()
                await self._write_last_checkpoint()
                drained()
                await self._closing.wait()
                await dispatcher.ack_results()
                await dispatcher.nak_waiting()
        finally:
            dispatcher.detach()
            self._presence.close()

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

    @property
    def may_be_idle(self) -> bool:
        """Whether nothing is outstanding here and nothing is left to catch up with."""
        dispatcher = self.dispatcher
        return (
            dispatcher.is_dispatching
            and len(dispatcher.outstanding) == 0
            and self._recovery.is_complete
        )

    async def _broker_time(self, connection: Connection) -> int | None:
        """Return what the broker's clock shows now, an instant, or None if unknown."""
        try:
            return await broker_time(connection, self._settings, self._filter)
        except BrokerError:
            return None

    async def _measure(
        self, connection: Connection, binding: Binding, asked_at: int | None
    ) -> None:
        """Find out up to when everything is in the database, as of a look that was asked for."""
        self.max_age = binding.stream.max_age
        began = time.monotonic()
        if not self._recovery.proves(binding):
            self._projected_up_to = None
        elif self._is_measured and began >= self._measure_again_at:
            self._projected_up_to = await projected_up_to(
                *(connection, self.stream, self._filter, binding.stream),
                caught_up_to=self._recovery.caught_up_to,
                asked_at=asked_at,
            )
            now = time.monotonic()
            self._measure_again_at = now + rest_after(now - began)
        self._status.health.record_projected_up_to(self.projected_up_to)

    @property
    def stream(self) -> str:
        """The stream that this session reads."""
        return self._settings.stream

    @property
    def broker_time(self) -> int | None:
        """What the broker's clock shows now, an instant; None where it is unknown."""
        return self._status.health.broker_clock.now

    @property
    def projected_up_to(self) -> int | None:
        """W of this stream as of the last look, an instant of the broker's clock, or None."""
        binding = self.dispatcher.binding
        if not self.dispatcher.is_bound or binding is None or not self._recovery.proves(binding):
            return None
        return self._projected_up_to

    # --- read by the session of results ---

    @property
    def progress(self) -> tuple[object, ...]:
        """Something that changes whenever messages were projected."""
        binding = self.dispatcher.binding
        return binding and binding.ack_floor.stream_seq, self._recovery.caught_up_to

    async def has_projected(self, stored_at: int) -> bool:
        """Return whether everything that the broker stored up to an instant is in the database."""
        caught_up_to = self._recovery.caught_up_to_instant
        if caught_up_to is not None and caught_up_to >= stored_at:
            return True
        try:
            binding = await self.dispatcher.look() if self.dispatcher.is_bound else None
            connection = self._connection
            if connection is None or binding is None or not self._recovery.proves(binding):
                return False
            if not binding.has_work:
                return True  # whatever was stored before the look is projected
            return await self._first_not_projected(connection, binding) > stored_at
        except PullLost:
            return False

    async def _first_not_projected(self, connection: Connection, binding: Binding) -> int:
        """Return when the first message that may not be projected was stored, an instant."""
        floor = binding.ack_floor.stream_seq
        first = await first_message(connection, self.stream, floor + 1, self._filter)
        return 0 if first is None else parse_instant(str(first["time"]))

    async def not_acked(self) -> int | None:
        """Return how many messages the broker has left; None where that is unknown."""
        try:
            binding = await self.dispatcher.look()
        except PullLost:
            return None  # the pull notices by itself
        if binding is None:
            return None
        self._status.expect(binding.not_acked)
        return binding.not_acked

    # --- the pull ---

    async def _pull_until_stopped(self, connection: Connection, consumer: Consumer) -> None:
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
                if not self.dispatcher.on_trial:
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
        log.warning("pull.lost", extra={"stream": self.stream, "error": problem})
        connection.check()
        # A missing right to subscribe that is granted by now counts for a new connection only.
        self._unanswered = self._unanswered + 1 if isinstance(error, NoResponse) else 0
        if self._unanswered >= _UNANSWERED_AFTER:
            raise BrokerError("no request is answered on this connection")
        self._prerequisite.refresh()

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
        async with self._helpers.beside(self._record_progress()):
            await self._prerequisite.catch_up(0)
        await self._recovery.begin(connection, consumer, binding)
        health.session_progressed()
        self._log_differences(binding)
        log.info(
            "pull.started",
            extra={
                "stream": self.stream,
                "consumer": self._settings.consumer,
                "pending": binding.pending,
                "ack_pending": binding.ack_pending,
            },
        )
        self.dispatcher.resume()

    async def _record_progress(self) -> None:
        while True:
            self._status.health.session_progressed()
            self._pool.report()
            await asyncio.sleep(_RECORD_EVERY)

    async def _bind(self, consumer: Consumer) -> Binding:
        before = self.dispatcher.binding
        binding = await consumer.bind()
        recreated = before is not None and (
            binding.is_new or not binding.follows(before, self._recovery.deliveries.known)
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
            self._filter,
            dispatcher,
            self._recovery.deliveries,
        )
        stop = asyncio.create_task(self._stop.wait())
        stop.add_done_callback(lambda _: pull.stop(idle=self.is_idle))
        failed = asyncio.create_task(dispatcher.failed.wait())
        failed.add_done_callback(lambda _: pull.stop())
        try:
            watch = self._watch_consumer(connection, pull)
            async with self._helpers.beside(watch, self._recovery.run()):
                await pull.run()
        finally:
            self._status.record_other_workers(None)  # nobody asks them meanwhile
            if pull.is_answered:
                self._unanswered = 0
            await cancel(stop, failed)
        if dispatcher.failed.is_set():
            raise DatabaseUnavailable(dispatcher.failure)

    async def _watch_consumer(self, connection: Connection, pull: PullSubscription) -> None:
        """Look at the consumer regularly, also while nothing is requested."""
        dispatcher = self.dispatcher
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AFTER):
                    await pull.in_doubt.wait()
            asked_at = await self._broker_time(connection)
            try:
                binding = await dispatcher.look()
                if not dispatcher.is_bound or binding is None:
                    raise PullLost("the consumer may be another one by now")
                pull.clear_doubt()
                self._log_differences(binding)
                await self._recovery.look(binding)
                self._status.record_other_workers(self._presence.others())
                await self._measure(connection, binding, asked_at)
            except (TransientError, UnavailableError) as error:
                dispatcher.fail(describe(error))
                return
            except PullLost as error:
                dispatcher.lose(describe(error))
                return
            self._status.health.session_progressed()
            if not dispatcher.on_trial and pull.is_answered and len(dispatcher.outstanding) == 0:
                self._status.readiness.ready()
            elif self._recovery.is_complete and not binding.has_work:
                # Nothing to try: what was to be read again was written, so the database is there.
                dispatcher.end_trial()
            await asyncio.sleep(_LOOK_AT_MOST_EVERY)
