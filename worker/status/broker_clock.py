"""The broker's clock, by which it stamps messages; this machine's clock may differ by hours."""

import time
from collections.abc import Callable


class BrokerClock:
    """What the broker's clock shows, kept as its offset from this machine's monotonic clock.

    Set by the thread that talks to the broker, read by any. Instants are in nanoseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._told: tuple[int, int] | None = None  # the offset, and when it was measured

    def set(self, instant: int) -> None:
        """Take what the broker's clock shows now."""
        now = self._clock()
        self._told = instant - now, now

    def forget(self) -> None:
        """Take it that another broker may be asked from now on, with a clock of its own."""
        self._told = None

    @property
    def now(self) -> int | None:
        """What the broker's clock shows now; None where the broker has not told it."""
        told = self._told
        return None if told is None else self._clock() + told[0]

    @property
    def age(self) -> float:
        """For how many seconds the broker has not told it."""
        told = self._told
        return float("inf") if told is None else (self._clock() - told[1]) / 1e9
