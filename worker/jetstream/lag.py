"""How far the projection is behind: the age of the oldest message that is not projected, by the
broker's clock, and the bytes of the stream from there on. Consumer thread only.

The broker is asked only while messages are pending or ack pending, and only when the ack floor has
passed what was found before: a worker that makes no progress asks nothing.
"""

import asyncio
import contextlib
import logging
import time
from typing import NamedTuple

from worker.codec.timestamps import parse_instant, parse_stored
from worker.errors import BrokerError, PullLost, describe
from worker.jetstream.clock import broker_time
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.link import rest_after
from worker.jetstream.recovery import Recovery
from worker.jetstream.stream import first_message
from worker.logs import Repeats
from worker.settings import Settings
from worker.status.health import StreamUse
from worker.status.worker_status import ProjectionStatus

log = logging.getLogger(__name__)

_LOOK_AFTER = 1.0
# Without the right to ask, every question takes its whole timeout.
_ASK_AGAIN_AFTER = 600.0
_LOG_AGAIN_AFTER = 60.0


class _Found(NamedTuple):
    """The first message above an ack floor of a stream."""

    stream_created_at: str
    ack_floor: int
    sequence: int
    stored_at: int


_NOTHING_FOUND = _Found("", 0, 0, 0)


class LagMonitor:
    """Records once a second how many messages are outstanding, and how old the oldest work is."""

    def __init__(
        self,
        settings: Settings,
        filter_subject: str,
        dispatcher: Dispatcher,
        recovery: Recovery,
        status: ProjectionStatus,
    ) -> None:
        self._settings = settings
        self._stream = settings.stream
        self._filter = filter_subject
        self._dispatcher = dispatcher
        self._recovery = recovery
        self._status = status
        self._found = _NOTHING_FOUND
        self._not_before = 0.0
        self._repeats = Repeats(_LOG_AGAIN_AFTER)
        self._behind_since: int | None = None

    async def run(self, connection: Connection) -> None:
        """Look for as long as the session lasts."""
        health, dispatcher = self._status.health, self._dispatcher
        while True:
            health.record_outstanding(len(dispatcher.outstanding), dispatcher.last_sign)
            binding = await self._binding() if connection.is_connected else None
            if binding is not None and dispatcher.is_bound and self._status.is_observed:
                await self._record_oldest(connection, binding)
            await asyncio.sleep(_LOOK_AFTER)

    async def _binding(self) -> Binding | None:
        """Return the consumer as it was seen last; while there is work, as it is now."""
        known = self._dispatcher.binding
        if known is not None and known.has_work and self._status.is_observed:
            with contextlib.suppress(PullLost, OSError):  # the pull notices by itself
                await self._dispatcher.look()
        return self._dispatcher.binding

    async def _record_oldest(self, connection: Connection, binding: Binding) -> None:
        oldest = await self._oldest(connection, binding)
        is_known = oldest is not None or not binding.has_work
        self._status.health.record_oldest(oldest, is_known=is_known)
        stream = binding.stream
        use = StreamUse(
            bytes=stream.bytes,
            unprojected_bytes=stream.bytes_from(self._first_not_projected(binding)),
            max_bytes=stream.max_bytes,
            max_age=stream.max_age or None,
            oldest=parse_stored(stream.first_stored_at) if stream.first_stored_at else None,
        )
        self._status.health.record_stream(use)

    def _first_not_projected(self, binding: Binding) -> int:
        """Return from which sequence on there may be messages that are not projected."""
        stream, found = binding.stream, self._found
        first = stream.last_sequence + 1
        if binding.has_work:
            first = binding.ack_floor.stream_seq + 1
            if found.stream_created_at == stream.created_at:
                # In between are messages of other subjects.
                first = max(first, found.sequence)
        if self._status.health.is_caught_up is False:
            first = min(first, self._recovery.caught_up_to + 1)
        return first

    async def _ask_time(self, connection: Connection) -> None:
        """Let the broker give its time where that is not known."""
        began = time.monotonic()
        try:
            await broker_time(connection, self._settings, self._filter)
        except BrokerError as error:
            if self._repeats.due("time"):
                cause = connection.forget_problem_since(began)
                log.info("lag.unknown", extra={"error": cause or describe(error)})

    async def _oldest(self, connection: Connection, binding: Binding) -> int | None:
        """Return the instant at which the oldest message that is not projected was stored, or None.

        Where the broker does not answer, that of the oldest outstanding message, or since when
        there has been work.
        """
        outstanding = self._dispatcher.outstanding.oldest
        if binding.has_work or outstanding is not None:
            await self._ask_time(connection)
        if not binding.has_work:
            self._behind_since = None
            return outstanding
        if self._behind_since is None:
            self._behind_since = self._status.health.broker_clock.now
        first = await self._first_above(connection, binding)
        known = [instant for instant in (outstanding, first) if instant is not None]
        return min(known, default=self._behind_since)

    async def _first_above(self, connection: Connection, binding: Binding) -> int | None:
        """Return when the first message above the ack floor was stored, or None."""
        ack_floor, created_at = binding.ack_floor.stream_seq, binding.stream.created_at
        found = self._found
        is_known = found.stream_created_at == created_at and found.ack_floor <= ack_floor
        now = time.monotonic()
        if is_known and (ack_floor < found.sequence or now < self._not_before):
            return found.stored_at
        self._found = _NOTHING_FOUND
        if now < self._not_before:
            return None
        try:
            message = await first_message(connection, self._stream, ack_floor + 1, self._filter)
            answered = time.monotonic()
            self._not_before = answered + rest_after(answered - now)
            if message is None:
                return None
            stored_at = parse_instant(str(message["time"]))
            self._found = _Found(created_at, ack_floor, int(message["seq"]), stored_at)
        except (PullLost, KeyError, ValueError) as error:
            self._not_before = now + _ASK_AGAIN_AFTER
            cause = connection.forget_problem_since(now)
            log.info("lag.unknown", extra={"error": cause or describe(error)})
            return None
        return stored_at
