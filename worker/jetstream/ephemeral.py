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
from collections.abc import AsyncIterator
from typing import Any, NamedTuple

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from worker.codec.timestamps import NANOSECONDS
from worker.errors import BrokerError
from worker.jetstream.connection import API, Connection
from worker.jetstream.consumer_info import usual_bytes
from worker.jetstream.stream import request
from worker.messages import Delivery, read_delivery

_INACTIVE_AFTER = 5
_PAGE_MESSAGES = 500
_EXPIRES = 0.1
_EXPIRES_ONCE_MORE = 2.0
_SILENT_AFTER = 5.0
_NO_MESSAGES = ("404", "408")


class ConsumerGone(BrokerError):
    """The server has removed the consumer; another one can read on."""


class Received(NamedTuple):
    """A message, and what its reply subject says."""

    delivery: Delivery
    message: Msg


class EphemeralConsumer:
    """Reads the messages of a stream, a page at a time. `pending` is how many are left."""

    def __init__(self, connection: Connection, stream: str) -> None:
        self.pending = 0
        self._connection = connection
        self._stream = stream
        self._name = f"projector-{os.getpid()}-{secrets.token_hex(6)}"
        self._inbox = connection.new_inbox()
        self._subscription: Subscription | None = None
        self._requests = 0
        self._wanted = 0
        self._until = -1
        self._is_at_end = False
        self._arrived: list[Received] = []
        self._status: dict[str, str] = {}
        self._ended = asyncio.Event()

    async def open(self, filter_subject: str = "", **config: Any) -> None:
        """Create the consumer; `config` is the server's. Raises BrokerError."""
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
            self._subscription = await self._connection.subscribe(
                self._inbox + ".*", cb=self._receive
            )
        except (nats.errors.Error, OSError) as error:
            raise BrokerError("the connection is lost") from error
        info = await request(self._connection, subject, body)
        self.pending = info["num_pending"]
        self._is_at_end = not self.pending

    async def page(self, until: int) -> list[Received]:
        """Return the next messages; none after the sequence `until`, or if there are no more.

        With a higher `until` than before it may return more. Raises BrokerError.
        """
        if until > self._until:
            # What was pending says nothing of what has come since.
            self._is_at_end = self._is_at_end and self._until < 0
            self._until = until
        if self._is_at_end:
            return []
        try:
            # What was pending may be gone by now, and then a server may wait for more. It may also
            # have been too busy to look, so it gets a second chance.
            for expires in (_EXPIRES, _EXPIRES_ONCE_MORE):
                if not self._arrived:
                    await self._request(expires)
        except (nats.errors.Error, OSError) as error:
            raise BrokerError("the connection is lost") from error
        # More may arrive for the same request; that is of the next page.
        page, self._arrived = self._arrived, []
        if page:
            self.pending = page[-1].message.metadata.num_pending
            self._is_at_end = not self.pending or page[-1].delivery.stream_sequence >= until
        elif self._status.get("Status") in _NO_MESSAGES:
            self._is_at_end = True
        else:
            raise ConsumerGone(f"the broker ended the read: {self._status}")
        return page

    async def _request(self, expires: float) -> None:
        """Request a page, and return once it has arrived."""
        self._wanted, self._status = min(_PAGE_MESSAGES, self.pending) or _PAGE_MESSAGES, {}
        self._ended.clear()
        self._requests += 1
        body = {
            "batch": self._wanted,
            "expires": int(expires * NANOSECONDS),
            "no_wait": True,
            "max_bytes": usual_bytes(self._connection.max_payload),
        }
        subject = f"{API}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        reply = f"{self._inbox}.{self._requests}"
        await self._connection.publish(subject, json.dumps(body).encode(), reply)
        while not self._ended.is_set():
            before = len(self._arrived)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SILENT_AFTER):
                    await self._ended.wait()
            if len(self._arrived) == before and not self._ended.is_set():
                raise BrokerError("no message and no status from the broker")

    async def _receive(self, message: Msg) -> None:
        # Only the reply subject tells a message from a status.
        if (delivery := read_delivery(message.reply)) is not None:
            self._arrived.append(Received(delivery, message))
            if delivery.stream_sequence >= self._until:
                self._ended.set()
        elif message.subject == f"{self._inbox}.{self._requests}":
            self._status = message.headers or {"Status": ""}
        if self._status or len(self._arrived) >= self._wanted:
            self._ended.set()

    async def close(self, *, delete: bool) -> None:
        """Leave the consumer; `delete` asks the server to remove it at once, where permitted."""
        with contextlib.suppress(nats.errors.Error, OSError):
            if delete:
                subject = f"{API}.CONSUMER.DELETE.{self._stream}.{self._name}"
                await self._connection.publish(subject, b"", self._inbox)
            if self._subscription is not None:
                await self._subscription.unsubscribe()


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
