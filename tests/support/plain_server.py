"""A server that takes anybody in plaintext and keeps what they say."""

import contextlib
import socket
import threading
from typing import Self

_GREETING = (
    b'INFO {"server_id":"X","version":"2.9.10","proto":1,"headers":true,"max_payload":1048576,'
    b'"auth_required":true,"nonce":"abcdefgh"%b}\r\n'
)


class PlainServer:
    """Says INFO without `tls_required` to each client, and records every byte it gets."""

    def __init__(self, *, port: int = 0, more: bytes = b"") -> None:
        self.clients = 0
        self.received = b""
        self._greeting = _GREETING % more
        self._socket = socket.create_server(("127.0.0.1", port))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # A plain close would not wake the thread that accepts.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(5)

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._socket.accept()
                self.clients += 1
                with client, contextlib.suppress(OSError):
                    client.settimeout(2)
                    client.sendall(self._greeting)
                    while more := client.recv(4096):
                        self.received += more
