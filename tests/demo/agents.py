"""The agents' side of the broker: the bucket, publishing, and a ledger of what was published."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import nats
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo

from tests.demo.fleet import MANIFESTS, Event

STREAM = "EVENTS"
CONSUMER = "backend_events_projector"
BUCKET = "jobs"
_CLOSE_TIMEOUT = 2.0


class Agents:
    """Publishes events and remembers each with the sequence that the stream gave it."""

    def __init__(self, js: JetStreamContext, pace: float) -> None:
        self.published: list[tuple[int, Event]] = []
        self._js = js
        self._pace = pace

    async def register_manifests(self) -> None:
        """Make the bucket with the manifests, as the fleet's own set-up does."""
        bucket = await self._js.create_key_value(bucket=BUCKET)
        for manifest_id, timeout in MANIFESTS.items():
            await bucket.put(manifest_id, json.dumps({"execute": {"timeout": timeout}}).encode())

    async def publish(self, events: list[Event], *, seconds: float) -> None:
        """Publish events one by one, spread over some seconds; returns with the last one's ack."""
        loop = asyncio.get_running_loop()
        begun = loop.time()
        for number, event in enumerate(events, start=1):
            due = begun + seconds * self._pace * number / len(events)
            await asyncio.sleep(due - loop.time())
            ack = await self._js.publish(event.subject, event.payload)
            self.published.append((ack.seq, event))

    async def stream(self) -> StreamInfo:
        return await self._js.stream_info(STREAM)

    async def consumer(self) -> ConsumerInfo:
        info: ConsumerInfo = await self._js.consumer_info(STREAM, CONSUMER)
        return info

    async def is_settled(self) -> bool:
        """Tell whether the worker has taken and acked everything that was published."""
        consumer = await self.consumer()
        return not consumer.num_pending and not consumer.num_ack_pending

    # --- the ledger ---

    @property
    def result_ids(self) -> set[str]:
        """Return the ids of all runs whose start was published, once or more."""
        return {event.result_id for _, event in self.published if event.result_id is not None}

    @property
    def starts(self) -> int:
        """Return how many of the messages are starts, duplicates included."""
        return sum(event.result_id is not None for _, event in self.published)

    @property
    def malformed_sequences(self) -> list[int]:
        """Return the stream sequences of what is no start, in order."""
        return sorted(sequence for sequence, event in self.published if event.members is None)


@asynccontextmanager
async def connected(url: str, *, pace: float) -> AsyncIterator[Agents]:
    """Connect to the broker; whatever happens inside, the connection is closed within a bound.

    Every pause between two events is multiplied by `pace`.
    """

    async def ignore(_error: Exception) -> None:
        """What matters reaches the publisher as an exception."""

    client = await nats.connect(url, allow_reconnect=False, error_cb=ignore)
    try:
        yield Agents(client.jetstream(timeout=5), pace)
    finally:
        # Its close may also raise CancelledError where the server went away first.
        with contextlib.suppress(Exception, asyncio.CancelledError):
            await asyncio.wait_for(client.close(), _CLOSE_TIMEOUT)
