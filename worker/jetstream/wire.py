"""The library's client, with shorter ways to receive and to ack. Loop thread only."""

import contextlib
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, NamedTuple, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import Parser

from worker.jetstream.early import read_early

_Result = TypeVar("_Result")


class Delivered(NamedTuple):
    """A message as it came; the library's own class costs three times as much."""

    subject: str
    reply: str
    data: bytes
    headers: dict[str, str] | None


Receive = Callable[[Sequence[Delivered]], object]
"""Takes all messages of a subscription that one read has brought."""


class WireClient(Client):
    """Reads whatever a server may send, and writes what belongs together at once.

    Private methods of the library are overridden or called; tests/unit/test_connection.py compares
    each with the library's own. In a version without them each message is published by itself, and
    received through a queue.
    """

    def __init__(self) -> None:
        super().__init__()
        self._ps = _Parser(self)
        self._receivers: dict[int, Receive] = {}
        self._received: dict[int, list[Delivered]] = {}
        self._listeners: dict[int, Callable[[], None]] = {}

    async def receive(self, subject: str, receive: Receive) -> Subscription:
        """Subscribe, and have messages handed over as soon as they are read.

        The library would queue every message for a task, which costs more than to read it.
        """

        async def queued(message: Msg) -> None:
            receive([Delivered(message.subject, message.reply, message.data, message.headers)])

        subscription = await self.subscribe(subject, cb=queued)
        sid = getattr(subscription, "_id", None)
        if sid is not None:
            self._receivers[sid] = receive
        return subscription

    async def listen(self, subject: str, notice: Callable[[], None]) -> bool:
        """Subscribe, and have each message noticed before any that the server sends after it.

        Returns whether that is so; otherwise `notice` is called later.
        """

        async def queued(_: Msg) -> None:
            notice()

        sid = getattr(await self.subscribe(subject, cb=queued), "_id", None)
        if sid is not None:
            self._listeners[sid] = notice
        return sid is not None and hasattr(Client, "_process_msg")

    async def publish_all(self, groups: Iterable[tuple[Sequence[str], bytes]]) -> None:
        """Publish each payload to all of its subjects, which the server gave, as one write.

        One write a batch, since `publish` costs more than all else that is done for an ack. Raises
        what `publish` raises, also while disconnected: acks are not kept for a later connection.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        if not (hasattr(Client, "_send_command") and hasattr(Client, "_flush_pending")):
            for some, payload in groups:
                for subject in some:
                    await self.publish(subject, payload)
            return
        commands = b"".join(_publications(some, payload) for some, payload in groups if some)
        # Before 3.14.8, asyncio never gets rid of an empty write: the loop spins, the close hangs.
        if commands:
            await self._send_command(commands)
            await self._flush_pending()

    def heard(self) -> None:
        """Take note that the server has sent something; for subclasses."""

    def takes(self, sid: int) -> bool:
        """Return whether messages of a subscription are handed over as soon as they are read."""
        return (sid in self._receivers or sid in self._listeners) and sid in self._subs

    def take(self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes) -> None:
        """Take a message that is to be handed over."""
        if (notice := self._listeners.get(sid)) is not None:
            notice()
            return
        read = _now(self._process_headers(headers)) if headers else None
        # Servers take any bytes in a subject.
        delivered = Delivered(
            subject.decode("utf-8", "backslashreplace"),
            reply.decode("utf-8", "backslashreplace"),
            data,
            read,
        )
        self._received.setdefault(sid, []).append(delivered)

    def hand_over(self) -> None:
        """Hand over the messages that were read."""
        received, self._received = self._received, {}
        for sid, messages in received.items():
            if (receive := self._receivers.get(sid)) is not None:
                receive(messages)

    # --- overrides of private methods ---

    async def _read_loop(self) -> None:
        reader = getattr(self._transport, "_io_reader", None)
        with contextlib.suppress(RuntimeError):
            _now(self._process_headers(b"NATS/1.0 100\r\n\r\n"))
            read_early(self, reader)
        await super()._read_loop()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if self.takes(sid):
            self.take(sid, subject, reply, data, headers)
            return
        self._receivers.pop(sid, None)
        await super()._process_msg(sid, subject, reply, data, headers)

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        # Servers take any bytes in a subject. The library decodes strictly, in a read loop that
        # ends with the error: one such event would stop the worker for good.
        return Msg(
            _client=self,
            subject=subject.decode("utf-8", "backslashreplace"),
            reply=reply.decode("utf-8", "backslashreplace"),
            data=data,
            headers=headers,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if not headers:
            return None
        # A header block that cannot be parsed must not end the library's read loop either.
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError):
            return None


class _Parser(Parser):
    """Reads as the library does, and notifies its client before and after."""

    def __init__(self, client: WireClient) -> None:
        super().__init__(client)
        self._client = client

    async def parse(self, data: bytes = b"") -> None:
        if data:
            self._client.heard()
        try:
            await super().parse(data)
        finally:
            self._client.hand_over()


def _now(coroutine: Coroutine[Any, Any, _Result]) -> _Result:
    """Return what a coroutine returns that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: _Result = end.value
        return result
    coroutine.close()
    raise RuntimeError("a coroutine of the library waits, which it did not in other versions")


def _publications(to: Sequence[str], payload: bytes) -> bytes:
    """Return the commands that publish one payload to some subjects, at least one."""
    end = b" %d\r\n%b\r\n" % (len(payload), payload)
    return b"PUB " + (end + b"PUB ").join([subject.encode() for subject in to]) + end
