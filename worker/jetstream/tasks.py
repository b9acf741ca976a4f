"""Ending tasks: cancel, and a stop that interrupts whatever the consumer thread waits for."""

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


async def run_until(
    end: Coroutine[Any, Any, object], work: Coroutine[Any, Any, _Result], error: Exception
) -> _Result:
    """Return what `work` returns, or cancel it and raise `error` when `end` returns first."""
    working, ending = asyncio.create_task(work), asyncio.create_task(end)
    try:
        await asyncio.wait({working, ending}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        raise error
    finally:
        await cancel(working, ending)


class Stopped(Exception):
    """The stop came while something else was awaited."""


class Stop(asyncio.Event):
    """Set once, in the consumer thread; waits for other things end with it."""

    async def interrupts(self, work: Coroutine[Any, Any, _Result]) -> _Result:
        """Return what `work` returns, or cancel it and raise Stopped when the stop comes first."""
        return await run_until(self.wait(), work, Stopped())

    async def rest(self, backoff: float, longest: float = LONGEST_BACKOFF) -> float:
        """Wait for about `backoff` seconds and return the next; raises Stopped at the stop."""
        seconds = backoff * random.uniform(0.5, 1.0)  # noqa: S311 (jitter, no secret)
        await self.interrupts(asyncio.sleep(seconds))
        return min(backoff * 2, longest)
