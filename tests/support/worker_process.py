"""The worker as it runs in production: a process of its own, stopped by real signals."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.support.waiting import eventually

PROJECTOR = str(Path(sys.executable).with_name("projector"))

# Variables for a worker that is refused at a reconnect: the client library leaves the transport to
# the garbage collector then, which is told of outside the log.
UNCLOSED = {"PYTHONWARNINGS": "error,ignore:unclosed:ResourceWarning"}

Line = dict[str, Any]


class WorkerProcess:
    """One `projector run`. Its standard error goes to a file and is read as JSON lines."""

    def __init__(
        self,
        log: Path,
        options: Sequence[str],
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (PROJECTOR,),
    ) -> None:
        """Start the process with `options`; `environment` is added to a clean one."""
        self._log = log
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")
        }
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*command, "run", *options],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env={**clean, **(environment or {})},
                cwd=log.parent,
            )

    @property
    def text(self) -> str:
        """All that the process has written so far."""
        return self._log.read_text("utf-8")

    @property
    def lines(self) -> list[Line]:
        """The whole lines so far; ValueError if one of them is no JSON."""
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
        """Return the `times`-th line of an event as soon as it is there."""
        lines = eventually(
            lambda: found if len(found := self.logged(event, **fields)) >= times else None,
            within,
            lambda: f"no {event} {fields}:\n{self.text}",
        )
        assert lines is not None
        return lines[times - 1]

    def wait_for_error(self, event: str | None, *texts: str, within: float = 10) -> Line:
        """Return the first line of an event, or any, whose error has all texts, case ignored."""

        def told() -> Line | None:
            for line in self.lines:
                error = str(line.get("error", "")).lower()
                if event in (None, line["event"]) and all(text.lower() in error for text in texts):
                    return line
            return None

        line = eventually(told, within, lambda: f"no {event or 'line'} {texts}:\n{self.text}")
        assert line is not None
        return line

    @property
    def most_memory(self) -> int:
        """The most memory that the running process has ever had, in bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text("ascii")
        (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", status, re.MULTILINE)
        return int(kilobytes) * 1024

    @property
    def counters(self) -> dict[str, int]:
        """The counters of the stop line."""
        counters: dict[str, int] = self.wait_for("worker.stopped")["counters"]
        return counters

    def is_running(self) -> bool:
        return self.process.poll() is None

    def exit_code(self, within: float = 20) -> int:
        """Wait for the end of the process and return its exit code."""
        try:
            return self.process.wait(within)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {within} s:\n{self.text}") from None

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self, within: float = 20) -> int:
        """Stop it as systemd would and return the exit code."""
        self.send(signal.SIGTERM)
        return self.exit_code(within)

    def kill(self) -> None:
        """End it at once; does nothing if it has ended."""
        if self.is_running():
            self.process.kill()
        self.process.wait()
