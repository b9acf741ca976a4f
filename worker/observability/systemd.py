"""Reports the worker's state to systemd by the protocol of sd_notify(3); does nothing elsewhere.

READY=1 is sent when the settings are valid, the schema is right and the threads run; not when the
broker is reachable: its absence must fail no start, the worker waits for it by itself. The watchdog
is kept alive except where a restart would help.
"""

import logging
import os
import re
import socket
import threading
import time

from worker.status.health import Verdict
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

    def __init__(self, status: WorkerStatus, supervisor: Supervisor) -> None:
        self._health = status.health
        self._supervisor = supervisor
        # An address that begins with @ is not in the file system.
        self._address = re.sub("^@", "\0", os.environ.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog()
        self._status = ("", "", 0.0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)

    def start(self) -> None:
        if self._address:
            self._thread.start()

    def close(self) -> None:
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def send(self, *lines: str) -> None:
        """Send lines of the protocol, and the changes since the last ones."""
        lines += tuple(self._changes())
        if not (self._address and lines):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as unix:
                unix.settimeout(_SEND_TIMEOUT)
                unix.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._status = ("", "", 0.0)  # not delivered: send it again
            log.debug("systemd.notify_failed", extra={"error": str(error)})

    def _run(self) -> None:
        tick = min(_TICK, self._watchdog / _PINGS_IN_WATCHDOG) if self._watchdog else _TICK
        try:
            while not self._ending.wait(tick):
                self.send()
        except BaseException as error:  # noqa: BLE001 (no thread may end unseen)
            self._supervisor.fail(error)

    def _changes(self) -> list[str]:
        verdict = self._health.verdict()
        changes = []
        state, text, sent_at = self._status
        now, new = time.monotonic(), self._text(verdict)
        if verdict.state != state or (new != text and now - sent_at >= _STATUS_AFTER):
            self._status = (verdict.state, new, now)
            changes.append(f"STATUS={new}")
        if self._watchdog and not verdict.restart_helps:
            changes.append("WATCHDOG=1")
        return changes

    def _text(self, verdict: Verdict) -> str:
        lag, pending = self._health.lag, self._health.pending
        known = lag is not None and pending is not None
        text = f"{verdict.state}: " + (
            f"lag {lag:.0f} s, {pending} pending" if known else "lag unknown"
        )
        return " ".join(f"{text}; {verdict.reason}".rstrip("; ").split())


def _watchdog() -> float:
    """Return within how many seconds systemd expects a sign of life; 0 without a watchdog."""
    microseconds = os.environ.get("WATCHDOG_USEC", "")
    process = os.environ.get("WATCHDOG_PID") or str(os.getpid())
    if not microseconds.isdigit() or process != str(os.getpid()):
        return 0.0
    return int(microseconds) / _MICROSECONDS


def extend(seconds: float) -> str:
    """Return the line that asks systemd for so many more seconds."""
    return f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}"
