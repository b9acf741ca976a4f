"""Reads what a stream holds from a sequence on, through an ephemeral consumer without acks.

The server deletes that consumer soon after the last request. Consumer thread only.
"""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator
from typing import Self

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from worker.codec.timestamps import NANOSECONDS
from worker.errors import NoResponse, PullLost
from worker.jetstream.connection import API, Connection
from worker.jetstream.consumer_info import usual_bytes
from worker.jetstream.stream import first_message, request
from worker.messages import Message, is_marker, read_delivery

_INACTIVE_AFTER = 5.0
_EXPIRES = 3.0
_LONGEST_SILENCE = 10.0


class CatchUpReader:
    """Reads the messages of a filter between two sequences, both included, oldest first.

    To be used inside `async with`. `expected` is how many messages there were at most. Raises
    PullLost where the broker does not answer, or a message is missing in between.
    """

    def __init__(
        self, connection: Connection, stream: str, consumer: str, filter_subject: str, page: int
    ) -> None:
        self.expected = 0
        self._connection = connection
        self._stream = stream
        self._filter = filter_subject
        self._name = f"{consumer}_catch_up_{secrets.token_hex(4)}"
        self._page = page
        self._inbox = connection.new_inbox()
        self._subscription: Subscription | None = None
        self._arrived: list[Message] = []
        self._changed = asyncio.Event()
        self._asked = 0
        self._last_delivery = 0
        self._problem: str | None = None
        self._ended = False
        self._last = 0

    async def __aenter__(self) -> Self:
        try:
            self._subscription = await self._connection.subscribe(self._inbox, cb=self._take)
        except (nats.errors.Error, OSError) as error:
            raise PullLost("the catch-up lost its connection") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._subscription is not None:
            # Without the connection there is nothing to leave, and the body's error counts.
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()

    async def pages(self, first: int, last: int) -> AsyncIterator[list[Message]]:
        """Yield the messages; the next page is on its way while one is handled."""
        await self._create(first)
        self._last = last
        await self._request()
        read = first - 1
        while True:
            arrived = await self._next_page()
            page = [message for message in arrived if message.stream_sequence <= last]
            done = len(page) < len(arrived) or bool(page and page[-1].stream_sequence == last)
            if not arrived:
                done = await self._is_at_end(read, last)
            if not done:
                await self._request()
            if page:
                read = page[-1].stream_sequence
                yield page
            if done:
                return

    async def _create(self, first: int) -> None:
        config = {
            "name": self._name,
            "filter_subject": self._filter,
            "deliver_policy": "by_start_sequence",
            "opt_start_seq": first,
            "ack_policy": "none",
            "mem_storage": True,
            "inactive_threshold": int(_INACTIVE_AFTER * NANOSECONDS),
        }
        subject = f"{API}.CONSUMER.CREATE.{self._stream}.{self._name}.{self._filter}"
        body = {"stream_name": self._stream, "config": config}
        answer = await request(self._connection, subject, body)
        self.expected = int(answer.get("num_pending", 0))

    async def _request(self) -> None:
        self._asked, self._ended = self._page, False
        body = {
            "batch": self._page,
            "expires": int(_EXPIRES * NANOSECONDS),
            "max_bytes": usual_bytes(self._connection.max_payload),
        }
        subject = f"{API}.CONSUMER.MSG.NEXT.{self._stream}.{self._name}"
        try:
            await self._connection.publish(subject, json.dumps(body).encode(), self._inbox)
        except nats.errors.Error as error:
            raise PullLost("the catch-up lost its connection") from error

    async def _next_page(self) -> list[Message]:
        """Return what a request has brought, once it is answered or has ended."""
        while not self._is_answered():
            self._changed.clear()
            try:
                async with asyncio.timeout(_LONGEST_SILENCE):
                    await self._changed.wait()
            except TimeoutError as error:
                raise NoResponse("no message of the catch-up arrives") from error
        if self._problem:
            raise PullLost(self._problem)
        arrived, self._arrived = self._arrived, []
        return arrived

    def _is_answered(self) -> bool:
        reached = bool(self._arrived) and self._arrived[-1].stream_sequence >= self._last
        return bool(self._problem) or self._asked <= 0 or self._ended or reached

    async def _is_at_end(self, read: int, last: int) -> bool:
        """Return whether the stream holds nothing more up to `last`; a request found nothing."""
        found = await first_message(self._connection, self._stream, read + 1, self._filter)
        return found is None or int(found["seq"]) > last

    async def _take(self, message: Msg) -> None:
        self._changed.set()
        if not message.reply:
            status = (message.headers or {}).get("Status", "")
            if status in ("404", "408"):
                self._ended = True
            elif status != "100":
                text = (message.headers or {}).get("Description", "")
                self._problem = f"the catch-up was refused: {status} {text}"
            return
        read = read_delivery(message.reply)
        if read is None or read.consumer_sequence != self._last_delivery + 1:
            self._problem = "a message of the catch-up is missing"
            return
        self._last_delivery = read.consumer_sequence
        self._asked -= 1
        marker = is_marker(message.data, message.headers)
        sequence, stored_at = read.stream_sequence, read.stored_at
        self._arrived.append(Message(message.subject, message.data, sequence, 1, stored_at, marker))
