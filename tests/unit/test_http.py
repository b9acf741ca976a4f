"""The server of the health pages keeps answering beside slow clients."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any, cast

import pytest
from prometheus_client import CollectorRegistry

from tests.support.waiting import eventually
from worker.observability import http
from worker.observability.http import HealthServer
from worker.supervisor import Supervisor


class Sampled:
    def sample(self) -> None: ...


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HealthServer]:
    monkeypatch.setattr(http, "_LONGEST_REQUEST", 1.0)
    monkeypatch.setattr(http, "_MOST_REQUESTS", 5)
    parts: dict[str, Any] = {"overview": Sampled(), "supervisor": Supervisor()}
    started = HealthServer("127.0.0.1", 0, cast(Any, None), CollectorRegistry(), **parts)
    started.start()
    yield started
    started.close()


def connect(server: HealthServer) -> socket.socket:
    host, port = server.server_address[:2]
    return socket.create_connection((str(host), int(port)), timeout=10)


def ask(server: HealthServer) -> bytes:
    try:
        with connect(server) as connection:
            connection.sendall(b"GET /nothing HTTP/1.0\r\n\r\n")
            return connection.recv(100)
    except OSError:
        return b""


def test_clients_that_send_slowly_take_few_threads_and_not_for_long(server: HealthServer) -> None:
    with ExitStack() as slow:
        for _ in range(5):
            connection = slow.enter_context(connect(server))
            connection.sendall(b"GET / HTTP/1.1\r\nX: ")
        eventually(lambda: len(server._requests) == 5, 10)
        assert ask(server) == b""
        eventually(lambda: b"404" in ask(server), 10)
    eventually(lambda: not server._requests, 10)
