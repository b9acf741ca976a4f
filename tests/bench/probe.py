"""Publishes events at a steady rate and measures how long each takes; prints seconds as JSON.

A thread publishes without waiting for the program under test, while the main thread notes when each
row becomes visible. With `--floor`, each event is stored by the stream and inserted here before the
next is published: nothing that acks after its commit can be faster.
"""

import itertools
import json
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

from tests.bench.data import TIMEOUTS, Event, make_events
from tests.bench.rivals import connect, make_runs, parse_timeouts, parser, write_batch

_REPLY = b"_INBOX.probe"
_NEW = "SELECT rowid, result_id FROM execution_results WHERE rowid > ? ORDER BY rowid"


def main() -> None:
    """Measure, then print the seconds of all events."""
    options = parser()
    options.add_argument("--rate", type=float, required=True)
    options.add_argument("--floor", action="store_true")
    given = options.parse_args()
    schedule = on_schedule(list(make_events(given.events)), given.rate)
    measure = measure_floor if given.floor else measure_latency
    seconds = measure(schedule, Wire(given.nats), connect(given.database))
    print(json.dumps(list(itertools.islice(seconds, given.events))))


def on_schedule(events: list[Event], rate: float) -> Iterator[Event]:
    """Yield each event at its time, `rate` of them a second."""
    began = time.monotonic()
    for number, event in enumerate(events):
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        yield event


class Wire:
    """A bare socket to the server: no client library takes part in what is measured."""

    def __init__(self, nats: str) -> None:
        address = urlsplit(nats)
        self._socket = socket.create_connection((address.hostname, address.port), timeout=10)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connect = b'CONNECT {"verbose":false}\r\nSUB %b 1\r\nPING\r\n'
        self._socket.sendall(connect % _REPLY)
        self._read_until(b"PONG\r\n")

    def publish(self, event: Event, *, wait: bool = False) -> None:
        """Send one event; with `wait`, return when the stream has stored it."""
        reply = [_REPLY] if wait else []
        head = [b"PUB", event.subject.encode(), *reply, b"%d" % len(event.payload)]
        self._socket.sendall(b"%b\r\n%b\r\n" % (b" ".join(head), event.payload))
        if wait and b'"error"' in (answer := self._read_until(b"}\r\n")):
            raise SystemExit(answer.decode())

    def _read_until(self, end: bytes) -> bytes:
        received = b""
        while not received.endswith(end):
            received += self._socket.recv(4096)
            if received.endswith(b"PING\r\n"):
                self._socket.sendall(b"PONG\r\n")
                received = received.removesuffix(b"PING\r\n")
        return received


def measure_floor(
    schedule: Iterator[Event], wire: Wire, connection: sqlite3.Connection
) -> Iterator[float]:
    """Yield the seconds of each round trip to the stream and the commit after it."""
    timeouts = parse_timeouts(TIMEOUTS)
    for event in schedule:
        runs = make_runs([(event.payload, time.time_ns())], timeouts)
        began = time.monotonic()
        wire.publish(event, wait=True)
        write_batch(connection, runs)
        yield time.monotonic() - began


def measure_latency(
    schedule: Iterator[Event], wire: Wire, connection: sqlite3.Connection
) -> Iterator[float]:
    """Yield the seconds from each publish to the look that found the row; never ends by itself."""
    published: dict[str, float] = {}

    def publish() -> None:
        for event in schedule:
            published[event.members["result_id"]] = time.monotonic()
            wire.publish(event)

    threading.Thread(target=publish, daemon=True).start()
    last_rowid = version = 0
    while True:
        time.sleep(0.0001)
        # The version changes only when another connection has committed.
        (now_version,) = connection.execute("PRAGMA data_version").fetchone()
        if now_version == version:
            continue
        version = now_version
        rows = connection.execute(_NEW, (last_rowid,)).fetchall()
        now = time.monotonic()
        for _, result_id in rows:
            yield now - published[result_id]
        last_rowid = rows[-1][0] if rows else last_rowid


if __name__ == "__main__":
    main()
