"""A TCP proxy whose connections can be made half-open: both ends think that the other is there."""

import contextlib
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_CHUNK = 65_536


class _Link:
    """One connection through the proxy. What either end sends is passed on, or dropped."""

    def __init__(self, client: socket.socket, server: socket.socket) -> None:
        self._ends = (client, server)
        self.dropping = threading.Event()
        self._threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True)
            for ends in (self._ends, self._ends[::-1])
        ]
        for thread in self._threads:
            thread.start()

    def say(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._ends[0].sendall(frame)

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Give the sockets back, once nothing uses them any more."""
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(_CHUNK):
                if not self.dropping.is_set():
                    target.sendall(chunk)
        # Nor does an end that hangs up reach the other one while everything is dropped.
        if not self.dropping.is_set():
            self.close()


class Proxy:
    """Listens on a port of its own and connects each client to `port`."""

    def __init__(self, port: int | None) -> None:
        assert port is not None
        self._target = port
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._refusing = False
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A plain close would not wake the thread that accepts.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)
        for link in self._links:
            link.close()
            link.release()

    @property
    def connections(self) -> int:
        """How many connections were ever made."""
        with self._lock:
            return len(self._links)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Cut all connections, and refuse new ones, as a broker that is away."""
        with self._lock:
            self._refusing = True
            for link in self._links:
                link.close()
        yield
        self._refusing = False

    def make_half_open(self) -> None:
        """Drop, from now on, all that comes over the connections of now; new ones work."""
        with self._lock:
            for link in self._links:
                link.dropping.set()

    def say(self, frame: bytes) -> None:
        """Send each client a frame in the server's name; while nothing else is on its way."""
        with self._lock:
            for link in self._links:
                link.say(frame)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                if self._refusing:
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target), timeout=5)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                with self._lock:
                    self._links.append(_Link(client, server))
