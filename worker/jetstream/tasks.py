"""Tasks of the consumer thread: cancel, helpers beside others, and a stop that interrupts."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Coroutine
from typing import Any, TypeVar

from worker.supervisor import Supervisor

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


class Helpers:
    """Tasks that run beside something; the error of one, or its end from outside, ends the worker.

    The error goes to the supervisor.
    """

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    @contextlib.asynccontextmanager
    async def beside(self, *helpers: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
        """Run helpers beside the body, and end them with it."""
        tasks = [asyncio.create_task(helper) for helper in helpers]
        for task in tasks:
            task.add_done_callback(self._supervise)
        try:
            yield
        finally:
            for task in tasks:
                task.remove_done_callback(self._supervise)
            await cancel(*tasks)

    def _supervise(self, helper: asyncio.Task[None]) -> None:
        """Report the end of a helper task; the library may cancel what waits on it."""
        if helper.cancelled():
            self._supervisor.fail(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self._supervisor.fail(error)
