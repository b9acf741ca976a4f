"""The worker as a process of its own: started, its log shown line by line, stopped, never left."""

import asyncio
import contextlib
import os
import re
import signal
import time
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Awaitable, Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROJECTOR = ROOT / "scripts" / "projector"
_LONGEST_LINE = 1024 * 1024
_REACH_TIMEOUT = 15.0
_LEAVE_TIMEOUT = 15.0  # well below the ack wait: a message that is stuck must not pass for slow
_END_TIMEOUT = 5.0
_TICK = 0.001


class DemoFailed(Exception):
    """The demo cannot go on, or something it shows is not as it must be."""


class Worker:
    """One worker process; `async with` ends it, whatever happens."""

    def __init__(self, arguments: list[str], log: Path, show: Callable[[str], None]) -> None:
        self.lines: list[str] = []
        self._arguments = arguments
        self._log = log
        self._show = show
        self._process: Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "Worker":
        # Settings of another worker, of this machine, have no place here.
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith("PROJECTOR_")
        }
        self._process = await asyncio.create_subprocess_exec(
            PROJECTOR,
            *self._arguments,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            limit=_LONGEST_LINE,
            env=environment,
            start_new_session=True,  # Ctrl-C ends the demo, which then ends the worker
        )
        self._reading = asyncio.create_task(self._read(self._process))
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._process is not None
        assert self._reading is not None
        self._show = lambda _line: None
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.returncode is not None:
                break
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), _END_TIMEOUT)
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)

    def stop(self) -> None:
        """Ask the worker to drain and end, as systemd would."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def ended(self) -> None:
        """Return when the worker has ended by itself with exit code 0; raises DemoFailed."""
        assert self._process is not None
        assert self._reading is not None
        try:
            async with asyncio.timeout(_LEAVE_TIMEOUT):
                code = await self._process.wait()
                await self._reading
        except TimeoutError:
            raise self._failed(f"the worker did not end within {_LEAVE_TIMEOUT:.0f} s") from None
        if code != 0:
            raise self._failed(f"the worker ended with exit code {code}")

    async def until(self, reached: Callable[[], Awaitable[bool]], what: str) -> None:
        """Return when something is reached that the running worker has to do; raises DemoFailed."""
        assert self._process is not None
        deadline = time.monotonic() + _REACH_TIMEOUT
        while not await reached():
            if self._process.returncode is not None:
                raise self._failed(f"the worker ended with exit code {self._process.returncode}")
            if time.monotonic() > deadline:
                raise self._failed(f"not within {_REACH_TIMEOUT:.0f} s: {what}")
            await asyncio.sleep(_TICK)

    async def logged(self, event: str) -> bool:
        """Tell whether the worker has logged an event."""
        return any(f" {event}" in line for line in self.lines)

    def counters(self) -> dict[str, int]:
        """Return the counts of the line that the worker logs when it stops."""
        last = next((line for line in reversed(self.lines) if " worker.stopped" in line), "")
        return {name: int(count) for name, count in re.findall(r"(\w+)=(\d+)", last)}

    async def _read(self, process: Process) -> None:
        assert process.stdout is not None
        with self._log.open("a", encoding="utf-8") as log:
            while line := await process.stdout.readline():
                text = line.decode("utf-8", "replace").rstrip("\n")
                self.lines.append(text)
                log.write(text + "\n")
                log.flush()
                self._show(text)

    def _failed(self, problem: str) -> DemoFailed:
        last = "\n".join(f"    {line}" for line in self.lines[-15:]) or "    (nothing)"
        return DemoFailed(f"{problem}; the last lines of its log:\n{last}")
