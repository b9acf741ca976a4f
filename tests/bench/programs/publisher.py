"""Publishes events at a steady rate and notes when each left, on a bare socket.

A schedule that is never waited for: a slow worker does not slow the publishing down. Prints a JSON
object of result_id and time, in nanoseconds of the monotonic clock.
"""

import json
import socket
import time
from argparse import ArgumentParser
from urllib.parse import urlsplit

from tests.bench.data import DataSet


def main() -> None:
    """Publish all, then print when."""
    parser = ArgumentParser()
    parser.add_argument("--nats", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True)
    parser.add_argument("--seed", type=int, required=True)
    given = parser.parse_args()
    data = DataSet(given.events, seed=given.seed)
    frames = [(event.result_id, _frame(event.subject.encode(), event.payload)) for event in data]
    address = urlsplit(given.nats)
    with socket.create_connection((address.hostname, address.port), timeout=10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection.sendall(b'CONNECT {"verbose":false}\r\n')
        published = publish(connection, frames, 1 / given.rate)
        _flush(connection)
    print(json.dumps(published))


def publish(
    connection: socket.socket, frames: list[tuple[str, bytes]], interval: float
) -> dict[str, int]:
    """Send a frame each `interval` seconds and return when each was sent."""
    published = {}
    began = time.monotonic()
    for number, (result_id, frame) in enumerate(frames):
        wait = began + number * interval - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        published[result_id] = time.monotonic_ns()
        connection.sendall(frame)
    return published


def _frame(subject: bytes, payload: bytes) -> bytes:
    return b"PUB %b %d\r\n%b\r\n" % (subject, len(payload), payload)


def _flush(connection: socket.socket) -> None:
    connection.sendall(b"PING\r\n")
    received = b""
    while b"PONG" not in received:
        received += connection.recv(4096)


if __name__ == "__main__":
    main()
