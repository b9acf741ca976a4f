"""Each private method of the client library that is overridden or called, beside the library's."""

import asyncio
import re
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, cast

import nats.errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.aio.subscription import Subscription

from tests.support.proxy import PlainServer
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.connection import CONNECT_TIMEOUT, Connection, connect
from worker.jetstream.greeting import check_tls_is_offered
from worker.jetstream.wire import Delivered
from worker.settings import Credentials, Settings, Tls
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

SID = 7
NEXT = b"MSG next 7 2\r\nok\r\n"

Received = tuple[str, str, bytes, dict[str, str] | None]


def status() -> WorkerStatus:
    return WorkerStatus(["starts"], stalled_after=1, busy_timeout=1, is_observed=False)


def unconnected() -> Connection:
    return Connection(SETTINGS, Supervisor(), status())


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
            messages.append((one.subject, one.reply, one.data, one.headers))
        return messages

    return asyncio.run(receive())


def handed_over(data: bytes, *, is_subscribed: bool = True) -> list[Received]:
    """Return what is handed over of these bytes as soon as it is read."""

    async def receive() -> list[Received]:
        client, messages = unconnected(), list[Received]()
        client._receivers[SID] = messages.extend
        if is_subscribed:
            client._subs[SID] = Subscription(client, SID, ">")
        await client._ps.parse(data)
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
    assert received(unconnected, sent) == received(Client, sent) == handed_over(sent)
    assert len(received(unconnected, sent)) == 2
    assert handed_over(sent, is_subscribed=False) == []


def test_all_that_one_read_brings_is_handed_over_together() -> None:
    async def receive() -> list[tuple[int, list[bytes]]]:
        client, calls = unconnected(), list[tuple[int, list[bytes]]]()

        def take(sid: int, read: Sequence[Delivered]) -> None:
            calls.append((sid, [message.data for message in read]))

        for sid in (SID, SID + 1):
            client._subs[sid] = Subscription(client, sid, ">")
            client._receivers[sid] = partial(take, sid)
        sent = [delivery(b"a", b"", b"", b"%d" % number) for number in range(5)]
        other = sent[0].replace(b"MSG a %d" % SID, b"MSG a %d" % (SID + 1))
        # The last message is cut in two.
        await client._ps.parse(b"".join([*sent[:2], other, *sent[2:]])[:-3])
        await client._ps.parse(sent[4][-3:])
        return calls

    first, second, last = asyncio.run(receive())
    assert first == (SID, [b"0", b"1", b"2", b"3"])
    assert (second, last) == ((SID + 1, [b"0"]), (SID, [b"4"]))


def test_what_was_read_before_an_error_is_handed_over() -> None:
    async def receive() -> list[Delivered]:
        client, messages = unconnected(), list[Delivered]()
        client._receivers[SID] = messages.extend
        client._subs[SID] = Subscription(client, SID, ">")
        with pytest.raises(nats.errors.ProtocolError):
            await client._ps.parse(delivery(b"a", b"", b"", b"data") + b"nonsense\r\n")
        return messages

    assert [message.data for message in asyncio.run(receive())] == [b"data"]


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
        assert message == (*escaped, payload, None)
    assert after[0] == "next"


@given(any_bytes | any_bytes.map(lambda more: b"NATS/1.0" + more))
def test_a_header_block_that_the_library_cannot_parse_is_ignored(headers: bytes) -> None:
    sent = delivery(b"events.a", b"reply", headers, b"data") + NEXT
    message, after = received(unconnected, sent)
    try:
        assert [message, after] == received(Client, sent)
    except (IndexError, ValueError):
        assert message == ("events.a", "reply", b"data", None)
    assert after[0] == "next"


def test_without_the_number_of_a_subscription_messages_come_through_the_library() -> None:
    async def receive_one(connection: Connection) -> None:
        messages: asyncio.Queue[Delivered] = asyncio.Queue()
        subscribe = connection.subscribe

        async def without_number(*arguments: Any, **options: Any) -> object:
            await subscribe(*arguments, **options)
            return object()

        vars(connection)["subscribe"] = without_number
        await connection.receive("inbox", lambda read: [*map(messages.put_nowait, read)])
        assert connection._receivers == {}
        await connection._ps.parse(b"MSG inbox 1 4\r\ndata\r\n")
        assert (await asyncio.wait_for(messages.get(), 10)).data == b"data"

    with PlainServer() as server:
        use_connection(server, receive_one)


# --- over a socket ---


SETTINGS = Settings((), "sqlite:///x.db", credentials=Credentials(user="worker", password="secret"))
TLS_REQUIRED = b',"tls_required":true'
Use = Callable[[Connection], Coroutine[Any, Any, None]]


async def connected(
    *urls: str, tls: bool | Tls = False, supervisor: Supervisor | None = None
) -> Connection:
    tls = Tls(required=tls) if isinstance(tls, bool) else tls
    settings = replace(SETTINGS, nats_urls=urls, tls=tls)
    return await connect(settings, supervisor or Supervisor(), status(), briefly=True)


def use_connection(server: PlainServer, use: Use) -> None:
    async def connect_and_use() -> None:
        connection = await connected(server.url)
        await use(connection)
        await connection.shut_down()

    asyncio.run(connect_and_use())


ACKS = [
    ("$JS.ACK.EVENTS.c.1.2.3.4.0", b"+ACK"),
    ("$JS.ACK.EVENTS.c.1.5.6.7.0", b'-NAK {"delay": 1000}'),
    ("$JS.ACK.é", b""),
    ("$JS.ACK.EVENTS.c.1.8.9.9.0", b"\x00\xff\r\n"),
    ("$JS.ACK.EVENTS.c.1.9.9.9.0", b"\x00\xff\r\n"),
]
GROUPS = [([subject], payload) for subject, payload in ACKS[:3]]
GROUPS += [([], b"+ACK"), ([subject for subject, _ in ACKS[3:]], ACKS[3][1])]


def published(publish: Use) -> bytes:
    """Return the PUB commands that the server receives."""

    async def publish_and_flush(connection: Connection) -> None:
        await publish(connection)
        await connection.flush()

    with PlainServer() as server:
        use_connection(server, publish_and_flush)
    _, first, more = server.received.partition(b"PUB ")
    # The library writes two spaces where there is no reply subject.
    return (first + more).replace(b"  ", b" ").replace(b"PING\r\n", b"")


async def by_the_library(connection: Connection) -> None:
    for subject, payload in ACKS:
        await Client.publish(connection, subject, payload)
    assert connection.stats["out_msgs"] == len(ACKS)


def test_publishing_at_once_sends_the_bytes_that_the_library_sends() -> None:
    async def in_one_write(connection: Connection) -> None:
        await connection.publish_all(GROUPS)
        assert connection.stats["out_msgs"] == 0

    sent = published(in_one_write)
    assert sent == published(by_the_library)
    assert sent.startswith(b"PUB $JS.ACK.EVENTS.c.1.2.3.4.0 4\r\n+ACK\r\nPUB ")


@pytest.mark.parametrize("missing", ["_send_command", "_flush_pending"])
def test_without_the_private_methods_each_message_is_published_by_itself(
    missing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def without(connection: Connection) -> None:
        # The library's own `publish` needs it all the same.
        vars(connection)[missing] = getattr(connection, missing)
        monkeypatch.delattr(Client, missing)
        await connection.publish_all(GROUPS)
        assert connection.stats["out_msgs"] == len(ACKS)

    expected = published(by_the_library)
    assert published(without) == expected


def test_publishing_to_no_subject_leaves_no_empty_write_behind() -> None:
    async def publish(connection: Connection) -> None:
        await connection.publish_all([([], b"+ACK")])
        assert vars(connection)["_pending"] == []

    assert published(publish) == b""


def test_without_a_connection_nothing_is_published() -> None:
    async def publish(connection: Connection) -> None:
        with pytest.raises(nats.errors.OutboundBufferLimitError):
            await unconnected().publish_all(GROUPS)
        await connection.shut_down()
        with pytest.raises(nats.errors.ConnectionClosedError):
            await connection.publish_all(GROUPS)

    with PlainServer() as server:
        use_connection(server, publish)
    assert b"PUB" not in server.received


def test_the_late_answer_to_a_ping_that_nobody_waits_for_does_not_end_the_connection() -> None:
    async def flush_in_vain(connection: Connection) -> None:
        server.answers = {}
        with pytest.raises(nats.errors.FlushTimeoutError):
            await connection.flush(timeout=cast(int, 0.05))
        assert connection.link.arrived_until < time.monotonic() - 0.05
        server.answers = {b"PING\r\n": b"PONG\r\nPONG\r\n"}
        await connection.flush()
        server.answers = {b"PING\r\n": b"PONG\r\n"}
        assert await connection.rtt() > 0
        assert 0 < connection.link.round_trip < 1

    with PlainServer() as server:
        use_connection(server, flush_in_vain)


def test_a_denied_subject_is_shown_as_it_was_published() -> None:
    # The library reports it in lower case.
    subject = "$JS.API.STREAM.MSG.GET.EVENTS"
    denied = b"-ERR 'Permissions Violation for Publish to \"%b\"'\r\n" % subject.encode()

    async def publish(connection: Connection) -> None:
        connection.disturbed.clear()
        began = time.monotonic()
        await connection.publish(subject, b"{}")
        await asyncio.wait_for(connection.disturbed.wait(), 10)
        assert f'"{subject}"' in str(connection.problem_since(began))
        assert f'"{subject.lower()}"' in str(connection.last_error)

    with PlainServer(answers={b"PUB": denied}) as server:
        use_connection(server, publish)


# --- TLS ---


def test_the_first_command_is_the_one_that_the_library_sends() -> None:
    async def by_the_library(url: str) -> Client:
        client = Client()
        await client.connect(url, name="start-projector", user="worker", password="secret")
        return client

    def first_command(connect: Callable[[str], Coroutine[Any, Any, Client]]) -> bytes:
        async def connect_and_close(url: str) -> None:
            await (await connect(url)).close()

        with PlainServer() as server:
            asyncio.run(connect_and_close(server.url))
        return server.received.splitlines()[0]

    command = first_command(connected)
    assert command == first_command(by_the_library)
    assert command.startswith(b"CONNECT ")


def test_where_tls_is_required_and_not_offered_nothing_is_sent() -> None:
    supervisor = Supervisor()
    with PlainServer() as server, pytest.raises(BrokerError):
        asyncio.run(connected(server.url, tls=True, supervisor=supervisor))
    assert (server.clients > 0, server.received) == (True, b"")
    assert isinstance(supervisor.error, ConfigurationError)
    assert "does not offer it" in str(supervisor.error)


def test_where_the_connection_begins_with_the_handshake_nothing_else_is_sent() -> None:
    with PlainServer() as server, pytest.raises(BrokerError, match="--tls-first begins with"):
        asyncio.run(connected(server.url, tls=Tls(required=True, first=True)))
    assert server.received.startswith(b"\x16\x03")  # a handshake, of TLS
    assert b"CONNECT" not in server.received


def test_nothing_is_sent_without_tls_by_a_library_without_the_hook_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(Client, "_connect_command")
    demanding = PlainServer(more=TLS_REQUIRED)
    with demanding as server, PlainServer() as plain, pytest.raises(ConfigurationError) as raised:
        asyncio.run(connected(server.url, plain.url, tls=True))
    assert f"does not offer it: {plain.url}" in str(raised.value)
    assert (server.clients, plain.clients, server.received + plain.received) == (1, 1, b"")


def test_a_server_that_demands_tls_passes_the_check_and_unreachable_ones_are_left_out() -> None:
    with PlainServer() as closed:
        pass
    with PlainServer(more=TLS_REQUIRED) as server, PlainServer(greeting=b"SSH-2.0\r\n") as other:
        urls = [closed.url, other.url, server.url]
        assert asyncio.run(check_tls_is_offered(urls, CONNECT_TIMEOUT)) == [server.url]
    assert server.received == other.received == b""


@pytest.mark.parametrize(
    "greeting", [b"-ERR 'x'\r\n", b"\r\n", b"INFO\r\n", b"INFO {\r\n", b"INFO []\r\n"]
)
def test_a_greeting_that_is_not_info_json_is_a_broker_error(greeting: bytes) -> None:
    with PlainServer(greeting=greeting) as server, pytest.raises(BrokerError) as raised:
        asyncio.run(check_tls_is_offered([server.url], CONNECT_TIMEOUT))
    assert "does not greet as a NATS server" in str(raised.value.__cause__)
