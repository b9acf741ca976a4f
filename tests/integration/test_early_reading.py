"""Messages from a real server come past the library, also with TLS and after a reconnect."""

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer
from tests.support.credentials import make_certificates
from tests.support.nats_server import NatsServer
from worker.jetstream.connection import Connection, connect
from worker.jetstream.wire import Delivered
from worker.settings import Settings, Tls
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

PAYLOADS = [b"one", b"", b"x" * 300_000]


async def connected(url: str, tls: Tls) -> Connection:
    settings = replace(Settings((), "sqlite:///x.db"), nats_urls=(url,), tls=tls)
    status = WorkerStatus([], stalled_after=1, busy_timeout=1, is_observed=False)
    return await connect(settings, Supervisor(), status, briefly=True)


async def exchange(connection: Connection, read: list[Delivered], parsed: list[bytes]) -> None:
    """Publish messages with and without headers, await them, and assert who has read them."""
    read.clear()
    parsed.clear()
    for payload in PAYLOADS:
        await connection.publish("own", payload)
        await connection.publish("own", payload, headers={"A": "b"})
    # The library reads the answers to its pings. The first ping may overtake what is not written.
    for _ in range(2):
        await connection.flush(timeout=10)
    expected = [(payload, headers) for payload in PAYLOADS for headers in (None, {"A": "b"})]
    assert [(message.data, message.headers) for message in read] == expected
    assert b"MSG own" not in b"".join(parsed)
    assert b"PONG\r\n" in b"".join(parsed)


async def use(server: NatsServer, tls: Tls) -> None:
    read, parsed = list[Delivered](), list[bytes]()
    connection = await connected(server.url, tls)
    parse = connection._ps.parse

    async def recorded(data: bytes = b"") -> None:
        parsed.append(data)
        await parse(data)

    vars(connection._ps)["parse"] = recorded
    await connection.receive("own", read.extend)
    await exchange(connection, read, parsed)
    await asyncio.to_thread(server.kill)
    await connection.lost()
    await asyncio.to_thread(server.start)
    await connection.usable()
    await exchange(connection, read, parsed)
    await connection.shut_down()


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_messages_are_read_before_the_library_reads_them(
    make_server: MakeServer, tmp_path: Path, is_encrypted: bool
) -> None:
    config, tls = "", Tls()
    if is_encrypted:
        certificates = make_certificates(tmp_path)
        config, tls = certificates.server_config(), Tls(required=True, ca_file=certificates.ca)
    asyncio.run(use(make_server(config).start(), tls))
