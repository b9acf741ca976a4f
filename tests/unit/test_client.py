"""The connection of a command, as far as it needs no broker."""

import asyncio
import gc
import os
import signal
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from worker.jetstream.client import BrokerClient
from worker.settings import Settings


@contextmanager
def client_without_broker() -> Iterator[BrokerClient]:
    """Return a client that catches signals and has a loop, and no connection."""
    client: Any = BrokerClient(Settings((), "sqlite:///x.db"))
    client._catch_signals()
    try:
        with asyncio.Runner() as runner:
            client._runner, client._failure = runner, runner.get_loop().create_future()
            yield client
    finally:
        client._end_by_signal()


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


async def forever(log: list[str]) -> None:
    log.append("begun")
    interrupt()
    try:
        await asyncio.sleep(60)
    finally:
        log.append("ended")


def test_work_that_is_interrupted_ends_before_the_interrupt_is_raised() -> None:
    log: list[str] = []
    with client_without_broker() as client:
        with pytest.raises(KeyboardInterrupt):
            client._run(forever(log))
        assert log == ["begun", "ended"]


def test_work_that_was_interrupted_before_its_first_step_never_begins() -> None:
    log: list[str] = []

    async def work() -> None:
        log.append("begun")

    with client_without_broker() as client:
        run = client._runner.run

        def interrupted(main: Coroutine[Any, Any, Any]) -> Any:
            interrupt()
            return run(main)

        vars(client)["_runner"] = type("Runner", (), {"run": staticmethod(interrupted)})
        with pytest.raises(KeyboardInterrupt):
            client._run(work())
        gc.collect()  # Python would warn about a coroutine that nobody has awaited
        assert log == []


def test_a_callback_that_is_interrupted_goes_on() -> None:
    log: list[str] = []

    def callback() -> None:
        interrupt()
        log.append("went on")

    async def work() -> str:
        asyncio.get_running_loop().call_soon(callback)
        await asyncio.sleep(0)
        return "result"

    async def next_work() -> str:
        return "next"

    with client_without_broker() as client:
        with pytest.raises(KeyboardInterrupt):
            client._run(work())
        assert log == ["went on"]
        assert client._run(next_work()) == "next"


def test_between_two_questions_an_interrupt_is_raised_at_once() -> None:
    with client_without_broker(), pytest.raises(KeyboardInterrupt):
        interrupt()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
