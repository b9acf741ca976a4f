"""Lag and rate of the last hour, a sample every ten seconds."""

import time
from collections.abc import Callable
from typing import NamedTuple

EVERY = 10.0
SPAN = 3600.0


class Sample(NamedTuple):
    """The lag in seconds and the messages a second, None where unknown; `at` is monotonic."""

    at: float
    lag: float | None
    rate: float | None


class History:
    """Takes samples in one thread; `samples` is a value that any thread may read, oldest first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.samples: tuple[Sample, ...] = ()
        self._clock = clock
        self._messages = 0

    def record(self, lag: float | None, messages: int) -> None:
        """Take a sample if one is due; `messages` is how many were committed since the start."""
        now, last = self._clock(), self.samples[-1:]
        since = now - last[0].at if last else 0.0
        if last and since < EVERY:
            return
        rate = (messages - self._messages) / since if last else None
        recent = (sample for sample in self.samples if sample.at > now - SPAN)
        self.samples = (*recent, Sample(now, lag, rate))
        self._messages = messages
