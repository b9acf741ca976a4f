"""`/livez`, `/readyz`, `/metrics` and the page for the browser, `/`, on one port.

Each request has a thread of its own, so that a slow reader holds up no other request.
"""

import contextlib
import json
import logging
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from worker.errors import ConfigurationError, describe
from worker.observability.overview import Overview
from worker.observability.page import HEADERS, page
from worker.status.worker_health import WorkerHealth
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_SLOWEST_CLIENT = 5.0
_LONGEST_REQUEST = 15.0
_MOST_REQUESTS = 50
_POLL = 0.1
_NO_HEADERS: Mapping[str, str] = {}


class HealthServer(socketserver.ThreadingTCPServer):
    """Answers from what `health` and `registry` hold; only `overview` asks the database.

    Its thread also samples the history of the page. The error that ends it goes to the supervisor.
    """

    # Not http.server's: that one looks up its own host name, which can take for ever.
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False

    def __init__(
        self,
        host: str,
        port: int,
        health: WorkerHealth,
        registry: CollectorRegistry,
        *,
        overview: Overview,
        supervisor: Supervisor,
    ) -> None:
        """Listen at once, on a free port for 0; raises ConfigurationError where that fails."""
        self.health = health
        self.registry = registry
        self.overview = overview
        self._supervisor = supervisor
        self._requests: dict[Any, float] = {}
        address: Any
        try:
            self.address_family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            super().__init__(address, _Handler)
        except (OSError, UnicodeError) as error:
            raise ConfigurationError(
                f"--metrics-port: cannot listen on {host} port {port}: {error}"
            ) from error
        self._thread = threading.Thread(target=self._serve, name="health", daemon=True)

    def start(self) -> None:
        self._thread.start()
        host, port = self.server_address[:2]
        log.info("metrics.listening", extra={"host": host, "port": port})

    def close(self) -> None:
        self.shutdown()
        self.server_close()
        self._thread.join()

    def service_actions(self) -> None:
        """Take a sample if one is due, and end what takes too long; called after each poll."""
        self.overview.sample()
        latest = time.monotonic() - _LONGEST_REQUEST
        for request, began in self._requests.copy().items():
            if began < latest:
                with contextlib.suppress(OSError):
                    request.shutdown(socket.SHUT_RDWR)

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002
        """Return whether there is room: slow clients must not take the files of the database."""
        if len(self._requests) >= _MOST_REQUESTS:
            return False
        self._requests[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """Forget a request that has ended."""
        self._requests.pop(request, None)
        super().shutdown_request(request)

    def _serve(self) -> None:
        try:
            self.serve_forever(_POLL)
        except BaseException as error:  # noqa: BLE001 (no thread may end unseen)
            self._supervisor.fail(error)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Log the error, unless the client has only gone or is too slow."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError):
            log.error("metrics.failed", extra={"error": describe(error)}, exc_info=error)


class _Handler(BaseHTTPRequestHandler):
    server: HealthServer
    timeout = _SLOWEST_CLIENT
    server_version = "projector"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            body = page(self.server.overview.facts())
            self._answer(HTTPStatus.OK, "text/html; charset=utf-8", body, HEADERS)
        elif path == "/metrics":
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
            self._answer(HTTPStatus.OK, content_type, encode(self.server.registry))
        elif path == "/livez":
            self._answer_health("live")
        elif path == "/readyz":
            self._answer_health("ready")
        else:
            self._answer(HTTPStatus.NOT_FOUND, "text/plain", b"/, /livez, /readyz or /metrics\n")

    do_HEAD = do_GET  # noqa: N815 (the base class's name)

    def _answer_health(self, question: str) -> None:
        health = self.server.health
        verdict = health.verdict()
        is_well = verdict.is_live if question == "live" else verdict.is_ready
        document = {
            question: is_well,
            "state": verdict.state,
            "reason": verdict.reason,
            "restart_helps": verdict.restart_helps,
            "without_progress_seconds": round(verdict.idle_for, 1),
            "projected_up_to_age_seconds": None
            if (age := health.projected_up_to_age) is None
            else round(age, 1),
            "lag_seconds": _rounded(health.lag),
            "pending": health.pending,
            "ack_pending": health.ack_pending,
            "outstanding": health.outstanding,
        }
        status = HTTPStatus.OK if is_well else HTTPStatus.SERVICE_UNAVAILABLE
        self._answer(status, "application/json", json.dumps(document).encode() + b"\n")

    def _answer(
        self,
        status: HTTPStatus,
        content_type: str,
        body: bytes,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_arguments: Any) -> None:
        """Log nothing: a request is not an event."""


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
