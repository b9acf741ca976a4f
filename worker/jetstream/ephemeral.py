"""Read a stream through a consumer of its own, which acks nothing and ends by itself.

The server removes such a consumer a few seconds after its last request, whatever became of the
process that made it. It has a name, so that `nats consumer ls` shows whose it is, and so that it
can be deleted even if the answer to its creation was lost. Loop thread only.
"""

import asyncio
import contextlib
import json
import os
import secrets
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence
from typing import Any, NamedTuple

import nats.errors
from nats.aio.subscription import Subscription

from worker.codec.timestamps import NANOSECONDS
from worker.errors import NoResponse, PullLost
from worker.jetstream.connection import API, Connection
from worker.jetstream.stream import request
from worker.jetstream.window import BYTES_USED_UP, Window
from worker.jetstream.wire import Delivered
from worker.messages import Delivery, Message, is_marker, read_delivery, read_pending

_INACTIVE_AFTER = 5
_PAGE_MESSAGES = 500
_TICK = 0.5
_EXPIRES = 0.1
_EXPIRES_ONCE_MORE = 2.0
_EXPIRES_LATE = 1.5
_NO_MESSAGES = ("404", "408")


class ConsumerGone(PullLost):
    """The server has removed the consumer; another one can read on."""


class Received(NamedTuple):
    """A message, and what its reply subject says."""

    delivery: Delivery
    message: Delivered

    def as_message(self) -> Message:
        """Return it as the worker's own value, delivered once."""
        read, message = self
        marker = is_marker(message.data, message.headers)
        return Message(
            message.subject, message.data, read.stream_sequence, 1, read.stored_at, marker
        )


class EphemeralConsumer:
    """Reads the messages of a stream, a page at a time. `pending` is how many are left.

    The next page is on its way while one is handled. Raises PullLost where the broker does not
    answer, or a message is missing in between.
    """

    def __init__(
        self,
        connection: Connection,
        stream: str,
        *,
        page: int = _PAGE_MESSAGES,
        expires: float = _EXPIRES,
    ) -> None:
        """`page` is how many messages a page has at most, `expires` how long one may take.

        The time counts at the server, in seconds.
        """
        self.pending = 0
        self._expires = expires
        self._connection = connection
        self._stream = stream
        self._page = page
        self._name = f"projector-{os.getpid()}-{secrets.token_hex(6)}"
        self._inbox = connection.new_inbox()
        self._window = Window(connection.max_payload)
        self._subscription: Subscription | None = None
        self._requests = 0
        self._awaited = 0
        self._last_sign = self._sent_at = 0.0
        self._last_delivery = 0
        self._until = -1
        self._is_at_end = False
        self._is_missing = False
        self._arrived: list[Received] = []
        self._status: dict[str, str] = {}
        self._changed = asyncio.Event()

    async def open(self, filter_subject: str = "", **config: Any) -> None:
        """Create the consumer; `config` is the server's."""
        subject = f"{API}.CONSUMER.CREATE.{self._stream}.{self._name}"
        if filter_subject:
            subject += f".{filter_subject}"
            config["filter_subject"] = filter_subject
        given = {
            "name": self._name,
            "ack_policy": "none",
            "inactive_threshold": _INACTIVE_AFTER * NANOSECONDS,
            "mem_storage": True,
            **config,
        }
        body = {"stream_name": self._stream, "config": given}
        try:
            self._subscription = await self._connection.receive(self._inbox + ".*", self._receive)
        except (nats.errors.Error, OSError) as error:
            raise PullLost("the connection is lost") from error
        info = await request(self._connection, subject, body)
        self.pending = info["num_pending"]
        self._is_at_end = not self.pending

    async def page(self, until: int) -> list[Received]:
        """Return the next messages up to the sequence `until`; none if there are no more.

        With a higher `until` than before there may be more.
        """
        if until > self._until:
            # What was pending says nothing of what has come since.
            self._is_at_end = self._is_at_end and self._until < 0
            self._until = until
        if self._is_at_end:
            return []
        # What was pending may be gone by now, and then a server may wait for more. It may also
        # have been too busy to look, so it gets a second chance.
        for expires in (self._expires, _EXPIRES_ONCE_MORE):
            if not self._arrived and self._awaited <= 0:
                await self._request(expires)
            await self._answer(expires)
        # More may arrive for the same request; that is of the next page.
        arrived = self._arrived
        wanted = bisect_right(arrived, until, key=_sequence)
        page, self._arrived = arrived[:wanted], arrived[wanted:]
        if arrived:
            self.pending = read_pending(arrived[-1].message.reply)
            self._is_at_end = not self.pending or _sequence(arrived[-1]) >= until
        elif self._status.get("Status") in _NO_MESSAGES:
            self._is_at_end = True
        elif self._status:
            raise ConsumerGone(f"the broker ended the read: {self._status}")
        else:
            raise NoResponse("no message and no status from the broker")
        if not self._is_at_end and self._awaited <= 0:
            await self._request(self._expires)
        return page

    async def _request(self, expires: float) -> None:
        now = time.monotonic()
        self._awaited = min(self._page, self._window.messages, self.pending or self._page)
        self._window.asked(self._awaited, now)
        self._status, self._last_sign = {}, now
        self._requests += 1
        await self._send(
            f"{self._inbox}.{self._requests}",
            batch=self._awaited,
            expires=int(expires * NANOSECONDS),
            max_bytes=self._window.max_bytes,
        )

    async def _send(self, reply: str, **body: int) -> None:
        self._sent_at = time.monotonic()
        subject = f"{API}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        payload = json.dumps({**body, "no_wait": True}).encode()
        try:
            await self._connection.publish(subject, payload, reply)
        except (nats.errors.Error, OSError) as error:
            raise PullLost("the connection is lost") from error

    async def _answer(self, expires: float) -> None:
        """Return once all that was requested has arrived, or the request has ended."""
        while not self._is_answered():
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self._changed.wait()
            if self._connection.link.is_overdue(self._last_sign, expires + _EXPIRES_LATE):
                # Servers before 2.10 end a request that expires while it is served without a word.
                self._awaited = 0
                self._window.ended()
            elif time.monotonic() - self._sent_at > _INACTIVE_AFTER / 2:
                # The server has sent all of it, and a slow link has not brought it. A request that
                # no message fits keeps the consumer until then.
                await self._send(f"{self._inbox}.0", batch=1, max_bytes=1)
        if self._is_missing:
            raise PullLost("a message is missing in what the broker sent")

    def _is_answered(self) -> bool:
        arrived = self._arrived
        reached = bool(arrived) and _sequence(arrived[-1]) >= self._until
        return self._awaited <= 0 or self._is_missing or reached

    def _receive(self, messages: Sequence[Delivered]) -> None:
        self._changed.set()
        now, round_trip = time.monotonic(), self._connection.link.round_trip
        for message in messages:
            # Only the reply subject distinguishes a message from a status.
            if (delivery := read_delivery(message.reply)) is not None:
                self._last_sign = now
                self._is_missing |= delivery.consumer_sequence != self._last_delivery + 1
                self._last_delivery = delivery.consumer_sequence
                self._awaited -= 1
                self._arrived.append(Received(delivery, message))
                self._window.arrived(1, len(message.data), now, round_trip)
            elif message.subject == f"{self._inbox}.{self._requests}":
                self._awaited, self._status = 0, message.headers or {"Status": ""}
                if BYTES_USED_UP in self._status.get("Description", "").lower():
                    self._window.filled(now, round_trip)
                self._window.ended()

    async def close(self, *, delete: bool) -> None:
        """Leave the consumer; `delete` asks the server to remove it at once, where permitted."""
        with contextlib.suppress(nats.errors.Error, OSError):
            if delete:
                subject = f"{API}.CONSUMER.DELETE.{self._stream}.{self._name}"
                await self._connection.publish(subject, b"", self._inbox)
            if self._subscription is not None:
                await self._subscription.unsubscribe()


def _sequence(one: Received) -> int:
    return one.delivery.stream_sequence


@contextlib.asynccontextmanager
async def reading(
    connection: Connection, stream: str, *, delete: bool, **config: Any
) -> AsyncIterator[EphemeralConsumer]:
    """Open an ephemeral consumer for the body, with a configuration as for `open`."""
    consumer = EphemeralConsumer(connection, stream)
    try:
        await consumer.open(**config)
        yield consumer
    finally:
        await consumer.close(delete=delete)
