"""Reports the worker's state to systemd by the protocol of sd_notify(3); does nothing elsewhere.

READY=1 is sent when the settings are valid, the schema is right and the threads run; not when the
broker is reachable: its absence must fail no start, the worker waits for it by itself. The watchdog
is kept alive except where a restart would help.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Mapping

from worker.status.health import DRAINING, RUNNING, Verdict
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

_TICK = 1.0
_STATUS_AFTER = 5.0
_SEND_TIMEOUT = 0.5
_PINGS_IN_WATCHDOG = 4
_MICROSECONDS = 1_000_000


class Notifier:
    """Sends changes of phase at once, and status and watchdog from a thread of its own.

    The error that ends the thread goes to the supervisor.
    """

    def __init__(
        self,
        status: WorkerStatus,
        supervisor: Supervisor,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._health = status.health
        self._supervisor = supervisor
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog(environment)
        self._status = ("", "", 0.0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)

    @property
    def is_wanted(self) -> bool:
        """Whether systemd listens."""
        return bool(self._address)

    def start(self) -> None:
        if self.is_wanted:
            self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, phase: str, seconds: float = 0.0) -> None:
        """Report that the worker runs, or that it drains, which may take so many seconds."""
        if phase == RUNNING:
            self._send("READY=1", *self._changes())
        elif phase == DRAINING:
            self._send("STOPPING=1", _extend(seconds), *self._changes())

    def waiting(self, seconds: float) -> None:
        """Ask for so many more seconds: the start waits for something that may come."""
        self._send(_extend(seconds), *self._changes())

    def _run(self) -> None:
        tick = min(_TICK, self._watchdog / _PINGS_IN_WATCHDOG) if self._watchdog else _TICK
        try:
            while not self._ending.wait(tick):
                self._send(*self._changes())
        except BaseException as error:  # noqa: BLE001 (no thread may end unseen)
            self._supervisor.fail(error)

    def _changes(self) -> list[str]:
        verdict = self._health.verdict()
        changes: list[str] = []
        state, text, sent_at = self._status
        now, new = time.monotonic(), self._text(verdict)
        if verdict.state != state or (new != text and now - sent_at >= _STATUS_AFTER):
            self._status = (verdict.state, new, now)
            changes.append(f"STATUS={new}")
        if self._watchdog and not verdict.restart_helps:
            changes.append("WATCHDOG=1")
        return changes

    def _text(self, verdict: Verdict) -> str:
        health = self._health
        text = f"{verdict.state}: lag {health.lag:.0f} s, {health.pending} pending"
        return " ".join(f"{text}; {verdict.reason}".rstrip("; ").split())

    def _send(self, *lines: str) -> None:
        if not (self.is_wanted and lines):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as unix:
                unix.settimeout(_SEND_TIMEOUT)
                unix.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._status = ("", "", 0.0)  # not delivered: send it again
            log.debug("systemd.notify_failed", extra={"error": str(error)})


def _address(path: str) -> str:
    """Return the address of a socket; one that begins with @ is not in the file system."""
    return "\0" + path[1:] if path.startswith("@") else path


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return within how many seconds systemd expects a sign of life; 0 without a watchdog."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    process = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (process and process != str(os.getpid())):
        return 0.0
    return int(microseconds) / _MICROSECONDS


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}"
