"""The messages of a stream as they came, for a command, through a consumer of its own.

The consumer acks nothing, keeps its state in memory, and ends by itself when it is read no more.
The worker's consumer is not touched.
"""

import time
from collections.abc import Iterator
from typing import Any, Self

import nats.errors
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from worker.codec.timestamps import NANOSECONDS, format_instant
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API, API_TIMEOUT
from worker.jetstream.stream import ApiError, request
from worker.messages import Message, is_marker, read_delivery

PAGE_MESSAGES = 250
_INACTIVE_AFTER = 60
_FETCH_TIMEOUT = 10.0
# https://github.com/nats-io/nats-server/blob/main/server/errors.json: explicit acks required, not
# unique.
_WORK_QUEUE = (10084, 10098, 10099, 10100)
_UNREADABLE = "the stream cannot be read any further"


class StreamReader:
    """Reads the messages of a projection that a stream holds now, oldest first.

    `expected` is about how many there are. To be used inside `with`, which raises
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
        self._filter = filter_subject
        self._last_sequence = last_sequence
        self._since = since
        self._name = ""
        self._subscription: JetStreamContext.PullSubscription

    def __enter__(self) -> Self:
        self._client.do(self._open())
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, BrokerError):
            self._client.do(self._leave())

    def pages(self) -> Iterator[list[Message]]:
        """Yield the messages, a bounded number at a time."""
        left = self.expected
        while left > 0:
            page, left = self._client.do(self._page(left))
            if page:
                yield page

    async def _open(self) -> None:
        config: dict[str, Any] = {
            "deliver_policy": "all",
            "ack_policy": "none",
            "filter_subject": self._filter,
            "inactive_threshold": _INACTIVE_AFTER * NANOSECONDS,
            "mem_storage": True,
        }
        if self._since is not None:
            config["deliver_policy"] = "by_start_time"
            # The server counts nanoseconds in 64 bits: a time far from now would wrap around.
            config["opt_start_time"] = format_instant(max(0, min(self._since, time.time_ns())))
        body = {"stream_name": self._stream, "config": config}
        subject = f"{API}.CONSUMER.CREATE.{self._stream}"
        try:
            info = await request(self._client.connection, subject, body)
        except ApiError as error:
            if error.code in _WORK_QUEUE:
                raise ConfigurationError(
                    f"stream {self._stream} is a work queue, which only its own consumer can read"
                ) from error
            raise
        self._name, self.expected = info["name"], info["num_pending"]
        js = self._client.connection.jetstream(timeout=API_TIMEOUT)
        self._subscription = await js.pull_subscribe_bind(self._name, self._stream)

    async def _page(self, left: int) -> tuple[list[Message], int]:
        """Return the next messages, and how many are left."""
        try:
            fetched = await self._subscription.fetch(min(left, PAGE_MESSAGES), _FETCH_TIMEOUT)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerError(_UNREADABLE) from error
        if not fetched:  # the library reports a deleted consumer in the same way
            raise BrokerError(_UNREADABLE)
        page = [_message(message) for message in fetched]
        # Messages may arrive and expire while this reads.
        left = min(left - len(page), fetched[-1].metadata.num_pending)
        wanted = [m for m in page if m.stream_sequence <= self._last_sequence]
        return wanted, left if len(wanted) == len(page) else 0

    async def _leave(self) -> None:
        """Delete the consumer at once where that is permitted, without waiting for the answer."""
        subject = f"{API}.CONSUMER.DELETE.{self._stream}.{self._name}"
        connection = self._client.connection
        try:
            await connection.publish(subject, b"{}", connection.new_inbox())
            await self._subscription.unsubscribe()
        except nats.errors.Error as error:
            raise BrokerError("the connection is lost") from error


def _message(message: Msg) -> Message:
    read = read_delivery(message.reply)
    if read is None:
        raise BrokerError(f"not a reply subject of JetStream: {message.reply}")
    marker = is_marker(message.data, message.headers)
    return Message(message.subject, message.data, read.stream_sequence, 1, read.stored_at, marker)
