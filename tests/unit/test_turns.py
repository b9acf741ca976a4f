"""Batches are written in the order of their numbers, whichever thread has them."""

import queue
import threading

from worker.processing.pool import CommitOrder


def test_a_later_batch_waits_for_the_turn_of_the_one_before() -> None:
    turns = CommitOrder()
    written: queue.SimpleQueue[int] = queue.SimpleQueue()

    def write(number: int) -> None:
        turns.wait(number)
        written.put(number)
        turns.end(number)

    threads = [threading.Thread(target=write, args=(number,)) for number in (3, 2, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert [written.get_nowait() for _ in threads] == [1, 2, 3]


def test_a_batch_that_fails_before_its_turn_still_waits_for_it_and_passes_it_on() -> None:
    turns = CommitOrder()
    failed = threading.Thread(target=turns.end, args=(2,))
    failed.start()
    turns.wait(1)
    turns.end(1)
    failed.join(10)
    assert not failed.is_alive()
    turns.wait(3)
