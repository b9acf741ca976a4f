"""The agents' side of the broker: the buckets, publishing, and a ledger of what was published."""

import asyncio
import contextlib
import time
from typing import Any

from tests.demo.fleet import MANIFESTS, Event
from tests.support.broker import RESULTS, RESULTS_CONSUMER, STREAM, Broker

Members = dict[str, Any]


class Ledger:
    """What was published to one stream.

    `first` are the members of the first message for each run, `malformed` the stream sequences of
    the malformed messages.
    """

    def __init__(self) -> None:
        self.messages = 0
        self.first: dict[str, Members] = {}
        self.malformed: list[int] = []

    def add(self, event: Event, sequence: int) -> None:
        self.messages += 1
        if event.members is None:
            self.malformed.append(sequence)
        else:
            self.first.setdefault(event.members["result_id"], event.members)

    @property
    def duplicates(self) -> int:
        """How many messages repeated an earlier one."""
        return self.messages - len(self.malformed) - len(self.first)


class Agents(Broker):
    """Publishes events; `pace` multiplies the pauses between them.

    `outputs` are the texts in the object store, by key.
    """

    def __init__(self, url: str, pace: float) -> None:
        super().__init__(url, allow_reconnect=False)
        self.starts, self.results = Ledger(), Ledger()
        self.outputs: dict[str, str] = {}
        self._pace = pace

    def __exit__(self, *_: object) -> None:
        # Ctrl-C may have ended the server before, or come while a message was published.
        with contextlib.suppress(Exception):
            self.run(_cancel_the_rest())
        with contextlib.suppress(Exception):
            self.close()

    def set_up(self) -> None:
        """Create both buckets and register the manifests, as the fleet's own set-up does."""
        self.make_output_bucket()
        self.make_bucket()
        for manifest_id, timeout in MANIFESTS.items():
            self.put_manifest(manifest_id, {"execute": {"timeout": timeout}})

    def upload(self, key: str, text: str) -> None:
        """Put long output into the object store, as an agent does before it publishes a result."""
        self.put_output(key, text.encode())
        self.outputs[key] = text

    def play(self, events: list[Event], *, seconds: float) -> None:
        """Publish events one by one, spread over some seconds; returns after the last ack."""
        began = time.monotonic()
        for number, event in enumerate(events, start=1):
            due = began + seconds * self._pace * number / len(events)
            time.sleep(max(0.0, due - time.monotonic()))
            sequence = self.publish(event.payload, subject=event.subject)
            (self.results if event.is_result else self.starts).add(event, sequence)

    @property
    def result_ids(self) -> set[str]:
        """All runs that a start or a result names."""
        return self.starts.first.keys() | self.results.first.keys()

    @property
    def malformed(self) -> set[tuple[str, int]]:
        """Stream and sequence of every malformed message."""
        ledgers = {STREAM: self.starts, RESULTS: self.results}
        return {(name, number) for name, one in ledgers.items() for number in one.malformed}

    def has_nothing_left(self) -> bool:
        """Return whether every message of both streams is acked."""
        return self.not_acked() == (0, 0)

    def not_acked(self) -> tuple[int, int]:
        """Return how many messages are pending and how many ack pending, of both streams."""
        results = self.run(self._js.consumer_info(RESULTS, RESULTS_CONSUMER))
        consumers = (self.consumer(), results)
        pending = sum(consumer.num_pending or 0 for consumer in consumers)
        return pending, sum(consumer.num_ack_pending or 0 for consumer in consumers)


async def _cancel_the_rest() -> None:
    """Cancel every other task of the loop, which would complain of them when it is closed."""
    rest = asyncio.all_tasks() - {asyncio.current_task()}
    for task in rest:
        task.cancel()
    await asyncio.gather(*rest, return_exceptions=True)
