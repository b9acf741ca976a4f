"""What is read from the wire in bulk is what the library reads message by message."""

import asyncio
import re
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.msg import Msg
from nats.protocol.parser import Parser

from worker.jetstream.protocol import Delivered, Inflow, Wire

SID = 7
ANOTHER_SID = 8

Read = tuple[Any, ...]


class Library:
    """Takes what the library's own parser reads."""

    def __init__(self) -> None:
        self.read: list[Read] = []
        self._ps = Parser(self)

    async def feed(self, data: bytes) -> None:
        await self._ps.parse(data)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes | None
    ) -> None:
        text = [part.decode("utf-8", "backslashreplace") for part in (subject, reply)]
        # Headers are told of a status, and of what is not of the inflow.
        self.read.append((sid, *text, data, bool(headers) and (sid != SID or not reply)))

    async def _process_ping(self) -> None:
        self.read.append(("ping",))

    async def _process_pong(self) -> None:
        self.read.append(("pong",))


class Quick(Wire):
    """Notes what is read, whichever way it takes."""

    def __init__(self) -> None:
        super().__init__(tls_required=False)
        self.read: list[Read] = []
        self.takes = 0
        self.errors: list[Exception] = []
        subscription: Any = SimpleNamespace(_id=SID)
        self._subs = {SID: subscription}
        self._inflow = Inflow(subscription, self.take, self.take_status)
        self._error_cb = self.note

    async def feed(self, data: bytes) -> None:
        await self._ps.parse(data)

    def take(self, messages: Sequence[Delivered]) -> None:
        self.takes += 1
        self.read += [(SID, *message, False) for message in messages]

    def take_status(self, message: Msg) -> None:
        self.read.append((SID, message.subject, "", message.data, message.headers is not None))

    async def note(self, error: Exception) -> None:
        self.errors.append(error)

    async def _process_msg(
        self, sid: int, subject: bytes, reply: bytes, data: bytes, headers: bytes
    ) -> None:
        if sid == SID:
            await super()._process_msg(sid, subject, reply, data, headers)
        else:
            text = [part.decode("utf-8", "backslashreplace") for part in (subject, reply)]
            self.read.append((sid, *text, data, bool(headers)))

    async def _process_ping(self) -> None:
        self.read.append(("ping",))

    async def _process_pong(self) -> None:
        self.read.append(("pong",))


HEADERS = b"NATS/1.0 100 Idle Heartbeat\r\n\r\n"

tokens = st.binary(min_size=1, max_size=12).filter(lambda token: not re.search(rb"\s", token))
spaces = st.sampled_from([b" ", b"  ", b"\t"])
payloads = st.binary(max_size=40) | st.just(b"MSG a 7 b 3\r\nabc\r\n") | st.just(b"\r\n")


@st.composite
def operations(draw: st.DrawFn) -> bytes:
    what = draw(st.sampled_from(["message"] * 6 + ["headers", "status", "ping", "pong", "ok"]))
    if what in ("ping", "pong", "ok"):
        return {"ping": b"PING\r\n", "pong": b"PONG\r\n", "ok": b"+OK\r\n"}[what]
    sid = b"%d" % draw(st.sampled_from([SID, SID, SID, ANOTHER_SID]))
    reply = b"" if what == "status" else draw(tokens | st.just(b""))
    payload = b"" if what == "status" else draw(payloads)
    words = [draw(tokens), sid, *([reply] if reply else [])]
    if what == "message":
        words = [b"MSG", *words, b"%d" % len(payload)]
        body = payload
    else:
        words = [b"HMSG", *words, b"%d" % len(HEADERS), b"%d" % (len(HEADERS) + len(payload))]
        body = HEADERS + payload
    return draw(spaces).join(words) + b"\r\n" + body + b"\r\n"


@given(st.lists(operations(), max_size=12), st.lists(st.integers(1, 60), min_size=1, max_size=30))
def test_whatever_comes_in_whatever_pieces_is_read_as_the_library_reads_it(
    sent: list[bytes], sizes: list[int]
) -> None:
    async def read(by: Library | Quick) -> list[Read]:
        data = b"".join(sent)
        at = turn = 0
        while at < len(data):
            size = sizes[turn % len(sizes)]
            await by.feed(data[at : at + size])
            at, turn = at + size, turn + 1
        return by.read

    quick = Quick()
    assert asyncio.run(read(quick)) == asyncio.run(read(Library()))
    assert quick.errors == []


def message(number: int) -> bytes:
    return b"MSG events.%d 7 reply.%d 5\r\nhello\r\n" % (number, number)


def test_all_messages_of_a_read_are_taken_at_once() -> None:
    async def feed() -> Quick:
        quick = Quick()
        await quick.feed(b"".join(message(number) for number in range(50)) + message(50)[:-4])
        await quick.feed(message(50)[-4:] + message(51))
        return quick

    quick = asyncio.run(feed())
    assert [read[1] for read in quick.read] == [f"events.{number}" for number in range(52)]
    assert quick.takes == 2


def test_what_comes_after_the_end_of_a_subscription_is_left_to_the_library() -> None:
    async def feed() -> Quick:
        quick = Quick()
        await quick.feed(message(1))
        del quick._subs[SID]
        await quick.feed(message(2) + b"PING\r\n")
        return quick

    assert [read[:2] for read in asyncio.run(feed()).read] == [(SID, "events.1"), ("ping",)]


@pytest.mark.parametrize("line", [b"MSG a x b 1\r\n", b"MSG a 7 b x\r\n", b"HMSG a 7 b x 5\r\n"])
def test_what_is_no_protocol_is_left_to_the_library_which_reconnects(line: bytes) -> None:
    async def feed() -> Quick:
        quick = Quick()
        with pytest.raises(nats.errors.ProtocolError):
            await quick.feed(message(1) + line + b"\r\n")
        return quick

    assert [read[1] for read in asyncio.run(feed()).read] == ["events.1"]


@pytest.mark.parametrize(
    "sent", [message(1), b"HMSG inbox 7 27 27\r\nNATS/1.0 409 Some words\r\n\r\n\r\n"]
)
def test_an_error_while_something_is_taken_is_told_and_does_not_end_the_reading(
    sent: bytes,
) -> None:
    def fail(_: object) -> None:
        raise KeyError("a bug")

    async def feed() -> Quick:
        quick = Quick()
        working = quick.inflow()
        assert working is not None
        quick._inflow = Inflow(working.subscription, fail, fail)
        await quick.feed(sent)
        quick._inflow = working
        await quick.feed(message(2))
        return quick

    quick = asyncio.run(feed())
    assert [str(error) for error in quick.errors] == ["'a bug'"]
    assert [read[1] for read in quick.read] == ["events.2"]


def test_nothing_is_published_where_there_is_no_connection() -> None:
    async def publish() -> None:
        wire = Wire(tls_required=False)
        with pytest.raises(nats.errors.OutboundBufferLimitError):
            await wire.publish_all([("reply", b"+ACK")])

    asyncio.run(publish())
