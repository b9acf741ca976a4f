"""The order of commits, and the two queues between the consumer thread and the pool."""

import asyncio
import queue
import threading

import pytest

from worker.messages import Ack, Batch, BatchResult, Message
from worker.processing.pool import CommitOrder
from worker.processing.queues import PoolThread, ResultQueue, WorkQueue

THREAD = PoolThread()


def test_batches_are_written_in_the_order_of_their_numbers() -> None:
    order = CommitOrder()
    written: queue.SimpleQueue[int] = queue.SimpleQueue()

    def write(number: int) -> None:
        order.wait(number)
        written.put(number)
        order.end(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in (3, 2, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [written.get_nowait() for _ in threads] == [1, 2, 3]


def test_a_batch_that_fails_before_its_turn_still_waits_for_it_and_passes_it_on() -> None:
    order = CommitOrder()
    failed = threading.Thread(target=order.end, args=(2,))
    failed.start()
    order.wait(1)
    order.end(1)
    failed.join(10)
    assert not failed.is_alive()
    order.wait(3)


def run_one(work: WorkQueue) -> None:
    """Run the next work, as a pool thread does."""
    one = work.get()
    assert one is not None
    one(THREAD)


def test_the_answer_or_the_error_of_a_pool_thread_reaches_the_future() -> None:
    work = WorkQueue()

    def fail(_: PoolThread) -> None:
        raise KeyError("no such table")

    answer = work.ask(lambda thread: thread is THREAD)
    error = work.ask(fail)
    run_one(work)
    run_one(work)
    assert answer.result(0) is True
    with pytest.raises(KeyError, match="no such table"):
        error.result(0)


def test_a_cancelled_question_is_not_asked() -> None:
    work = WorkQueue()
    asked: list[object] = []
    work.ask(asked.append).cancel()
    run_one(work)
    assert asked == []


def test_a_closed_queue_ends_each_thread_after_the_queued_work() -> None:
    work = WorkQueue()
    done: list[object] = []
    work.put(done.append)
    work.close(2)
    run_one(work)
    assert done == [THREAD]
    assert [work.get(), work.get()] == [None, None]


def result(number: int) -> BatchResult:
    return BatchResult(Batch(number, (Message("s", b"", number, 1, 0),)), (Ack(),))


def test_each_result_wakes_the_reader_in_its_own_thread() -> None:
    async def read() -> list[int]:
        results, numbers, done = ResultQueue(), list[int](), asyncio.Event()

        def wake() -> None:
            assert threading.current_thread() is reader
            numbers.append(results.get().batch.number)
            if len(numbers) == 3:
                done.set()

        reader = threading.current_thread()
        results.open(asyncio.get_running_loop(), wake)
        for number in (1, 2, 3):
            await asyncio.to_thread(results.put, result(number))
        await asyncio.wait_for(done.wait(), 10)
        assert len(results) == 0
        return numbers

    assert asyncio.run(read()) == [1, 2, 3]


def test_a_result_after_the_loop_was_closed_is_kept_without_an_error() -> None:
    results = ResultQueue()
    loop = asyncio.new_event_loop()
    results.open(loop, lambda: None)
    loop.close()
    results.put(result(1))
    assert len(results) == 1
    assert results.get() == result(1)
    with pytest.raises(IndexError):
        results.get()
