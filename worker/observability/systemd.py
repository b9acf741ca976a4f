"""Tells systemd how the worker is, by the protocol of sd_notify(3). Does nothing elsewhere.

READY=1 comes when the settings are valid, the schema is right and the threads run; not when the
broker is there, whose absence must fail no start: that is the worker's own business to wait for.
The watchdog is kept only while no restart would help.
"""

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Mapping

from worker.status.health import DRAINING, RUNNING, Progress, Verdict

log = logging.getLogger(__name__)

_TICK = 1.0
_STATUS_AFTER = 5.0
_SEND_TIMEOUT = 0.5
_PINGS_IN_WATCHDOG = 4
_MICROSECONDS = 1_000_000


class Notifier:
    """Sends changes of phase at once, and status and watchdog from a thread of its own.

    `failed` gets the error that ended the thread.
    """

    def __init__(
        self,
        progress: Progress,
        failed: Callable[[BaseException], None],
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._progress = progress
        self._failed = failed
        self._address = _address(environment.get("NOTIFY_SOCKET", ""))
        self._watchdog = _watchdog(environment)
        self._status = ("", "", 0.0)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name="systemd", daemon=True)

    @property
    def is_wanted(self) -> bool:
        """Tell whether systemd listens."""
        return bool(self._address)

    def start(self) -> None:
        """Begin to tell."""
        if self.is_wanted:
            self._thread.start()

    def close(self) -> None:
        """Tell no more."""
        self._ending.set()
        if self._thread.is_alive():
            self._thread.join()

    def enter(self, phase: str, seconds: float = 0.0) -> None:
        """Tell that the worker runs, or that it leaves, for which it may take so many seconds."""
        if phase == RUNNING:
            self._send("READY=1", *self._news())
        elif phase == DRAINING:
            self._send("STOPPING=1", _extend(seconds), *self._news())

    def waiting(self, seconds: float) -> None:
        """Ask for so many seconds more, since something is waited for that may well come."""
        self._send(_extend(seconds), *self._news())

    def _run(self) -> None:
        tick = min(_TICK, self._watchdog / _PINGS_IN_WATCHDOG) if self._watchdog else _TICK
        try:
            while not self._ending.wait(tick):
                self._send(*self._news())
        except BaseException as error:  # noqa: BLE001 (nothing may end a thread unseen)
            self._failed(error)

    def _news(self) -> list[str]:
        verdict = self._progress.verdict()
        news: list[str] = []
        state, text, told_at = self._status
        now, new = time.monotonic(), self._text(verdict)
        if verdict.state != state or (new != text and now - told_at >= _STATUS_AFTER):
            self._status = (verdict.state, new, now)
            news.append(f"STATUS={new}")
        if self._watchdog and not verdict.restart_helps:
            news.append("WATCHDOG=1")
        return news

    def _text(self, verdict: Verdict) -> str:
        progress = self._progress
        text = f"{verdict.state}: lag {progress.lag:.0f} s, {progress.pending} pending"
        return " ".join(f"{text}; {verdict.reason}".rstrip("; ").split())

    def _send(self, *lines: str) -> None:
        if not (self.is_wanted and lines):
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as unix:
                unix.settimeout(_SEND_TIMEOUT)
                unix.sendto("\n".join(lines).encode(), self._address)
        except OSError as error:
            self._status = ("", "", 0.0)  # it was told in vain
            log.debug("systemd.notify_failed", extra={"error": str(error)})


def _address(path: str) -> str:
    """Return the address of a socket; one that begins with @ is in no file system."""
    return "\0" + path[1:] if path.startswith("@") else path


def _watchdog(environment: Mapping[str, str]) -> float:
    """Return within how many seconds systemd wants a sign of life; 0 where it wants none."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    process = environment.get("WATCHDOG_PID", "")
    if not microseconds.isdigit() or (process and process != str(os.getpid())):
        return 0.0
    return int(microseconds) / _MICROSECONDS


def _extend(seconds: float) -> str:
    return f"EXTEND_TIMEOUT_USEC={int(seconds * _MICROSECONDS)}"
