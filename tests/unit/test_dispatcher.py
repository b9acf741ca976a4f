"""When messages go to the pool, and when they wait; without a broker and without a database."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, cast

import pytest
from nats.js.api import SequenceInfo

from worker.jetstream.consumer import Binding
from worker.jetstream.consumer_info import Config
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.stream import StreamState
from worker.messages import ALWAYS, Ack, Batch, BatchResult, Decision, Message, Wait
from worker.processing.pool import ProjectionPool
from worker.processing.queues import ResultQueue
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus

CREATED = "2026-05-20T00:00:00+00:00"
NOTHING = SequenceInfo(0, 0)
BINDING = Binding(
    StreamState(CREATED, 0, 0, 1, 0, "", keeps_acked=True),
    *(Config(), 0, 0, 0, 0, NOTHING, NOTHING),
)


class Pool:
    """Notes the batches that it gets."""

    def __init__(self) -> None:
        self.batches: list[Batch] = []

    def submit(self, batch: Batch) -> None:
        self.batches.append(batch)

    @property
    def sequences(self) -> list[list[int]]:
        return [[one.stream_sequence for one in batch.messages] for batch in self.batches]


class Prerequisite:
    """Is reached when a test says so; notes what it was asked for."""

    def __init__(self) -> None:
        self.is_fresh = self.may_try = True
        self.reached = 0
        self.asked: list[int] = []
        self.question = asyncio.Event()

    async def catch_up(self, stored_at: int) -> None:
        self.asked.append(stored_at)
        self.question = asyncio.Event()
        await self.question.wait()

    async def be_fresh_or_empty(self) -> None:
        """Never waits."""

    def refresh(self) -> None:
        """Remembers nothing."""


class Bench:
    """A bound dispatcher, which runs, with a pool that does nothing by itself."""

    def __init__(self, batch: int = 10) -> None:
        self.pool, self.prerequisite = Pool(), Prerequisite()
        self._results = ResultQueue()
        settings = Settings(("nats://nowhere",), "sqlite:///no.db", batch=batch)
        status = WorkerStatus(["results"], stalled_after=60, busy_timeout=1, is_observed=False)
        self.dispatcher = Dispatcher(
            settings,
            cast("ProjectionPool", self.pool),
            self._results,
            self.prerequisite,
            status.projections["results"],
        )
        self.dispatcher.bind(BINDING, recreated=False)
        self.dispatcher.resume()

    def bind_again(self) -> None:
        self.dispatcher.unbind()
        self.dispatcher.bind(BINDING, recreated=False)
        self.dispatcher.resume()

    async def arrive(self, *sequences: int) -> None:
        """Have messages arrive, each stored at the instant of its sequence."""
        for sequence in sequences:
            message = Message("results.q", b"{}", sequence, 1, sequence)
            self.dispatcher.outstanding.arrive(message, f"reply-{sequence}", float(sequence))
        self.dispatcher.messages_arrived()
        await turns()

    async def answer(self, batch: int, *decisions: Decision) -> None:
        """Return the decisions of a batch, as the pool does."""
        left = sum(isinstance(decision, Wait) for decision in decisions)
        self._results.put(BatchResult(self.pool.batches[batch], decisions, left=left))
        self.dispatcher.wake()
        await turns()

    async def reach(self) -> None:
        """Have the prerequisite reached for what was asked last."""
        self.prerequisite.question.set()
        await turns()


async def turns() -> None:
    """Let everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def dispatching(test: Callable[[Bench], Coroutine[Any, Any, None]], **options: int) -> None:
    async def run() -> None:
        bench = Bench(**options)
        running = [
            asyncio.create_task(one)
            for one in (bench.dispatcher.run(), bench.dispatcher.keep_ready())
        ]
        await test(bench)
        for task in running:
            assert not task.done()
            task.cancel()

    asyncio.run(run())


def test_messages_wait_for_what_has_to_precede_them() -> None:
    async def test(bench: Bench) -> None:
        bench.prerequisite.may_try = False
        await bench.arrive(1, 2)
        assert (bench.pool.batches, bench.prerequisite.asked) == ([], [2])
        await bench.arrive(3)
        await bench.reach()
        assert bench.pool.sequences == [[1, 2]]
        assert bench.pool.batches[0].ready_until == 2
        assert bench.prerequisite.asked == [2, 3]

    dispatching(test)


def test_messages_are_tried_at_once_where_they_may_be_and_nothing_is_asked() -> None:
    async def test(bench: Bench) -> None:
        bench.prerequisite.reached = 7
        await bench.arrive(8)
        await bench.answer(0, Ack())
        assert (bench.pool.sequences, bench.prerequisite.asked) == ([[8]], [])
        assert bench.pool.batches[0].ready_until == 7

    dispatching(test)


def test_what_comes_back_is_dispatched_once_it_is_preceded_and_before_what_came_later() -> None:
    async def test(bench: Bench) -> None:
        await bench.arrive(1, 2, 3)
        await bench.arrive(4)
        await bench.answer(0, Ack(), Wait(), Wait())
        assert bench.prerequisite.asked == [4]
        await bench.arrive(5)
        assert bench.pool.sequences == [[1, 2, 3]]
        await bench.reach()
        assert bench.pool.sequences == [[1, 2, 3], [2, 3, 4, 5]]
        assert bench.pool.batches[1].ready_until == 4
        assert bench.pool.batches[1].after == 1

    dispatching(test)


def test_what_comes_back_waits_for_what_is_still_in_the_pool() -> None:
    async def test(bench: Bench) -> None:
        await bench.arrive(1, 2, 3, 4, 5)
        assert bench.pool.sequences == [[1, 2], [3, 4]]
        await bench.answer(0, Wait(), Wait())
        assert bench.prerequisite.asked == []
        await bench.answer(1, Wait(), Wait())
        await bench.reach()
        assert bench.pool.sequences[2:] == [[1, 2], [3, 4]]

    dispatching(test, batch=2)


def test_what_is_asked_before_a_binding_says_nothing_after_it() -> None:
    async def test(bench: Bench) -> None:
        bench.prerequisite.may_try = False
        await bench.arrive(1)
        bench.bind_again()
        await bench.reach()
        assert (bench.pool.batches, bench.prerequisite.asked) == ([], [1, 1])
        await bench.reach()
        assert bench.pool.sequences == [[1]]

    dispatching(test)


def test_what_was_reached_before_a_binding_is_not_after_it() -> None:
    async def test(bench: Bench) -> None:
        bench.prerequisite.may_try = False
        await bench.arrive(1)
        await bench.reach()
        await bench.arrive(2)
        await bench.reach()  # it waits only for the batch before it
        bench.bind_again()
        await bench.answer(0, Ack())
        assert bench.pool.sequences == [[1]]
        bench.prerequisite.may_try = True
        await bench.arrive(3)
        assert bench.pool.sequences == [[1], [2, 3]]
        assert [batch.ready_until for batch in bench.pool.batches] == [1, 0]

    dispatching(test)


def test_a_database_that_took_nothing_is_still_on_trial() -> None:
    async def test(bench: Bench) -> None:
        bench.dispatcher.fail("locked")
        bench.dispatcher.resume()
        await bench.arrive(1, 2)
        assert bench.pool.sequences == [[1]]
        await bench.answer(0, Wait())
        await bench.reach()
        assert (bench.dispatcher.on_trial, bench.pool.sequences) == (True, [[1], [1]])
        await bench.answer(1, Ack())
        assert (bench.dispatcher.on_trial, bench.pool.sequences[2:]) == (False, [[2]])

    dispatching(test)


@pytest.mark.parametrize("came_back", [True, False])
def test_at_a_stop_what_nothing_would_deliver_again_waits_for_nothing(*, came_back: bool) -> None:
    async def test(bench: Bench) -> None:
        bench.prerequisite.may_try = came_back
        await bench.arrive(1)
        if came_back:
            await bench.answer(0, Wait())
        bench.dispatcher.stop_dispatching()
        bench.dispatcher.unbind()
        await bench.dispatcher.nak_waiting()
        assert bench.pool.sequences[-1:] == [[1]]
        assert bench.pool.batches[-1].ready_until == ALWAYS

    dispatching(test)
