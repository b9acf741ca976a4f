"""The messages of a stream as they came, for a command, through a consumer of its own.

The worker's consumer is not touched.
"""

from collections.abc import Iterator
from typing import Any, Self

from worker.codec.timestamps import format_instant
from worker.errors import ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.ephemeral import ConsumerGone, EphemeralConsumer
from worker.jetstream.stream import ApiError
from worker.messages import Message

# https://github.com/nats-io/nats-server/blob/main/server/errors.json: explicit acks required, not
# unique.
_WORK_QUEUE = (10084, 10098, 10099, 10100)


class StreamReader:
    """Reads the messages of a projection that a stream holds now, oldest first.

    `expected` is about how many there are, on `subjects`. To be used inside `with`, which raises
    ConfigurationError for a work queue. Every method raises BrokerError where the broker does not
    answer.
    """

    def __init__(
        self,
        client: BrokerClient,
        stream: str,
        filter_subject: str,
        last_sequence: int,
        *,
        since: int | None = None,
    ) -> None:
        """Read up to a sequence, from the start or from an instant in nanoseconds since 1970."""
        self.expected = 0
        self._client = client
        self._stream = stream
        self.subjects = filter_subject
        self._last_sequence = last_sequence
        self._since = since
        self._next = 1
        self._consumer = EphemeralConsumer(client.connection, stream)

    def __enter__(self) -> Self:
        try:
            self._client.do(self._open())
        except BaseException:
            self.__exit__()
            raise
        self.expected = self._consumer.pending
        return self

    def __exit__(self, *_: object) -> None:
        self._client.do(self._consumer.close(delete=True))

    def pages(self) -> Iterator[list[Message]]:
        """Yield the messages, a bounded number at a time."""
        while self._next <= self._last_sequence:
            page = self._client.do(self._page())
            if not page:
                return
            self._next = page[-1].stream_sequence + 1
            yield page

    async def _open(self) -> None:
        config: dict[str, Any] = {"deliver_policy": "all"}
        if self._next > 1:
            config = {"deliver_policy": "by_start_sequence", "opt_start_seq": self._next}
        elif self._since is not None:
            start = format_instant(self._since)
            config = {"deliver_policy": "by_start_time", "opt_start_time": start}
        try:
            await self._consumer.open(self.subjects, **config)
        except ApiError as error:
            if error.code in _WORK_QUEUE:
                raise ConfigurationError(
                    f"stream {self._stream} is a work queue, which only its own consumer can read"
                ) from error
            raise

    async def _page(self) -> list[Message]:
        try:
            page = await self._consumer.page(self._last_sequence)
        except ConsumerGone:  # what is done with a page may take long
            await self._consumer.close(delete=True)
            self._consumer = EphemeralConsumer(self._client.connection, self._stream)
            await self._open()
            page = await self._consumer.page(self._last_sequence)
        return [one.as_message() for one in page]
