"""A program that is measured: a process of its own, with its memory and its CPU time.

The kernel's numbers of the process itself are read while it runs. What `wait` tells at the end
would not do: its peak of memory counts that of the process that started it.
"""

import os
import signal
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.demo.process import ROOT

_END_TIMEOUT = 30.0
_TICKS = os.sysconf("SC_CLK_TCK")


class BenchFailed(Exception):
    """A measurement is void: a program failed, or events are missing, or one is not as it must."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used so far: CPU seconds, and its peak of resident memory in bytes."""

    cpu: float
    peak_memory: int


class Program:
    """One process; leaving the `with` ends it, whatever happens."""

    def __init__(self, command: Sequence[str], log: Path) -> None:
        self._log = log
        self._output = log.with_suffix(".out")
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")
        }
        with log.open("wb") as stderr, self._output.open("wb") as stdout:
            self._process = subprocess.Popen(
                list(command),
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                env=environment,
                cwd=ROOT,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    @property
    def log(self) -> str:
        """All that the process has written to its standard error."""
        return self._log.read_text(errors="replace")

    def usage(self) -> Usage | None:
        """Return what the process has used; None once it has ended."""
        return usage(self._process.pid) if self._process.poll() is None else None

    def check_running(self) -> None:
        """Raise BenchFailed if the process has ended with an error."""
        if self._process.poll() not in (None, 0):
            raise BenchFailed(f"{self._process.args!r} ended:\n{self.log}")

    def stop(self) -> None:
        """Ask the process to end, if it has not, and wait until it has; raises BenchFailed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.output()

    def output(self, within: float = _END_TIMEOUT) -> str:
        """Wait for the end and return what the process printed; raises BenchFailed."""
        try:
            code = self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise BenchFailed(f"{self._process.args!r} did not end:\n{self.log}") from None
        if code != 0:
            raise BenchFailed(f"{self._process.args!r} ended with {code}:\n{self.log}")
        return self._output.read_text()


def usage(pid: int) -> Usage | None:
    """Return what a process has used, as the kernel tells it; None if there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return None
    # After the name in parentheses, which may hold anything, comes field 3.
    fields = stat.rpartition(")")[2].split()
    peaks = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")]
    if not peaks:  # it has ended, and nobody has waited for it yet
        return None
    return Usage((int(fields[11]) + int(fields[12])) / _TICKS, int(peaks[0]) * 1024)
