"""A result waits until the starts that the broker stored before it are projected.

So its row has version, deadline and the start's own store time, and a database that is filled again
gets the rows that were there before. Where the row exists, its start is projected: so the
pool is tried first, and returns the results of all other runs. Consumer thread only.
"""

import asyncio
import logging
import time

from worker.jetstream.link import rest_after
from worker.jetstream.session import Session
from worker.status.health import Health

log = logging.getLogger(__name__)

# The contract's: without progress of the starts for so long, results go on without them.
_PATIENCE = 30.0
_LOOK_AGAIN = 0.01
_LOOK_EVERY = 0.25


class StartsFirst:
    """The prerequisite of results, whose health is given.

    `is_given_up` is whether the starts make no progress. `may_try` is whether they were projected
    when they were looked at last: else most rows are still to come.
    """

    def __init__(self, starts: Session, health: Health) -> None:
        self.is_given_up = False
        self.may_try = True
        self._starts = starts
        self._health = health
        self._progress: tuple[object, ...] = ()
        self._progressed_at = time.monotonic()

    @property
    def is_fresh(self) -> bool:
        """What is projected stays so."""
        return True

    @property
    def reached(self) -> int:
        """Up to which instant all starts are known to be projected, by the last look at them."""
        up_to = self._starts.projected_up_to
        return 0 if up_to is None else up_to - 1

    async def catch_up(self, stored_at: int) -> None:
        """Return when all starts stored up to an instant are projected, or make no progress."""
        if stored_at == 0:
            return  # no message is that old
        rest = _LOOK_AGAIN
        self._progressed_at = asked_at = time.monotonic()
        waited = False
        while stored_at > self.reached and not await self._starts.has_projected(stored_at):
            waited, self.may_try = True, False
            if self._is_stuck():
                return
            self._health.record_waiting()
            took = time.monotonic() - asked_at
            await asyncio.sleep(max(rest, rest_after(took)))
            rest = min(2 * rest, _LOOK_EVERY)
            asked_at = time.monotonic()
        self.may_try = not waited
        self._follow()

    async def be_fresh_or_empty(self) -> None:
        """Do not wait: at a stop, what nothing would deliver again is written as it is."""

    def refresh(self) -> None:
        """Nothing is remembered."""

    def _is_stuck(self) -> bool:
        """Return whether the starts have made no progress for too long; noted once."""
        progress, now = self._starts.progress, time.monotonic()
        if progress != self._progress:
            self._progress, self._progressed_at = progress, now
            self._follow()
        if not self.is_given_up and now - self._progressed_at >= _PATIENCE:
            self.is_given_up = True
            problem = f"the starts have made no progress for {_PATIENCE:.0f} s"
            log.warning("starts.not_followed", extra={"error": problem})
        return self.is_given_up

    def _follow(self) -> None:
        """Wait for the starts again: they make progress."""
        if self.is_given_up:
            self.is_given_up = False
            log.info("starts.followed")
