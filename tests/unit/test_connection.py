"""Each private method of the client library that is overridden or called, beside the library's."""

import asyncio
import contextlib
import functools
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, ParamSpec

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.connection import Connection, _check_tls_is_offered, connect
from worker.settings import Credentials, Settings, Tls
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

INFO = {"server_id": "X", "version": "2.10.0", "headers": True, "max_payload": 1_048_576}
SID = 7
NEXT = b"MSG next 7 2\r\nok\r\n"

_Args = ParamSpec("_Args")

Received = tuple[str, str, bytes, dict[str, str] | None, int | None]


def unconnected() -> Connection:
    status = WorkerStatus(stalled_after=1, busy_timeout=1, is_observed=False)
    return Connection(tls_required=False, supervisor=Supervisor(), status=status)


def in_a_loop(test: Callable[_Args, Coroutine[Any, Any, None]]) -> Callable[_Args, None]:
    """Turn a coroutine function into a test."""

    @functools.wraps(test)
    def run(*args: _Args.args, **kwargs: _Args.kwargs) -> None:
        asyncio.run(test(*args, **kwargs))

    return run


# --- messages as they arrive ---


def received(make_client: Callable[[], Client], data: bytes) -> list[Received]:
    """Return what a client's parser makes of bytes from the server, for one subscription."""

    async def receive() -> list[Received]:
        client = make_client()
        subscription = Subscription(client, SID, ">")
        client._subs[SID] = subscription
        await client._ps.parse(data)
        messages = []
        while not subscription._pending_queue.empty():
            one = subscription._pending_queue.get_nowait()
            assert one._client is client
            messages.append((one.subject, one.reply, one.data, one.headers, one._sid))
        return messages

    return asyncio.run(receive())


def delivery(subject: bytes, reply: bytes, headers: bytes, payload: bytes) -> bytes:
    words = [subject, b"%d" % SID, *([reply] if reply else [])]
    sizes = [*([b"%d" % len(headers)] if headers else []), b"%d" % (len(headers) + len(payload))]
    command = b"HMSG" if headers else b"MSG"
    return b" ".join([command, *words, *sizes]) + b"\r\n" + headers + payload + b"\r\n"


subjects = st.text("aZ09.$_-é☃", min_size=1, max_size=12).map(str.encode)
names = st.text("abcXYZ-", min_size=1, max_size=8)
values = st.text("abc 09é", max_size=8)
header_blocks = st.dictionaries(names, values, max_size=3).map(
    lambda headers: (
        b"NATS/1.0\r\n%b\r\n"
        % b"".join(f"{name}: {value}\r\n".encode() for name, value in headers.items())
    )
)
statuses = st.sampled_from(
    [
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"NATS/1.0 404\r\n\r\n",
        b"NATS/1.0 408 Request Timeout\r\nNats-Pending-Messages: 3\r\n\r\n",
    ]
)
payloads = st.binary(max_size=40) | st.just(b"MSG a 7 b 3\r\nabc\r\n")
any_bytes = st.binary(min_size=1, max_size=12)
any_token = any_bytes.filter(lambda token: not re.search(rb"\s", token))


@given(subjects, subjects | st.just(b""), header_blocks | statuses | st.just(b""), payloads)
def test_an_ordinary_message_is_read_as_the_library_reads_it(
    subject: bytes, reply: bytes, headers: bytes, payload: bytes
) -> None:
    sent = delivery(subject, reply, headers, payload) + NEXT
    assert received(unconnected, sent) == received(Client, sent)
    assert len(received(unconnected, sent)) == 2


@given(any_token, any_token | st.just(b""), payloads)
def test_any_bytes_in_a_subject_or_reply_are_read_and_escaped_where_the_library_raises(
    subject: bytes, reply: bytes, payload: bytes
) -> None:
    sent = delivery(subject, reply, b"", payload) + NEXT
    message, after = received(unconnected, sent)
    try:
        assert [message, after] == received(Client, sent)
    except UnicodeDecodeError:
        escaped = [part.decode("utf-8", "backslashreplace") for part in (subject, reply)]
        assert message == (*escaped, payload, None, SID)
    assert after[0] == "next"


@given(any_bytes | any_bytes.map(lambda more: b"NATS/1.0" + more))
def test_a_header_block_that_the_library_cannot_parse_is_ignored(headers: bytes) -> None:
    sent = delivery(b"events.a", b"reply", headers, b"data") + NEXT
    message, after = received(unconnected, sent)
    try:
        assert [message, after] == received(Client, sent)
    except (IndexError, ValueError):
        assert message == ("events.a", "reply", b"data", None, SID)
    assert after[0] == "next"


def test_invalid_utf_8_in_a_subject_ends_the_librarys_own_reading() -> None:
    # If this fails, the library has learnt it, and the override can go.
    sent = delivery(b"events.\xff", b"", b"", b"data")
    with pytest.raises(UnicodeDecodeError):
        received(Client, sent)
    assert received(unconnected, sent)[0][0] == "events.\\xff"


# --- over a socket ---


class Server:
    """A server on loopback that records all it receives and answers PING.

    `answers` are lines to send when a line with certain words arrives.
    """

    def __init__(self, greeting: bytes, answers: dict[bytes, bytes]) -> None:
        self.received = b""
        self.url = ""
        self.clients: dict[asyncio.StreamWriter, asyncio.Task[Any] | None] = {}
        self._greeting = greeting
        self._answers = {b"PING\r\n": b"PONG\r\n", **answers}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.clients[writer] = asyncio.current_task()
        writer.write(self._greeting)
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self.received += line
                for words, answer in self._answers.items():
                    if words in line:
                        writer.write(answer)
        writer.close()

    async def close(self) -> None:
        """Hang up on all clients."""
        for writer in self.clients:
            writer.close()
        await asyncio.gather(*filter(None, self.clients.values()))


@contextlib.asynccontextmanager
async def serving(
    greeting: bytes | None = None, answers: dict[bytes, bytes] | None = None, **info: Any
) -> AsyncIterator[Server]:
    if greeting is None:
        greeting = b"INFO %b\r\n" % json.dumps({**INFO, **info}).encode()
    server = Server(greeting, answers or {})
    listening = await asyncio.start_server(server.serve, "127.0.0.1")
    server.url = f"nats://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await server.close()


async def closed_url() -> str:
    """Return the URL of a port that nothing listens on."""
    async with serving() as server:
        return server.url


async def connected(url: str, *, tls: bool = False) -> Connection:
    credentials = Credentials(user="worker", password="secret")
    settings = Settings((url,), "sqlite:///x.db", tls=Tls(required=tls), credentials=credentials)
    status = WorkerStatus(stalled_after=1, busy_timeout=1, is_observed=False)
    return await connect(settings, Supervisor(), status, briefly=True)


ACKS = [
    ("$JS.ACK.EVENTS.c.1.2.3.4.0", b"+ACK"),
    ("$JS.ACK.EVENTS.c.1.5.6.7.0", b'-NAK {"delay": 1000}'),
    ("$JS.ACK.é", b""),
    ("$JS.ACK.EVENTS.c.1.8.9.9.0", b"\x00\xff\r\n"),
]


async def published(publish: Callable[[Connection], Coroutine[Any, Any, None]]) -> bytes:
    """Return the PUB commands that the server receives."""
    async with serving() as server:
        connection = await connected(server.url)
        await publish(connection)
        await connection.flush()
        await connection.shut_down()
        _, first, more = server.received.partition(b"PUB ")
        # The library writes two spaces where there is no reply subject.
        return (first + more).replace(b"  ", b" ").replace(b"PING\r\n", b"")


async def by_the_library(connection: Connection) -> None:
    for subject, payload in ACKS:
        await Client.publish(connection, subject, payload)
    assert connection.stats["out_msgs"] == len(ACKS)


async def in_one_write(connection: Connection) -> None:
    await connection.publish_all(ACKS)
    assert connection.stats["out_msgs"] == 0


def test_publishing_at_once_sends_the_bytes_that_the_library_sends() -> None:
    sent = asyncio.run(published(in_one_write))
    assert sent == asyncio.run(published(by_the_library))
    assert sent.startswith(b"PUB $JS.ACK.EVENTS.c.1.2.3.4.0 4\r\n+ACK\r\nPUB ")


@pytest.mark.parametrize("missing", ["_send_command", "_flush_pending"])
def test_without_the_private_methods_each_message_is_published_by_itself(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without(connection: Connection) -> None:
        # The library's own `publish` needs it all the same.
        vars(connection)[missing] = getattr(connection, missing)
        monkeypatch.delattr(Client, missing)
        await connection.publish_all(ACKS)
        assert connection.stats["out_msgs"] == len(ACKS)

    expected = asyncio.run(published(by_the_library))
    assert asyncio.run(published(without)) == expected


@in_a_loop
async def test_without_a_connection_nothing_is_published() -> None:
    with pytest.raises(nats.errors.OutboundBufferLimitError):
        await unconnected().publish_all(ACKS)
    async with serving() as server:
        connection = await connected(server.url)
        await connection.shut_down()
        with pytest.raises(nats.errors.ConnectionClosedError):
            await connection.publish_all(ACKS)


@in_a_loop
async def test_a_denied_subject_is_shown_as_it_was_published() -> None:
    # The library reports it in lower case.
    subject = "$JS.API.STREAM.MSG.GET.EVENTS"
    denied = b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n" % subject.encode()
    async with serving(answers={b"PUB": denied}) as server:
        connection = await connected(server.url)
        connection.disturbed.clear()
        began = time.monotonic()
        await connection.publish(subject, b"{}")
        await asyncio.wait_for(connection.disturbed.wait(), 10)
        problem, librarys = connection.problem_since(began), str(connection.last_error)
        await connection.shut_down()
    assert f'"{subject.lower()}"' in librarys
    assert f'"{subject}"' in str(problem)


# --- TLS ---


@in_a_loop
async def test_the_first_command_is_the_one_that_the_library_sends() -> None:
    async with serving(auth_required=True) as server, serving(auth_required=True) as librarys:
        await (await connected(server.url)).shut_down()
        client, name = Client(), "start-projector"
        await client.connect(librarys.url, name=name, user="worker", password="secret")
        await client.close()
        first = server.received.splitlines()[0]
        assert first == librarys.received.splitlines()[0]
    assert first.startswith(b"CONNECT ")
    assert b"secret" in first


@in_a_loop
async def test_without_the_librarys_hook_nothing_is_sent_before_tls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Client, "_connect_command")
    async with serving(auth_required=True, tls_required=False) as server:
        with pytest.raises(ConfigurationError, match="does not offer it: nats://127"):
            await connected(server.url, tls=True)
        assert server.received == b""


@in_a_loop
async def test_a_server_that_demands_tls_passes_the_check_without_unreachable_ones() -> None:
    async with serving(tls_required=True) as server, serving(b"SSH-2.0\r\n") as other:
        urls = [await closed_url(), other.url, server.url]
        assert await _check_tls_is_offered(urls) == [server.url]
        assert server.received == other.received == b""


@in_a_loop
async def test_one_plaintext_server_among_several_fails_the_check() -> None:
    async with serving(tls_required=True) as server, serving() as plain:
        with pytest.raises(ConfigurationError, match=plain.url):
            await _check_tls_is_offered([server.url, plain.url])


@pytest.mark.parametrize("greeting", [b"", b"\r\n", b"INFO\r\n", b"INFO {\r\n", b"INFO []\r\n"])
@in_a_loop
async def test_a_greeting_that_is_not_info_json_is_a_broker_error(greeting: bytes) -> None:
    async with serving(greeting or b"-ERR 'x'\r\n") as server:
        with pytest.raises(BrokerError) as raised:
            await _check_tls_is_offered([server.url])
        assert "does not greet as a NATS server" in str(raised.value.__cause__)
