"""The floor of the latency: one round trip to the broker's stream, then one commit.

Nothing that acks after its commit and shows its rows to others can be faster. The round trip is a
publish on a bare socket until the stream has answered; the commit is the worker's own repository,
which writes one row. Prints a JSON list of [round trip, commit] in nanoseconds.
"""

import json
import socket
import threading
import time
from argparse import ArgumentParser
from urllib.parse import urlsplit

from repo.repository import Repository
from repo.sqlite.database import Database
from tests.bench.data import DataSet
from tests.bench.programs.sqlite_only import refuse, run_of

_REPLY = b"_INBOX.floor"


class RoundTrips:
    """A bare socket that publishes and waits for the stream's answer."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n' % _REPLY)
        self._until(b"PONG\r\n")

    def publish(self, subject: str, payload: bytes) -> None:
        """Publish one event and return when the stream has it."""
        head = b"PUB %b %b %d\r\n" % (subject.encode(), _REPLY, len(payload))
        self._connection.sendall(head + payload + b"\r\n")
        self._until(b"}\r\n")

    def _until(self, end: bytes) -> None:
        received = b""
        while not received.endswith(end):
            received += self._connection.recv(4096)
            if received.endswith(b"PING\r\n"):
                self._connection.sendall(b"PONG\r\n")
                received = received.removesuffix(b"PING\r\n")
        if b'"error"' in received:
            raise SystemExit(received.decode())


def main() -> None:
    """Measure at a steady rate, print all."""
    parser = ArgumentParser()
    parser.add_argument("--nats", required=True)
    parser.add_argument("--database", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    address = urlsplit(given.nats)
    data = DataSet(given.events, seed=given.seed)
    database = Database(f"sqlite:///{given.database}")
    with (
        socket.create_connection((address.hostname, address.port), timeout=10) as connection,
        Repository(database, retry_for=10, give_up=threading.Event()) as repository,
    ):
        measured = measure(data, RoundTrips(connection), repository, 1 / given.rate)
    print(json.dumps(measured))


def measure(
    data: DataSet, broker: RoundTrips, repository: Repository, interval: float
) -> list[tuple[int, int]]:
    """Return the nanoseconds of each round trip and of each commit."""
    measured = []
    began = time.monotonic()
    for number, event in enumerate(data):
        run = run_of(event, time.time_ns())
        time.sleep(max(0.0, began + number * interval - time.monotonic()))
        sent = time.monotonic_ns()
        broker.publish(event.subject, event.payload)
        stored = time.monotonic_ns()
        repository.write([run], [], refuse)
        measured.append((stored - sent, time.monotonic_ns() - stored))
    return measured


if __name__ == "__main__":
    main()
