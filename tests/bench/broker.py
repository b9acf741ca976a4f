"""The server's side of a measurement: a fresh backlog, and when its drain began and ended.

Both times are the same for every program: a drain begins with the first pull request on the wire
and ends with the last ack that the server processed.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from tests.bench.data import TIMEOUTS, Event, Result
from tests.bench.process import Program
from tests.support.broker import CONSUMER, RESULTS, RESULTS_CONSUMER, STREAM, Broker
from tests.support.waiting import eventually

_MAX_BYTES = 4 * 1024**3
# Messages of one stream between those of the other, where both have a backlog.
_ALTERNATING = 500


@dataclass(slots=True)
class Seen:
    """When something of a consumer was first seen on the wire, in seconds since 1970, or None."""

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

    def fill_both(self, starts: Sequence[Event], results: Sequence[Result]) -> None:
        """Recreate everything, and publish starts and results by turns."""
        self.fill([])
        self.make_results_stream(max_bytes=_MAX_BYTES)
        self.make_consumer(
            stream=RESULTS,
            durable_name=RESULTS_CONSUMER,
            filter_subject=None,
            max_ack_pending=10_000,
        )
        for at in range(0, max(len(starts), len(results)), _ALTERNATING):
            for stream, messages in ((STREAM, starts), (RESULTS, results)):
                some = messages[at : at + _ALTERNATING]
                self.publish_many([(one.subject, one.payload) for one in some], stream)

    def watch(self, count: int, stream: str = STREAM, consumer: str = CONSUMER) -> Seen:
        """Watch for pull requests and for the ack of the last message."""
        seen = Seen()

        async def on_request(_: Msg) -> None:
            seen.first_request = seen.first_request or time.time()

        async def on_last_ack(_: Msg) -> None:
            seen.last_ack = seen.last_ack or time.time()

        async def subscribe() -> None:
            requests = f"$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}"
            await self._client.subscribe(requests, cb=on_request)
            # Watching the acks of all messages would cost the server time. At times it also needs
            # tens of milliseconds for consumer info, so that is requested only after the last ack.
            last_ack = f"$JS.ACK.{stream}.{consumer}.*.{count}.*.*.*"
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

    def last_ack(self, stream: str = STREAM, consumer: str = CONSUMER) -> float:
        """Return when the server processed the last ack, in seconds since 1970."""
        ack_floor = self.consumer(consumer, stream).ack_floor
        assert ack_floor is not None
        last_active: Any = ack_floor.last_active
        return float(last_active.timestamp())
