"""Where others observe a worker: its HTTP port, and the socket that it notifies systemd on."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

OBSERVED = ("--metrics-port", "0")  # any free port

Samples = dict[str, float]


class Health(NamedTuple):
    status: int
    document: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.document["state"])


class Port:
    """The HTTP port that a worker has logged."""

    def __init__(self, worker: WorkerProcess) -> None:
        listening = worker.wait_for("metrics.listening")
        self._worker = worker
        self.url = f"http://{listening['host']}:{listening['port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of the answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def livez(self) -> Health:
        return self._health("/livez")

    def readyz(self) -> Health:
        return self._health("/readyz")

    def _health(self, path: str) -> Health:
        status, body = self.get(path)
        return Health(status, json.loads(body))

    def wait_for(self, state: str, status: int, within: float = 15) -> Health:
        """Return the first answer of /livez with a state and a status."""

        def reached() -> Health | None:
            health = self.livez()
            return health if (health.state, health.status) == (state, status) else None

        return eventually(reached, within, lambda: f"{self.livez()}\n{self._worker.text}")

    def metrics(self) -> Samples:
        """Return the value of every sample by its name and labels, written as Prometheus does."""
        samples: Samples = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples


class NotifySocket:
    """A datagram socket that receives what a service sends to systemd."""

    def __init__(self, address: str) -> None:
        """Listen on a path or, with a leading @, on an abstract name."""
        self.address = address
        self._received: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(0.1)
        self._closing = threading.Event()
        # The kernel queues ten datagrams only, and the sender drops the next.
        self._thread = threading.Thread(target=self._receive, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _receive(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                self._received += self._socket.recv(65_536).decode().splitlines()

    def lines(self) -> list[str]:
        """Return all lines so far, in order."""
        return list(self._received)

    def wait_for(self, beginning: str, *, after: int = 0, within: float = 10) -> int:
        """Return the index of the first line with a beginning, `after` or higher."""

        def index() -> int:
            lines = self.lines()
            found = (n for n in range(after, len(lines)) if lines[n].startswith(beginning))
            return next(found, -1) + 1

        return eventually(index, within, lambda: f"no {beginning}: {self._received}") - 1
