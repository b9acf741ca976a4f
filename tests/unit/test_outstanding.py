import pytest

from worker.jetstream.outstanding import MOST_BYTES, OutstandingMessages
from worker.messages import (
    Ack,
    Batch,
    BatchResult,
    Fetch,
    Message,
    Nak,
    Output,
    StreamPosition,
    Wait,
)

POSITION = StreamPosition("2026-05-20T00:00:00+00:00", 0)


def message(sequence: int, stored_at: int = 0, payload: bytes = b"{}") -> Message:
    return Message("events.started.e.p", payload, sequence, 1, stored_at)


def holding(messages: int, *, limit: int = 100) -> OutstandingMessages:
    """Return messages 1, 2, … that arrived at second 1, 2, …, with the replies reply-1, …"""
    outstanding = OutstandingMessages(limit)
    for number in range(1, messages + 1):
        outstanding.arrive(message(number), f"reply-{number}", float(number))
    return outstanding


def sequences(batch: Batch) -> list[int]:
    return [message.stream_sequence for message in batch.messages]


def acked(batch: Batch) -> BatchResult:
    return BatchResult(batch, (Ack(),) * len(batch.messages))


@pytest.mark.parametrize(("messages", "capacity"), [(0, 8), (5, 3), (8, 0), (12, 0)])
def test_capacity_is_the_limit_minus_all_outstanding_messages_and_never_negative(
    messages: int, capacity: int
) -> None:
    outstanding = holding(messages, limit=8)
    assert (len(outstanding), outstanding.capacity) == (messages, capacity)
    if messages:
        outstanding.next_batch(2, POSITION)
    assert (len(outstanding), outstanding.capacity) == (messages, capacity)


def test_too_many_bytes_leave_no_capacity_until_a_message_is_finished_or_removed() -> None:
    outstanding = OutstandingMessages(100)
    large = message(1, payload=b"x" * (MOST_BYTES // 4))
    for number in range(4):
        assert outstanding.capacity == 100 - number
        outstanding.arrive(large, f"reply-{number}", 0.0)
    assert outstanding.capacity == 0
    outstanding.finish(acked(outstanding.next_batch(1, POSITION)))
    assert outstanding.capacity == 97
    outstanding.remove_waiting()
    for number in range(3):
        outstanding.arrive(large, f"reply-{number}", 0.0)
    assert outstanding.capacity == 97


def test_a_batch_takes_waiting_messages_in_the_order_of_arrival_up_to_the_most() -> None:
    outstanding = holding(5)
    first, second = (outstanding.next_batch(3, POSITION) for _ in range(2))
    assert (sequences(first), sequences(second)) == ([1, 2, 3], [4, 5])
    assert (first.number, second.number) == (1, 2)
    assert first.position == second.position == POSITION
    assert (outstanding.waiting, outstanding.batches, len(outstanding)) == (0, 2, 5)


def test_finishing_returns_each_reply_with_its_own_decision_in_any_order_of_batches() -> None:
    outstanding = holding(4)
    first, second = (outstanding.next_batch(2, POSITION) for _ in range(2))
    replies = outstanding.finish(BatchResult(second, (Nak(1.0), Ack()), "locked"))
    assert replies == (["reply-4"], [("reply-3", 1.0)])
    assert (len(outstanding), outstanding.batches) == (2, 1)
    assert outstanding.finish(acked(first)) == (["reply-1", "reply-2"], [])
    assert outstanding.finish(acked(first)) == ([], [])  # a second result acks nothing
    assert (len(outstanding), outstanding.batches, outstanding.capacity) == (0, 0, 100)


def test_removing_waiting_messages_leaves_dispatched_ones_outstanding() -> None:
    outstanding = holding(3)
    batch = outstanding.next_batch(1, POSITION)
    assert outstanding.remove_waiting() == ["reply-2", "reply-3"]
    assert outstanding.remove_waiting() == []
    assert (outstanding.waiting, len(outstanding)) == (0, 1)
    assert outstanding.finish(acked(batch)) == (["reply-1"], [])


def test_messages_without_replies_are_still_projected_and_never_acked() -> None:
    outstanding = holding(5)
    dispatched = outstanding.next_batch(2, POSITION)
    assert outstanding.forget_replies() == len(outstanding) == 5
    waiting = outstanding.next_batch(2, POSITION)
    assert sequences(waiting) == [3, 4]
    for batch in (dispatched, waiting):
        assert outstanding.finish(acked(batch)) == ([None, None], [])
    assert outstanding.remove_waiting() == []
    assert (len(outstanding), outstanding.batches, outstanding.waiting) == (1, 0, 1)


def test_messages_of_a_deleted_stream_share_no_batch_with_those_that_arrive_later() -> None:
    outstanding = holding(1)
    outstanding.forget_replies()
    outstanding.arrive(message(9), "reply-9", 9.0)
    deleted, present = (outstanding.next_batch(2, POSITION) for _ in range(2))
    assert (sequences(deleted), deleted.position) == ([1], None)
    assert (sequences(present), present.position) == ([9], POSITION)
    assert outstanding.finish(acked(deleted)) == ([None], [])
    assert outstanding.finish(acked(present)) == (["reply-9"], [])


def test_a_message_without_a_reply_waits_again_until_it_is_committed() -> None:
    outstanding = holding(2)
    batch = outstanding.next_batch(1, POSITION)
    outstanding.forget_replies()
    assert outstanding.finish(BatchResult(batch, (Nak(1.0),), "locked")) == ([], [])
    assert outstanding.remove_waiting() == []
    again = outstanding.next_batch(5, POSITION)
    assert sorted(sequences(again)) == [1, 2]
    assert outstanding.arrived == 3
    assert outstanding.finish(acked(again)) == ([None, None], [])
    assert len(outstanding) == 0


@pytest.mark.parametrize(("moment", "expected"), [(1.0, []), (4.0, [1, 2, 3]), (9.0, range(1, 6))])
def test_long_outstanding_messages_are_found_waiting_or_dispatched(
    moment: float, expected: list[int]
) -> None:
    outstanding = holding(5)
    outstanding.next_batch(2, POSITION)
    found = sorted(outstanding.arrived_before(moment))
    assert found == [f"reply-{number}" for number in expected]
    outstanding.forget_replies()
    assert list(outstanding.arrived_before(9.0)) == []


def test_the_oldest_message_is_found_waiting_or_dispatched() -> None:
    outstanding = OutstandingMessages(10)
    seen = [outstanding.oldest]
    for number, stored_at in enumerate((50, 30, 40)):
        outstanding.arrive(message(number, stored_at), f"reply-{number}", 0.0)
    for _ in range(2):
        outstanding.next_batch(2, POSITION)
        seen.append(outstanding.oldest)
    assert seen == [None, 30, 30]


def test_messages_that_come_back_wait_before_all_that_arrived_after_them() -> None:
    outstanding = holding(7)
    first, second = (outstanding.next_batch(3, POSITION) for _ in range(2))
    overtaking = BatchResult(second, (Wait(),) * 3, left=3)
    assert outstanding.finish(overtaking) == ([], [])
    replies = outstanding.finish(BatchResult(first, (Ack(), Wait(), Wait()), left=2))
    assert replies == (["reply-1"], [])
    assert (outstanding.has_returned, outstanding.waiting, len(outstanding)) == (True, 1, 6)
    outstanding.take_back()
    assert (outstanding.has_returned, outstanding.waiting, len(outstanding)) == (False, 6, 6)
    third = outstanding.next_batch(10, POSITION)
    assert sequences(third) == [2, 3, 4, 5, 6, 7]
    assert [batch.after for batch in (first, second, third)] == [0, 0, 2]
    assert outstanding.arrived == 7


def test_messages_that_came_back_are_outstanding_like_any_others() -> None:
    outstanding = holding(3)
    batch = outstanding.next_batch(2, POSITION)
    outstanding.finish(BatchResult(batch, (Wait(), Wait()), left=2))
    assert sorted(outstanding.arrived_before(10.0)) == ["reply-1", "reply-2", "reply-3"]
    assert outstanding.oldest == 0
    assert outstanding.remove_waiting() == ["reply-1", "reply-2", "reply-3"]
    assert (len(outstanding), outstanding.capacity) == (0, 100)


def test_messages_that_came_back_are_not_acked_once_their_replies_are_forgotten() -> None:
    outstanding = holding(1)
    outstanding.finish(BatchResult(outstanding.next_batch(1, POSITION), (Wait(),), left=1))
    assert outstanding.forget_replies() == 1
    outstanding.take_back()
    batch = outstanding.next_batch(1, POSITION)
    assert batch.position is None
    assert outstanding.finish(acked(batch)) == ([None], [])


def test_output_is_fetched_only_while_little_of_what_was_fetched_waits_to_be_written() -> None:
    outstanding = holding(5)
    batch = outstanding.next_batch(5, POSITION)
    fetches = tuple(Fetch("key", None, f"run-{number}") for number in range(5))
    assert outstanding.finish(BatchResult(batch, fetches, left=5)) == ([], [])
    for text in ("x" * (MOST_BYTES - 1), "x"):
        found = outstanding.next_incomplete()
        assert found is not None
        outstanding.complete(found[0], Output(text))
    assert outstanding.next_incomplete() is None
    outstanding.finish(acked(outstanding.next_batch(1, POSITION)))
    found = outstanding.next_incomplete()
    assert found is not None
    assert found[1] == message(3)
    assert outstanding.give_back(found[0]) == ["reply-3"]
    assert len(outstanding.remove_waiting()) == 3
    # What was removed needs no output.
    assert outstanding.next_incomplete() is None
    assert (len(outstanding), outstanding.capacity) == (0, 100)


def test_later_messages_of_a_run_wait_until_the_one_before_is_written() -> None:
    outstanding = holding(4)
    batch = outstanding.next_batch(3, POSITION)
    fetches = Fetch("key", None, "run"), Fetch(None, None, "run"), Fetch("key", None, "run")
    outstanding.finish(BatchResult(batch, fetches, left=3))
    for sequence in (1, 2, 3):
        found = outstanding.next_incomplete()
        assert found == (sequence, message(sequence), fetches[sequence - 1], sequence > 1)
        assert outstanding.next_incomplete() is None
        outstanding.complete(sequence, Output("text"))
        batch = outstanding.next_batch(1, POSITION)
        assert (sequences(batch), batch.fetching) == ([sequence], frozenset({"run"}))
        outstanding.finish(acked(batch))
    batch = outstanding.next_batch(1, POSITION)
    assert (sequences(batch), batch.fetching) == ([4], frozenset())


def test_what_waits_for_a_message_that_is_given_back_goes_on() -> None:
    outstanding = holding(2)
    batch = outstanding.next_batch(2, POSITION)
    fetches = Fetch("key", None, "run"), Fetch(None, None, "run")
    outstanding.finish(BatchResult(batch, fetches, left=2))
    assert outstanding.next_incomplete() == (1, message(1), fetches[0], False)
    assert outstanding.give_back(1) == ["reply-1"]
    assert outstanding.next_incomplete() == (2, message(2), fetches[1], True)


def test_a_message_that_cannot_be_given_back_is_fetched_again_as_at_its_next_delivery() -> None:
    outstanding, fetch = holding(1), Fetch("key", None)
    outstanding.finish(BatchResult(outstanding.next_batch(1, POSITION), (fetch,), left=1))
    assert outstanding.next_incomplete() == (1, message(1), fetch, False)
    outstanding.forget_replies()
    assert outstanding.give_back(1) == []
    assert (len(outstanding), outstanding.next_incomplete()) == (1, None)
    outstanding.fetch_again(1, fetch)
    assert outstanding.next_incomplete() == (1, message(1)._replace(delivery=2), fetch, False)
    # At a stop nothing else will write it.
    assert outstanding.remove_waiting() == []
    (written,) = outstanding.next_batch(1, POSITION).messages
    assert written.output == Output()
    outstanding.fetch_again(1, fetch)
    assert outstanding.next_incomplete() is None
