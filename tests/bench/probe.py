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
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import psycopg

from tests.bench.data import TIMEOUTS, Event, Result, make_events, make_results
from tests.bench.rivals import connect, make_runs, parse_timeouts, parser, write_batch, write_end

Published = Event | Result

_REPLY = b"_INBOX.probe"
_STARTED = "SELECT 1 FROM execution_results WHERE result_id = ?"
_ENDED = f"{_STARTED} AND finished_at IS NOT NULL"


def main() -> None:
    """Measure, then print the seconds of all events."""
    options = parser()
    options.add_argument("--rate", type=float, required=True)
    options.add_argument("--floor", action="store_true")
    options.add_argument("--results", action="store_true")
    given = options.parse_args()
    make = make_results if given.results else make_events
    schedule = on_schedule(list(make(given.events)), given.rate)
    wire = Wire(given.nats)
    if given.floor:
        seconds = measure_floor(schedule, wire, connect(given.database))
    else:
        look = _ENDED if given.results else _STARTED
        seconds = measure_latency(schedule, wire, *_looks(given.database, look))
    print(json.dumps(list(itertools.islice(seconds, given.events))))


def on_schedule(events: Sequence[Published], rate: float) -> Iterator[Published]:
    """Yield each event or result at its time, `rate` of them a second."""
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

    def publish(self, event: Published, *, wait: bool = False) -> None:
        """Send one of them; with `wait`, return when the stream has stored it."""
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
    schedule: Iterator[Published], wire: Wire, connection: sqlite3.Connection
) -> Iterator[float]:
    """Yield the seconds of each round trip to the stream and the commit after it."""
    timeouts = parse_timeouts(TIMEOUTS)
    for event in schedule:
        runs = (
            make_runs([(event.payload, time.time_ns())], timeouts)
            if isinstance(event, Event)
            else []
        )
        began = time.monotonic()
        wire.publish(event, wait=True)
        if isinstance(event, Event):
            write_batch(connection, runs)
        else:
            write_end(connection, event)
        yield time.monotonic() - began


def _looks(database: str, look: str) -> tuple[Callable[[], object], Callable[[object], bool]]:
    """Return what changes with each commit of others, and whether a run is visible."""
    if database.startswith("postgresql:"):
        server = psycopg.connect(database, autocommit=True)
        numbers = itertools.count()
        query = look.replace("?", "%s").encode()
        return lambda: next(numbers), lambda one: bool(server.execute(query, (one,)).fetchone())
    connection = connect(database)
    return (
        # The version changes only when another connection has committed.
        lambda: connection.execute("PRAGMA data_version").fetchone(),
        lambda one: bool(connection.execute(look, (one,)).fetchone()),
    )


def measure_latency(
    schedule: Iterator[Published],
    wire: Wire,
    version: Callable[[], object],
    is_visible: Callable[[object], bool],
) -> Iterator[float]:
    """Yield the seconds from each publish until a look finds the run; never ends by itself."""
    published: deque[tuple[object, float]] = deque()

    def publish() -> None:
        for event in schedule:
            published.append((event.members["result_id"], time.monotonic()))
            wire.publish(event)

    threading.Thread(target=publish, daemon=True).start()
    seen: object = None
    while True:
        time.sleep(0.0001)
        now = version()
        if now == seen:
            continue
        seen = now
        # One stream, so the first that was published is the first to be seen.
        while published and is_visible(published[0][0]):
            yield time.monotonic() - published.popleft()[1]


if __name__ == "__main__":
    main()
