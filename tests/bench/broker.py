"""The broker's side of a measurement: a fresh backlog, and when its drain began and ended.

Both times are the server's or are seen on the wire, so that they mean the same for every program:
it begins with the first request for messages and ends with the last ack that the server took.
"""

import asyncio
import itertools
import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from nats.aio.msg import Msg
from nats.js.api import ConsumerConfig, ConsumerInfo, StreamConfig
from nats.js.errors import NotFoundError

from tests.bench.data import Event
from tests.support.broker import BUCKET, CONSUMER, STREAM, Broker

_WINDOW = 2000
_MAX_BYTES = 4 * 1024**3
_MAX_ACK_PENDING = 10_000
_BUCKET_STREAM = f"KV_{BUCKET}"


@dataclass(slots=True)
class Seen:
    """What was seen on the wire, in seconds since 1970; None where it was not seen yet.

    The acks are those of the stream's first and last event.
    """

    first_request: float | None = None
    first_ack: float | None = None
    last_ack: float | None = None
    pullers: set[str] = field(default_factory=set)


class BenchBroker(Broker):
    """A connection that fills streams and watches drains."""

    def fill_bucket(self, timeouts: dict[str, str]) -> None:
        """Make the bucket hold these manifests and no others."""
        self._delete(_BUCKET_STREAM)
        self.make_bucket()

        async def put(some: Iterable[tuple[str, str]]) -> None:
            bucket = await self._js.key_value(BUCKET)
            await asyncio.gather(
                *(
                    bucket.put(name, json.dumps({"execute": {"timeout": text}}).encode())
                    for name, text in some
                )
            )

        for window in _windows(timeouts.items(), _WINDOW):
            self.run(put(window))

    def fill(self, events: Iterable[Event]) -> int:
        """Recreate the stream and its consumer with these events, in order; returns their number.

        The stream is the contract's but for its size: a million events need more than 256 MiB.
        """
        self._delete(STREAM)
        stream = StreamConfig(name=STREAM, subjects=["events.>"], max_bytes=_MAX_BYTES)
        self.run(self._js.add_stream(stream))
        self.make_consumer()
        published = sum(self.run(self._publish(window)) for window in _windows(events, _WINDOW))
        stored = self.stream_info().state
        assert (stored.messages, stored.last_seq) == (published, published), stored
        return published

    async def _publish(self, events: list[Event]) -> int:
        """Publish a window; the stream's answer to its last event covers those before it."""
        for event in events[:-1]:
            await self._client.publish(event.subject, event.payload)
        await self._js.publish(events[-1].subject, events[-1].payload, timeout=15)
        return len(events)

    def watch(self, events: int) -> Seen:
        """Begin to watch for requests and for the acks of the stream's first and last event."""
        seen = Seen()

        async def on_request(message: Msg) -> None:
            seen.first_request = seen.first_request or time.time()
            seen.pullers.add(message.reply.rpartition(".")[0])

        async def on_first_ack(_: Msg) -> None:
            seen.first_ack = seen.first_ack or time.time()

        async def on_last_ack(_: Msg) -> None:
            seen.last_ack = seen.last_ack or time.time()

        async def subscribe() -> None:
            requests = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
            await self._client.subscribe(requests, cb=on_request)
            await self._client.subscribe(_acks(1), cb=on_first_ack)
            await self._client.subscribe(_acks(events), cb=on_last_ack)
            await self._client.flush()

        self.run(subscribe())
        return seen

    def let_through(self, messages: int = _MAX_ACK_PENDING) -> None:
        """Let the consumer have so many messages ack_pending; with 1, a backlog is held back."""
        config = ConsumerConfig(
            durable_name=CONSUMER,
            filter_subject="events.started.>",
            ack_wait=30.0,
            max_ack_pending=messages,
        )
        self.run(self._js.add_consumer(STREAM, config))

    def left(self) -> int:
        """Return how many events are not settled."""
        consumer = self.consumer()
        return (consumer.num_pending or 0) + (consumer.num_ack_pending or 0)

    def last_ack(self) -> float:
        """Return when the server took the last ack, in seconds since 1970, to the microsecond."""
        consumer: ConsumerInfo = self.consumer()
        assert consumer.ack_floor is not None
        last_active: Any = consumer.ack_floor.last_active
        return float(last_active.timestamp())

    def _delete(self, stream: str) -> None:
        try:
            self.delete_stream(stream)
        except NotFoundError:
            return


def _acks(sequence: int) -> str:
    """Return the subject of the acks of one message: of all, they would cost the server time.

    Its last parts are deliveries, stream sequence, consumer sequence, time and pending.
    """
    return f"$JS.ACK.{STREAM}.{CONSUMER}.*.{sequence}.*.*.*"


def _windows(items: Iterable[Any], size: int) -> Iterable[list[Any]]:
    iterator = iter(items)
    while window := list(itertools.islice(iterator, size)):
        yield window
