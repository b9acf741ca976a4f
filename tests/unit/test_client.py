"""The connection of a command, as far as it needs no broker."""

import asyncio
import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from worker.jetstream.client import BrokerClient


class InterruptedRunner:
    """Is interrupted before the first step of its work: as a task, or before it is one."""

    def __init__(self, loop: asyncio.AbstractEventLoop, *, has_task: bool) -> None:
        self._loop = loop
        self._has_task = has_task

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        if self._has_task:
            self._loop.create_task(work)
        raise KeyboardInterrupt


@pytest.mark.parametrize("has_task", [True, False])
def test_work_that_was_interrupted_before_its_first_step_never_begins(has_task: bool) -> None:
    async def work() -> None:
        raise AssertionError

    async def end() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    client = object.__new__(BrokerClient)
    with asyncio.Runner() as runner:
        loop, problems = runner.get_loop(), list[Any]()
        loop.set_exception_handler(lambda _, problem: problems.append(problem))
        vars(client)["_runner"] = InterruptedRunner(loop, has_task=has_task)
        with pytest.raises(KeyboardInterrupt):
            client.do(work())
        runner.run(end())
        gc.collect()
        assert problems == []
