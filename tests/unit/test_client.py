"""The connection of a command, as far as it needs no broker."""

import gc
from collections.abc import Coroutine
from typing import Any

import pytest

from worker.jetstream.client import BrokerClient


class Interrupted:
    """Stands for a loop that is interrupted before the first step of its work."""

    def run(self, work: Coroutine[Any, Any, Any]) -> None:
        work.close()
        raise KeyboardInterrupt


def test_an_interrupt_before_the_first_step_leaves_no_warning_behind() -> None:
    async def work() -> None:
        raise AssertionError

    client = object.__new__(BrokerClient)
    vars(client)["_runner"] = Interrupted()
    with pytest.raises(KeyboardInterrupt):
        client.do(work())
    gc.collect()
