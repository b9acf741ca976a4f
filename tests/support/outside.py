"""The worker as others see it from outside: its port, and the socket that systemd listens on."""

import contextlib
import json
import socket
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

# What a test adds to a worker's options to see it from outside.
SEEN = ("--metrics-port", "0")

Samples = dict[str, float]


class Health(NamedTuple):
    """An answer of /livez or /readyz."""

    status: int
    document: dict[str, Any]

    @property
    def state(self) -> str:
        return str(self.document["state"])


class Port:
    """The port of one worker, as its log tells it."""

    def __init__(self, worker: WorkerProcess) -> None:
        listening = worker.wait_for("metrics.listening")
        self._worker = worker
        self.url = f"http://{listening['host']}:{listening['port']}"

    def get(self, path: str) -> tuple[int, str]:
        """Return the status and the body of an answer."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=5) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def livez(self) -> Health:
        status, body = self.get("/livez")
        return Health(status, json.loads(body))

    def readyz(self) -> Health:
        status, body = self.get("/readyz")
        return Health(status, json.loads(body))

    def wait_for(self, state: str, status: int, within: float = 15) -> Health:
        """Return the first answer of /livez with a state and a status."""
        seen: list[Health] = []

        def reached() -> bool:
            seen.append(self.livez())
            return (seen[-1].state, seen[-1].status) == (state, status)

        eventually(reached, within, lambda: f"{seen[-1]}\n{self._worker.text}")
        return seen[-1]

    def metrics(self) -> Samples:
        """Return every sample by its name, with its labels behind it as they are written."""
        samples: Samples = {}
        for family in text_string_to_metric_families(self.get("/metrics")[1]):
            for sample in family.samples:
                labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
                samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
        return samples


class NotifySocket:
    """A datagram socket that takes what a service tells systemd."""

    def __init__(self, address: str) -> None:
        """Listen on a path, or with an @ before it on a name that is in no file system."""
        self.address = address
        self._told: list[str] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self._socket.settimeout(0.1)
        self._closing = threading.Event()
        # The system keeps ten datagrams and no more.
        self._thread = threading.Thread(target=self._take, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    def _take(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(TimeoutError):
                self._told += self._socket.recv(65_536).decode().splitlines()

    def told(self) -> list[str]:
        """Return all lines so far, in order."""
        return list(self._told)

    def wait_for(self, beginning: str, *, after: int = 0, within: float = 10) -> int:
        """Return where the first line with a beginning is, at or behind a place."""

        def place() -> int:
            lines = self.told()
            found = (n for n in range(after, len(lines)) if lines[n].startswith(beginning))
            return next(found, -1) + 1

        return eventually(place, within, lambda: f"no {beginning}: {self._told}") - 1


def notify_socket_in(folder: Path) -> NotifySocket:
    return NotifySocket(str(folder / "notify"))
