"""A stop that interrupts whatever the broker thread is waiting for."""

import asyncio
import random
from collections.abc import Coroutine
from typing import Any, TypeVar

_Result = TypeVar("_Result")

FIRST_BACKOFF = 0.5
LONGEST_BACKOFF = 10.0


async def cancel(*tasks: asyncio.Task[Any]) -> None:
    """End tasks, whatever they are waiting for, and drop what they return or raise."""
    for task in tasks:
        while not task.done():
            # One cancel is not enough: wait_for of Python 3.11 swallows it if what it waits for
            # ends at the same moment.
            task.cancel()
            await asyncio.wait({task}, timeout=0.1)
    await asyncio.gather(*tasks, return_exceptions=True)


class Stopped(Exception):
    """The stop came while something else was awaited."""


class Stop:
    """Set once, from the broker thread; waits for other things end with it."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    def set(self) -> None:
        """Stop; may be called again."""
        self._event.set()

    def is_set(self) -> bool:
        """Tell whether the stop was asked for."""
        return self._event.is_set()

    async def wait(self) -> None:
        """Return when the stop is asked for."""
        await self._event.wait()

    async def interrupts(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns, or cancel it and raise Stopped when the stop comes first."""
        task = asyncio.create_task(work)
        stop = asyncio.create_task(self._event.wait())
        try:
            await asyncio.wait({task, stop}, return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                return task.result()
            raise Stopped
        finally:
            await cancel(task, stop)

    async def rest(self, backoff: float, longest: float = LONGEST_BACKOFF) -> float:
        """Wait for about `backoff` seconds and return the next; raises Stopped at the stop."""
        seconds = backoff * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
        await self.interrupts(asyncio.sleep(seconds))
        return min(backoff * 2, longest)
