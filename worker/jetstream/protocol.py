"""The client library's connection, mended and made quicker at the wire. Broker thread only.

What is overridden and called here is not public; a version without it is refused at once.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeVar

import nats.errors
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.protocol.parser import AWAITING_CONTROL_LINE, Parser

_ERROR_LINE = re.compile(rb"-ERR\s+'?([^'\r\n]*)")
_LINE_END = b"\r\n"

_What = TypeVar("_What")

# Credentials would go out in plaintext if the first of these went away.
for _name in (
    "_connect_command",
    "_build_message",
    "_process_headers",
    "_process_msg",
    "_process_err",
    "_send_command",
    "_flush_pending",
):
    if not hasattr(Client, _name):
        raise ImportError(f"this version of nats-py has no Client.{_name}")


class TlsNotOffered(nats.errors.Error):
    """TLS was asked for, and the server would go on in plaintext."""

    def __str__(self) -> str:
        return "TLS was asked for and the server does not offer it"


class Delivered(NamedTuple):
    """A message as the server sent it; `reply` is the subject that settles it."""

    subject: str
    reply: str
    payload: bytes


class Inflow(NamedTuple):
    """A subscription that brings many messages, and what takes them and the statuses among them.

    A status has no reply subject: it is the server's answer to a request, told by its headers.
    """

    subscription: Subscription
    take: Callable[[Sequence[Delivered]], None]
    take_status: Callable[[Msg], None]


class Wire(Client):
    """A connection that takes any bytes, sends no secret in plaintext, and moves messages in bulk.

    `server_error` is the text of the server's last error as it was sent: the library tells it in
    lower case, the subject in it as well, which is not.
    """

    def __init__(self, *, tls_required: bool) -> None:
        super().__init__()
        self.server_error = ""
        self._inflow: Inflow | None = None
        self._tls_required = tls_required
        self._ps = _QuickParser(self)

    async def draw(
        self,
        subject: str,
        take: Callable[[Sequence[Delivered]], None],
        take_status: Callable[[Msg], None],
    ) -> Subscription:
        """Subscribe, and hand over all messages of each read at once, in their order.

        The library's own way, a queue and a task for each subscription and a callback for each
        message, costs more than all else that is done about one. There is one such subscription
        at a time; the next takes its place. Raises what `subscribe` raises.
        """

        async def none_yet(message: Msg) -> None:
            raise AssertionError(f"nothing was asked for, and {message.subject} came")

        subscription = await self.subscribe(subject, cb=none_yet)
        self._inflow = Inflow(subscription, take, take_status)
        return subscription

    def inflow(self) -> Inflow | None:
        """Return the inflow, as long as its subscription is there."""
        inflow = self._inflow
        if inflow is None or self._subs.get(inflow.subscription._id) is not inflow.subscription:
            return None
        return inflow

    async def publish_all(self, messages: Iterable[tuple[str, bytes]]) -> None:
        """Publish payloads to subjects that the server gave, as one write.

        Raises what `publish` raises; also where that would keep them until there is a connection.
        """
        if self.is_closed:
            raise nats.errors.ConnectionClosedError
        if self.is_draining_pubs:
            raise nats.errors.ConnectionDrainingError
        if not self.is_connected:
            raise nats.errors.OutboundBufferLimitError
        commands = b"".join(
            b"PUB %b %d\r\n%b\r\n" % (subject.encode(), len(payload), payload)
            for subject, payload in messages
        )
        await self._send_command(commands)
        await self._flush_pending()

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        inflow = self.inflow()
        if inflow is None or sid != inflow.subscription._id:
            await super()._process_msg(sid, subject, reply, data, headers)
        elif reply:
            await self.hand_over(inflow.take, [Delivered(_text(subject), _text(reply), data)])
        else:
            read = await self._process_headers(headers)
            status = self._build_message(sid, subject, reply, data, read)
            await self.hand_over(inflow.take_status, status)

    async def hand_over(self, take: Callable[[_What], None], what: _What) -> None:
        """Have something taken; an error goes where the library sends those of its callbacks."""
        try:
            take(what)
        except Exception as error:  # noqa: BLE001
            await self._error_cb(error)

    def _connect_command(self) -> bytes:
        # The library upgrades to TLS only where the server demands it, and sends the credentials in
        # plaintext otherwise. This runs at every connect and reconnect, before they are sent.
        if self._tls_required and not self._server_info.get("tls_required"):
            raise TlsNotOffered
        return super()._connect_command()

    def _build_message(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: dict[str, str] | None
    ) -> Msg:
        return Msg(
            _client=self,
            subject=_text(subject),
            reply=_text(reply),
            data=data,
            headers=headers,
            _sid=sid,
        )

    async def _process_headers(self, headers: bytes) -> dict[str, str] | None:
        if not headers:
            return None
        # A header block that is none, or no text, must not end the library's read loop.
        try:
            return await super()._process_headers(headers)
        except (IndexError, ValueError):
            return None

    async def _process_err(self, err_msg: str) -> None:
        line = _ERROR_LINE.match(self._ps.buf)
        self.server_error = _text(line[1]) if line else ""
        await super()._process_err(err_msg)


class _QuickParser(Parser):
    """The library's parser, but for the messages of the inflow, which it takes read by read."""

    def __init__(self, wire: Wire) -> None:
        super().__init__(wire)
        self._wire = wire

    async def parse(self, data: bytes = b"") -> None:
        """Take in what was read; what is not of the inflow is left to the library."""
        inflow = self._wire.inflow()
        if inflow is None or self.state != AWAITING_CONTROL_LINE:
            await super().parse(data)
            return
        self.buf.extend(data)
        messages, something_else = self._messages(inflow.subscription._id)
        if messages:
            await self._wire.hand_over(inflow.take, messages)
        if something_else:
            await super().parse()

    def _messages(self, sid: int) -> tuple[list[Delivered], bool]:
        """Remove messages of a subscription from the front of the buffer and return them.

        Also tells whether something else is next, rather than a message that is not all there yet.
        """
        buffer, at = self.buf, 0
        messages: list[Delivered] = []
        try:
            while (end := buffer.find(_LINE_END, at)) >= 0:
                line = buffer[at:end].split()
                if len(line) == 5 and line[0] == b"MSG":
                    _, subject, its_sid, reply, size = line
                    start = end + 2
                elif len(line) == 6 and line[0] == b"HMSG":
                    _, subject, its_sid, reply, headers, size = line
                    start = end + 2 + int(headers)
                else:
                    return messages, True
                if int(its_sid) != sid:
                    return messages, True
                stop = end + 2 + int(size)
                if len(buffer) < stop + 2:
                    return messages, False
                payload = bytes(memoryview(buffer)[start:stop])
                messages.append(Delivered(_text(subject), _text(reply), payload))
                at = stop + 2
            return messages, True
        except ValueError:  # a number that is none: the library knows what to do about it
            return messages, True
        finally:
            del buffer[:at]


def _text(received: bytes | bytearray) -> str:
    # Servers take any bytes in a subject. The library decodes strictly, in a loop that dies of it:
    # one such event would stop the worker for good.
    return received.decode("utf-8", "backslashreplace")
