"""The worker as a process: started, its log shown line by line, stopped, never left running."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECTOR = ROOT / "scripts" / "projector"
_REACH_TIMEOUT = 15.0
_LEAVE_TIMEOUT = 15.0  # well below the ack wait: a redelivery must not count as slow
_END_TIMEOUT = 5.0
_TICK = 0.001


class DemoFailed(Exception):
    """The demo cannot continue, or something it shows is wrong."""


class Worker:
    """One worker process; `with` ends it in any case."""

    def __init__(self, arguments: list[str], log: Path, show: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._log = log
        self._show = show
        # Settings of another worker on this machine must not apply.
        environment = {n: v for n, v in os.environ.items() if not n.startswith("PROJECTOR_")}
        self._process = subprocess.Popen(
            [PROJECTOR, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            env=environment,
            start_new_session=True,  # Ctrl-C ends the demo, which then ends the worker
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *_: object) -> None:
        self.be_silent()
        for end in (self._process.terminate, self._process.kill):
            if self._process.poll() is None:
                end()
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_END_TIMEOUT)
        self._reader.join(_END_TIMEOUT)

    def be_silent(self) -> None:
        """Show no more lines of its log."""
        self._show = lambda _line: None

    def stop(self) -> None:
        """Ask the worker to drain and exit, as systemd would."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self) -> None:
        """Wait until the worker has exited with 0; raises DemoFailed."""
        try:
            code = self._process.wait(_LEAVE_TIMEOUT)
        except subprocess.TimeoutExpired:
            raise self._failed(f"the worker did not exit within {_LEAVE_TIMEOUT:.0f} s") from None
        self._reader.join()
        if code != 0:
            raise self._failed(f"the worker exited with {code}")

    def until(self, reached: Callable[[], bool], what: str) -> None:
        """Wait for something that the running worker has to do; raises DemoFailed."""
        deadline = time.monotonic() + _REACH_TIMEOUT
        while not reached():
            self.raise_if_ended()
            if time.monotonic() > deadline:
                raise self._failed(f"not within {_REACH_TIMEOUT:.0f} s: {what}")
            time.sleep(_TICK)

    def raise_if_ended(self) -> None:
        """Raise DemoFailed if the worker does not run."""
        if self._process.poll() is not None:
            raise self._failed(f"the worker exited with {self._process.returncode}")

    def pulls(self) -> bool:
        """Return whether the worker pulls from both streams."""
        return sum(" pull.started" in line for line in self.lines) >= 2

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._log.open("a", encoding="utf-8") as log, self._process.stdout:
            for line in self._process.stdout:
                self.lines.append(line.rstrip("\n"))
                log.write(line)
                log.flush()
                self._show(self.lines[-1])

    def _failed(self, problem: str) -> DemoFailed:
        last = "\n".join(f"    {line}" for line in self.lines[-15:]) or "    (nothing)"
        return DemoFailed(f"{problem}; the last lines of its log:\n{last}")
