"""Reads what a stream holds from a sequence on, for the catch-up. Consumer thread only."""

from collections.abc import AsyncIterator
from typing import Self

from worker.errors import PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.ephemeral import EphemeralConsumer
from worker.jetstream.stream import first_message
from worker.messages import Message

# A busy server may take longer for a page than a short time, and the consumer's messages stay.
_EXPIRES = 3.0


class CatchUpReader:
    """Reads the messages of a filter between two sequences, both included, oldest first.

    To be used inside `async with`. `expected` is how many messages there were at most. Raises
    PullLost where the broker does not answer, or a message is missing in between.
    """

    def __init__(self, connection: Connection, stream: str, filter_subject: str, page: int) -> None:
        self.expected = 0
        self._connection = connection
        self._stream = stream
        self._filter = filter_subject
        self._consumer = EphemeralConsumer(connection, stream, page=page, expires=_EXPIRES)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.close(delete=False)

    async def pages(self, first: int, last: int) -> AsyncIterator[list[Message]]:
        """Yield the messages; the next page is on its way while one is handled."""
        await self._consumer.open(
            self._filter, deliver_policy="by_start_sequence", opt_start_seq=first
        )
        self.expected = self._consumer.pending
        read = first - 1
        while page := await self._consumer.page(last):
            read = page[-1].delivery.stream_sequence
            yield [one.as_message() for one in page]
        if read < last and not await self._is_at_end(read, last):
            raise PullLost("the broker ended the catch-up too early")

    async def _is_at_end(self, read: int, last: int) -> bool:
        """Return whether the stream holds nothing more up to `last`."""
        found = await first_message(self._connection, self._stream, read + 1, self._filter)
        return found is None or int(found["seq"]) > last
