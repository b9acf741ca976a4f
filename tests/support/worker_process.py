"""The worker as it runs in production: a process that real signals stop."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tests.support.waiting import eventually

PROJECTOR = str(Path(sys.executable).with_name("projector"))

# For a worker whose reconnect is refused: the client library then leaves the transport to the
# garbage collector, whose warning would be a line outside the log.
UNCLOSED = {"PYTHONWARNINGS": "error,ignore:unclosed:ResourceWarning"}

Line = dict[str, Any]
_Value = TypeVar("_Value")


def clean_environment(**more: str) -> dict[str, str]:
    """Return this process's environment without its PROJECTOR_*, and with some more variables."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")}
    return {**clean, **more}


class WorkerProcess:
    """One `projector run`, whose standard error goes to a file and is read as JSON lines."""

    def __init__(
        self,
        log: Path,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (PROJECTOR,),
    ) -> None:
        """Start the process; `environment` is added to one without PROJECTOR_*."""
        self._log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "run", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=clean_environment(**(environment or {})),
                cwd=log.parent,
            )

    @property
    def text(self) -> str:
        return self._log.read_text("utf-8")

    @property
    def lines(self) -> list[Line]:
        """The complete lines so far; raises ValueError if one is not JSON."""
        whole, _, _ = self.text.rpartition("\n")
        return [json.loads(line) for line in whole.splitlines()]

    def logged(self, event: str, **fields: Any) -> list[Line]:
        """Return the lines of one event, with these fields."""
        return [
            line
            for line in self.lines
            if line["event"] == event and all(line.get(k) == v for k, v in fields.items())
        ]

    def wait_for(self, event: str, *, within: float = 10, times: int = 1, **fields: Any) -> Line:
        """Return the `times`-th line of an event with these fields as soon as it is logged."""
        lines = eventually(
            lambda: found if len(found := self.logged(event, **fields)) >= times else None,
            within,
            lambda: f"no {event} {fields}:\n{self.text}",
        )
        return lines[times - 1]

    def wait_for_error(self, event: str | None, *texts: str, within: float = 10) -> Line:
        """Return the first line, of one event or of any, whose error has all texts in any case."""

        def found() -> Line | None:
            for line in self.lines:
                error = str(line.get("error", "")).lower()
                if event in (None, line["event"]) and all(text.lower() in error for text in texts):
                    return line
            return None

        return eventually(found, within, lambda: f"no {event or 'line'} {texts}:\n{self.text}")

    def until(self, condition: Callable[[], _Value | None], within: float = 15) -> _Value:
        """Return the first true value of a condition; without one, the error shows the log."""
        return eventually(condition, within, lambda: self.text)

    @property
    def most_memory(self) -> int:
        """The peak resident memory of the running process, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kilobytes) * 1024

    @property
    def counters(self) -> dict[str, int]:
        counters: dict[str, int] = self.wait_for("worker.stopped")["counters"]
        return counters

    def is_running(self) -> bool:
        return self.process.poll() is None

    def exit_code(self, within: float = 20) -> int:
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s:\n{self.text}") from None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, within: float = 20) -> int:
        """Send SIGTERM and return the exit code."""
        self.send(signal.SIGTERM)
        return self.exit_code(within)

    def kill(self) -> None:
        if self.is_running():
            self.process.kill()
        self.process.wait()
