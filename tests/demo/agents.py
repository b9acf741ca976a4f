"""The agents' side of the broker: the bucket, publishing, and a ledger of what was published."""

import asyncio
import contextlib
import json
import time

import nats
from nats.js.api import ConsumerInfo, StreamConfig

from tests.demo.fleet import MANIFESTS, Event

_CLOSE_TIMEOUT = 2.0


class Agents:
    """Publishes events; `with` closes the connection. `pace` multiplies the pauses between events.

    `malformed_sequences` are the stream sequences of the malformed messages, in order.
    """

    def __init__(self, url: str, pace: float) -> None:
        self.messages: list[Event] = []
        self.malformed_sequences: list[int] = []
        self.result_ids: set[str] = set()
        self._pace = pace
        self._runner = asyncio.Runner()
        self._run = self._runner.run
        self._client = self._run(nats.connect(url, allow_reconnect=False, error_cb=_ignore))
        self._js = self._client.jetstream(timeout=5)

    def __enter__(self) -> "Agents":
        return self

    def __exit__(self, *_: object) -> None:
        # The close may also raise CancelledError if the server ended first.
        with self._runner, contextlib.suppress(Exception, asyncio.CancelledError):
            self._run(asyncio.wait_for(self._client.close(), _CLOSE_TIMEOUT))

    def register_manifests(self) -> None:
        """Create the bucket with the manifests, as the fleet's own set-up does."""
        bucket = self._run(self._js.create_key_value(bucket="jobs"))
        for manifest_id, timeout in MANIFESTS.items():
            value = json.dumps({"execute": {"timeout": timeout}}).encode()
            self._run(bucket.put(manifest_id, value))

    def publish(self, events: list[Event], *, seconds: float) -> None:
        """Publish events one by one, spread over some seconds; returns after the last ack."""
        began = time.monotonic()
        for number, event in enumerate(events, start=1):
            due = began + seconds * self._pace * number / len(events)
            time.sleep(max(0.0, due - time.monotonic()))
            ack = self._run(self._js.publish(event.subject, event.payload))
            self.messages.append(event)
            if event.members is None:
                self.malformed_sequences.append(ack.seq)
            else:
                self.result_ids.add(event.members["result_id"])

    @property
    def duplicates(self) -> int:
        """How many starts were published again."""
        return len(self.messages) - len(self.malformed_sequences) - len(self.result_ids)

    def stream(self) -> StreamConfig:
        return self._run(self._js.stream_info("EVENTS")).config

    def consumer(self) -> ConsumerInfo:
        info: ConsumerInfo = self._run(self._js.consumer_info("EVENTS", "backend_events_projector"))
        return info

    def all_acked(self) -> bool:
        consumer = self.consumer()
        return not consumer.num_pending and not consumer.num_ack_pending


async def _ignore(_error: Exception) -> None:
    """Errors that matter also reach the publisher as exceptions."""
