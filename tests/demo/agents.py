"""The agents' side of the broker: the bucket, publishing, and a ledger of what was published."""

import contextlib
import time

from tests.demo.fleet import MANIFESTS, Event
from tests.support.broker import Broker


class Agents(Broker):
    """Publishes events; `pace` multiplies the pauses between them.

    `malformed_sequences` are the stream sequences of the malformed messages, in order.
    """

    def __init__(self, url: str, pace: float) -> None:
        super().__init__(url, allow_reconnect=False)
        self.messages: list[Event] = []
        self.malformed_sequences: list[int] = []
        self.result_ids: set[str] = set()
        self._pace = pace

    def __exit__(self, *_: object) -> None:
        # Ctrl-C may have ended the server before.
        with contextlib.suppress(Exception):
            self.close()

    def register_manifests(self) -> None:
        """Create the bucket with the manifests, as the fleet's own set-up does."""
        self.make_bucket()
        for manifest_id, timeout in MANIFESTS.items():
            self.put_manifest(manifest_id, {"execute": {"timeout": timeout}})

    def play(self, events: list[Event], *, seconds: float) -> None:
        """Publish events one by one, spread over some seconds; returns after the last ack."""
        began = time.monotonic()
        for number, event in enumerate(events, start=1):
            due = began + seconds * self._pace * number / len(events)
            time.sleep(max(0.0, due - time.monotonic()))
            sequence = self.publish(event.payload, subject=event.subject)
            self.messages.append(event)
            if event.members is None:
                self.malformed_sequences.append(sequence)
            else:
                self.result_ids.add(event.members["result_id"])

    @property
    def duplicates(self) -> int:
        """How many starts were published again."""
        return len(self.messages) - len(self.malformed_sequences) - len(self.result_ids)
