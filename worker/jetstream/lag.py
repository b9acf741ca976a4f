"""How old is the oldest event that is not projected? Broker thread only.

Asked of the broker only while something is pending or not acked, and only when the consumer's floor
has passed what was found before: a worker that stands still asks nothing.
"""

import asyncio
import contextlib
import logging
import time
from typing import NamedTuple

from worker.codec.timestamps import parse_instant
from worker.errors import PullLost, describe
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import FILTER, Binding
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.reconcile import first_message
from worker.status.health import Progress

log = logging.getLogger(__name__)

_LOOK_AFTER = 1.0
# A user who may not ask is not answered, and waits each time.
_ASK_AGAIN_AFTER = 600.0


class _Found(NamedTuple):
    """The first start above a floor of a stream."""

    stream_created_at: str
    floor: int
    sequence: int
    recorded_at: int


class Lag:
    """Tells `progress`, once a second, what is in hand and how old the oldest of the work is."""

    def __init__(self, stream: str, dispatcher: Dispatcher, progress: Progress) -> None:
        self._stream = stream
        self._dispatcher = dispatcher
        self._progress = progress
        self._found: _Found | None = None
        self._not_before = 0.0
        self._behind_since: int | None = None

    async def run(self, connection: Connection) -> None:
        """Look for as long as the session lasts."""
        dispatcher, progress = self._dispatcher, self._progress
        while True:
            puller = dispatcher.puller
            heard_at = puller.last_sign if puller is not None else float("-inf")
            progress.hold(len(dispatcher.outstanding), heard_at)
            binding = await self._binding() if connection.is_connected else None
            if binding is not None:
                progress.consumer(binding.pending, binding.ack_pending, binding.footing.floor)
                if progress.is_observed:
                    progress.oldest = await self._oldest(connection, binding)
            await asyncio.sleep(_LOOK_AFTER)

    async def _binding(self) -> Binding | None:
        """Return what is known of the consumer; while there is work, what is so now."""
        dispatcher = self._dispatcher
        known = dispatcher.binding
        if known is None or not (known.pending or known.ack_pending):
            return known
        if dispatcher.look is not None and self._progress.is_observed:
            with contextlib.suppress(PullLost, OSError):  # the pull notices by itself
                dispatcher.note(await dispatcher.look())
        return dispatcher.binding

    async def _oldest(self, connection: Connection, binding: Binding) -> int | None:
        """Return the instant at which the oldest event that is not projected was stored, or None.

        Where the broker does not tell, it is that of the oldest in hand, or since when there has
        been something on the broker.
        """
        in_hand = self._dispatcher.outstanding.oldest
        if binding.pending == binding.ack_pending == 0:
            self._behind_since = None
            return in_hand
        if self._behind_since is None:
            self._behind_since = time.time_ns()
        first = await self._first_above(connection, binding)
        known = [instant for instant in (in_hand, first) if instant is not None]
        return min(known, default=self._behind_since)

    async def _first_above(self, connection: Connection, binding: Binding) -> int | None:
        """Return when the first start above the floor was stored; everything below is settled."""
        floor, created_at = binding.footing.floor, binding.footing.stream_created_at
        found = self._found
        if (
            found is not None
            and found.stream_created_at == created_at
            and found.floor <= floor < found.sequence
        ):
            return found.recorded_at
        self._found = None
        now = time.monotonic()
        if now < self._not_before:
            return None
        try:
            message = await first_message(connection, self._stream, floor + 1, FILTER)
            if message is None:
                return None
            recorded_at = parse_instant(str(message["time"]))
            self._found = _Found(created_at, floor, int(message["seq"]), recorded_at)
        except (PullLost, KeyError, ValueError) as error:
            self._not_before = now + _ASK_AGAIN_AFTER
            cause = connection.forgive(now)
            log.info("lag.unknown", extra={"error": cause or describe(error)})
            return None
        return recorded_at
