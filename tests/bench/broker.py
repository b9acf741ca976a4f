"""The server's side of a measurement: a fresh backlog, and when its drain began and ended.

Both times are the same for every program: a drain begins with the first pull request on the wire
and ends with the last ack that the server processed.
"""

import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from tests.bench.data import TIMEOUTS, Event
from tests.bench.process import Program
from tests.support.broker import CONSUMER, STREAM, Broker
from tests.support.waiting import eventually

_MAX_BYTES = 4 * 1024**3


@dataclass(slots=True)
class Seen:
    """When something was first seen on the wire, in seconds since 1970; None until then."""

    first_request: float | None = None
    last_ack: float | None = None


class BenchBroker(Broker):
    """A connection that fills the stream and watches a drain."""

    def fill(self, events: Iterable[Event]) -> None:
        """Recreate bucket, stream and consumer, and publish the events in order.

        The stream may be larger than in production: a million events need more than 256 MiB.
        """
        self.delete_everything()
        self.make_bucket()
        for manifest_id, timeout in TIMEOUTS.items():
            self.put_manifest(manifest_id, {"execute": {"timeout": timeout}})
        self.make_stream(max_bytes=_MAX_BYTES)
        self.make_consumer()
        self.publish_many([(event.subject, event.payload) for event in events])

    def watch(self, count: int) -> Seen:
        """Watch for pull requests and for the ack of the last message."""
        seen = Seen()

        async def on_request(_: Msg) -> None:
            seen.first_request = seen.first_request or time.time()

        async def on_last_ack(_: Msg) -> None:
            seen.last_ack = seen.last_ack or time.time()

        async def subscribe() -> None:
            requests = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
            await self._client.subscribe(requests, cb=on_request)
            # Watching the acks of all messages would cost the server time. At times it also needs
            # tens of milliseconds for consumer info, so that is requested only after the last ack.
            last_ack = f"$JS.ACK.{STREAM}.{CONSUMER}.*.{count}.*.*.*"
            await self._client.subscribe(last_ack, cb=on_last_ack)
            await self._client.flush()

        self.run(subscribe())
        return seen

    def wait_for_request(self, seen: Seen, program: Program) -> float:
        """Return when the program sent its first pull request; raises BenchFailed."""

        def requested() -> float:
            program.check_running()
            return seen.first_request or 0.0

        return eventually(requested, 20, lambda: str(program.failure("sends no pull request")))

    def last_ack(self) -> float:
        """Return when the server processed the last ack, in seconds since 1970."""
        ack_floor = self.consumer().ack_floor
        assert ack_floor is not None
        last_active: Any = ack_floor.last_active
        return float(last_active.timestamp())
