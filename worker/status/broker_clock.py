"""The broker's clock, by which it stamps messages; this machine's clock may differ by hours."""

import time
from collections.abc import Callable

# In nanoseconds. Clocks drift, and the broker's may be set; a broker that does not show its time
# would be asked in vain all the time.
_OLD_AFTER = 600 * 1_000_000_000
_ASK_AGAIN_AFTER = 60 * 1_000_000_000


class BrokerClock:
    """What the broker's clock shows, kept as its offset from this machine's monotonic clock.

    Set by the thread that talks to the broker, read by any. Instants are in nanoseconds since 1970.
    """

    def __init__(self, clock: Callable[[], int] = time.monotonic_ns) -> None:
        self._clock = clock
        self._known: tuple[int, int] | None = None  # the offset, and when it was measured
        self._asked_at: int | None = None

    def set(self, instant: int) -> None:
        """Take what the broker's clock shows now."""
        now = self._clock()
        self._known = instant - now, now

    def forget(self) -> None:
        """Take it that another broker may be asked from now on, with a clock of its own."""
        self._known = self._asked_at = None

    def asked(self) -> None:
        """Note that the broker is asked now."""
        self._asked_at = self._clock()

    @property
    def now(self) -> int | None:
        """What the broker's clock shows now; None where the broker has not shown it."""
        known = self._known
        return None if known is None else self._clock() + known[0]

    @property
    def is_due(self) -> bool:
        """Whether to ask the broker: nothing has shown its time lately, and it was not asked."""
        known, now = self._known, self._clock()
        is_old = known is None or now - known[1] > _OLD_AFTER
        return is_old and (self._asked_at is None or now - self._asked_at > _ASK_AGAIN_AFTER)
