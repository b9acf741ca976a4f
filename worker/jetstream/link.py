"""How far the link to the broker is behind: what has arrived by now of what the server has sent.

A server answers a ping behind all that it sent before. So a ping without an answer shows from when
on something may still be on its way. Loop thread only.
"""

import asyncio
import time
from typing import Any

_QUICK = 0.1


class Link:
    """Times are monotonic seconds; `round_trip` is the shortest one yet, 0 until it is known."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Begin with a new connection."""
        self.round_trip = 0.0
        self._heard_at = float("-inf")
        self._pings: dict[asyncio.Future[Any], float] = {}

    def heard(self) -> None:
        """Note that something has arrived."""
        self._heard_at = time.monotonic()

    def ping(self, future: "asyncio.Future[Any] | None") -> "asyncio.Future[Any]":
        """Note a ping that is sent now; returns what is to be done with its answer.

        The library ends its read loop at the answer to a ping if nobody waits for it any more. So
        it gets a future that nobody cancels; `future` is the one that is waited for.
        """
        answered: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._pings[answered] = time.monotonic()
        answered.add_done_callback(self._answered)
        if future is not None:
            answered.add_done_callback(lambda _: _end(future))
        return answered

    def _answered(self, answered: "asyncio.Future[Any]") -> None:
        sent = self._pings.pop(answered, None)
        if sent is not None:
            took = time.monotonic() - sent
            self.round_trip = min(self.round_trip or took, took)

    @property
    def arrived_until(self) -> float:
        """Until when all that the server had sent has arrived."""
        return next(iter(self._pings.values()), time.monotonic())

    def is_overdue(self, since: float, seconds: float) -> bool:
        """Return whether something that the server should have sent within a time is missing.

        It is if all that the server sent in that time has arrived, or if nothing arrives at all.
        """
        now = time.monotonic()
        is_heard = now - self._heard_at <= seconds
        return (self.arrived_until if is_heard else now) - since > seconds


def rest_after(took: float) -> float:
    """Return for how many seconds not to repeat a question whose answer took so long.

    The answer may have a whole message in it: on a slow link it takes a tenth of the time at most.
    """
    return 9 * took if took > _QUICK else 0.0


def _end(future: "asyncio.Future[Any]") -> None:
    if not future.done():
        future.set_result(True)
