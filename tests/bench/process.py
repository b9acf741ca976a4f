"""The processes that are measured."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Self

ROOT = Path(__file__).resolve().parents[2]
_END_TIMEOUT = 30.0


class BenchFailed(Exception):
    """A measurement is invalid: a program failed, or the tables do not hold what they must."""


class Program:
    """One process. Leaving the `with` block kills it if it still runs.

    A worker projects `projections`.
    """

    def __init__(
        self, command: Sequence[str], log: Path, projections: Sequence[str] = ("starts",)
    ) -> None:
        self._log = log
        self._output = log.with_suffix(".out")
        names = (name for name in os.environ if not name.startswith("PROJECTOR_"))
        environment = {name: os.environ[name] for name in names}
        # A variable: the worker of an older checkout has no such option.
        environment["PROJECTOR_PROJECTION"] = " ".join(projections)
        with log.open("wb") as stderr, self._output.open("wb") as stdout:
            self._process = subprocess.Popen(
                list(command), stdout=stdout, stderr=stderr, env=environment, cwd=ROOT
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()

    def cpu_seconds(self) -> float | None:
        """Return the CPU time of the process so far, or None once it has ended."""
        try:
            stat = Path(f"/proc/{self._process.pid}/stat").read_text()
        except OSError:
            return None
        # The fields after the name, which is in parentheses, start with field 3 of proc(5).
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def check_running(self) -> None:
        """Raise BenchFailed if the process has ended with an error."""
        if self._process.poll() not in (None, 0):
            raise self.failure(f"ended with {self._process.returncode}")

    def stop(self) -> None:
        """Send SIGTERM and wait for exit code 0; raises BenchFailed."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        self.output()

    def output(self, within: float = _END_TIMEOUT) -> str:
        """Wait for exit code 0 and return the standard output; raises BenchFailed."""
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            raise self.failure(f"did not end within {within:.0f} s") from None
        if self._process.returncode != 0:
            raise self.failure(f"ended with {self._process.returncode}")
        return self._output.read_text()

    def failure(self, problem: str) -> BenchFailed:
        """Return an error with the command, the problem and the process's log."""
        log = self._log.read_text(errors="replace")
        return BenchFailed(f"{self._process.args!r} {problem}:\n{log}")


def run(command: Sequence[str], log: Path, within: float = _END_TIMEOUT) -> str:
    """Run a program to its end and return its standard output; raises BenchFailed."""
    with Program(command, log) as program:
        return program.output(within)
