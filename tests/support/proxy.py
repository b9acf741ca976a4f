"""Peers that misbehave: a proxy whose connections become half-open, and a server without TLS."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

_CHUNK = 65_536
# What a slow link holds by itself; the kernel gives twice as much.
_SLOW_CHUNK = 1024
_SLOW_BUFFER = 8192
_GREETING = (
    b'INFO {"server_id":"X","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576,'
    b'"auth_required":true,"nonce":"abcdefgh"%b}\r\n'
)


class _Link:
    """One connection through the proxy. It passes on what either end sends, or drops it.

    `rate` is how many bytes a second the client gets at most; 0 is no limit.
    """

    def __init__(self, client: socket.socket, server: socket.socket, rate: int) -> None:
        self._ends = (client, server)
        self._rate = rate
        self.dropping = threading.Event()
        self._threads = [
            threading.Thread(target=self._pump, args=ends, daemon=True)
            for ends in (self._ends, self._ends[::-1])
        ]
        for thread in self._threads:
            thread.start()

    def send(self, frame: bytes) -> None:
        with contextlib.suppress(OSError):
            self._ends[0].sendall(frame)

    def close(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def release(self) -> None:
        """Close the sockets once no thread uses them."""
        for thread in self._threads:
            thread.join(5)
        for end in self._ends:
            end.close()

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            rate = self._rate if target is self._ends[0] else 0
            free_at = 0.0
            while chunk := source.recv(_SLOW_CHUNK if rate else _CHUNK):
                if rate:
                    free_at = max(free_at, time.monotonic()) + len(chunk) / rate
                    time.sleep(max(0.0, free_at - time.monotonic()))
                if not self.dropping.is_set():
                    target.sendall(chunk)
        # While everything is dropped, the other end must not learn of a hang-up either.
        if not self.dropping.is_set():
            self.close()


class _Listener:
    """Accepts connections in a thread and passes each to `_serve`."""

    def __init__(self, port: int = 0) -> None:
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._accept, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Only a shutdown wakes the thread that accepts.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._serve(self._socket.accept()[0])

    def _serve(self, client: socket.socket) -> None:
        raise NotImplementedError


class Proxy(_Listener):
    """Connects each client of its own port to `port`.

    With a `rate` each connection brings the client so many bytes a second, as a slow link does.
    """

    def __init__(self, port: int | None, *, rate: int = 0) -> None:
        super().__init__()
        assert port is not None
        self._rate = rate
        if rate:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SLOW_BUFFER)
        self.url = f"nats://127.0.0.1:{self.port}"
        self._target = port
        self._lock = threading.Lock()
        self._links: list[_Link] = []
        self._refusing = self._dropping = False

    def __exit__(self, *exception: object) -> None:
        super().__exit__(*exception)
        for link in self._links:
            link.close()
            link.release()

    @property
    def connections(self) -> int:
        """The number of connections so far."""
        with self._lock:
            return len(self._links)

    @contextmanager
    def closed(self) -> Iterator[None]:
        """Cut all connections and refuse new ones, as an unavailable broker does."""
        with self._lock:
            self._refusing = True
            for link in self._links:
                link.close()
        yield
        self._refusing = False

    def cut(self) -> None:
        """Cut all connections; new ones work."""
        with self._lock:
            for link in self._links:
                link.close()

    def make_half_open(self) -> None:
        """Drop from now on what arrives on the present connections; new ones work."""
        with self._lock:
            for link in self._links:
                link.dropping.set()

    @contextmanager
    def partitioned(self) -> Iterator[None]:
        """Drop everything, also on new connections; all of them end with the partition."""
        self._dropping = True
        self.make_half_open()
        yield
        with self._lock:
            self._dropping = False
            for link in self._links:
                link.close()

    def send(self, frame: bytes) -> None:
        """Send each client a frame in the server's name, while nothing else is on its way."""
        with self._lock:
            for link in self._links:
                link.send(frame)

    def _serve(self, client: socket.socket) -> None:
        try:
            if self._refusing:
                raise OSError
            server = self._connect()
        except OSError:
            client.close()
            return
        with self._lock:
            self._links.append(_Link(client, server, self._rate))
            if self._dropping:
                self._links[-1].dropping.set()

    def _connect(self) -> socket.socket:
        server = socket.socket()
        if self._rate:  # before it connects, since that announces the buffer to the server
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SLOW_BUFFER)
        server.settimeout(5)
        server.connect(("127.0.0.1", self._target))
        server.settimeout(None)
        return server


class PlainServer(_Listener):
    """Greets without `tls_required`, answers PING, and records every byte it receives.

    `more` extends the greeting, `greeting` replaces it, and `answers` are what to send when certain
    words arrive. It serves one client at a time.
    """

    def __init__(
        self,
        *,
        port: int = 0,
        more: bytes = b"",
        greeting: bytes = b"",
        answers: dict[bytes, bytes] | None = None,
    ) -> None:
        super().__init__(port)
        self.url = f"nats://127.0.0.1:{self.port}"
        self.clients = 0
        self.received = b""
        self._greeting = greeting or _GREETING % more
        self.answers = {b"PING\r\n": b"PONG\r\n", **(answers or {})}

    def _serve(self, client: socket.socket) -> None:
        self.clients += 1
        with client, contextlib.suppress(OSError):
            client.settimeout(2)
            client.sendall(self._greeting)
            while more := client.recv(4096):
                self.received += more
                for words, answer in self.answers.items():
                    client.sendall(answer * more.count(words))
