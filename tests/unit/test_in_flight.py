from worker.decisions import Ack, Decision, Nak
from worker.jetstream.outstanding import MOST_BYTES, OutstandingMessages
from worker.messages import Batch, Decisions, Message, Position

HERE = Position("2026-05-20T00:00:00+00:00", 0)


def message(number: int) -> Message:
    return Message("events.started.e.p", b"{}", number, 1, 0)


def holding(messages: int, *, limit: int = 100) -> OutstandingMessages:
    in_flight = OutstandingMessages(limit)
    for number in range(1, messages + 1):
        in_flight.arrive(message(number), f"reply-{number}", float(number))
    return in_flight


def sequences(batch: Batch) -> list[int]:
    return [message.stream_sequence for message in batch.messages]


def acks(batch: Batch) -> Decisions:
    return Decisions(batch, (Ack(),) * len(batch.messages))


def test_there_is_room_for_the_limit_less_what_waits_and_what_has_begun() -> None:
    in_flight = holding(5, limit=8)
    assert (len(in_flight), in_flight.room) == (5, 3)
    in_flight.begin(2, HERE)
    assert (len(in_flight), in_flight.room, in_flight.waiting) == (5, 3, 3)


def test_room_is_never_negative_when_more_arrives_than_was_asked_for() -> None:
    in_flight = holding(12, limit=8)
    assert (len(in_flight), in_flight.room) == (12, 0)


def test_large_messages_leave_no_room_before_the_limit_until_they_are_gone() -> None:
    in_flight = OutstandingMessages(100)
    large = Message("events.started.e.p", b"x" * (MOST_BYTES // 4), 1, 1, 0)
    for number in range(4):
        assert in_flight.room == 100 - number
        in_flight.arrive(large, f"reply-{number}", 0.0)
    assert in_flight.room == 0
    in_flight.settle(acks(in_flight.begin(1, HERE)))
    assert in_flight.room == 97
    in_flight.give_up_waiting()
    for number in range(3):
        in_flight.arrive(large, f"reply-{number}", 0.0)
    assert in_flight.room == 97


def test_a_batch_takes_what_waits_in_the_order_of_arrival_up_to_the_most() -> None:
    in_flight = holding(5)
    first, second = in_flight.begin(3, HERE), in_flight.begin(3, HERE)
    assert (sequences(first), sequences(second)) == ([1, 2, 3], [4, 5])
    assert first.number != second.number
    assert (in_flight.waiting, in_flight.batches, len(in_flight)) == (0, 2, 5)


def test_settling_gives_each_reply_its_own_decision_whichever_batch_comes_first() -> None:
    in_flight = holding(4)
    first, second = in_flight.begin(2, HERE), in_flight.begin(2, HERE)
    decisions: tuple[Decision, ...] = (Nak(1.0), Ack())
    assert list(in_flight.settle(Decisions(second, decisions))) == [
        ("reply-3", Nak(1.0)),
        ("reply-4", Ack()),
    ]
    assert (len(in_flight), in_flight.batches) == (2, 1)
    assert list(in_flight.settle(acks(first))) == [("reply-1", Ack()), ("reply-2", Ack())]
    assert (len(in_flight), in_flight.batches, in_flight.room) == (0, 0, 100)


def test_a_batch_is_settled_once() -> None:
    in_flight = holding(2)
    batch = in_flight.begin(2, HERE)
    assert len(list(in_flight.settle(acks(batch)))) == 2
    assert list(in_flight.settle(acks(batch))) == []
    assert len(in_flight) == 0


def test_settling_frees_the_room_even_if_nobody_reads_the_replies() -> None:
    in_flight = holding(2, limit=2)
    in_flight.settle(acks(in_flight.begin(2, HERE)))
    assert in_flight.room == 2


def test_what_is_given_up_waits_no_more_and_what_has_begun_stays() -> None:
    in_flight = holding(3)
    batch = in_flight.begin(1, HERE)
    assert in_flight.give_up_waiting() == ["reply-2", "reply-3"]
    assert in_flight.give_up_waiting() == []
    assert (in_flight.waiting, len(in_flight)) == (0, 1)
    assert list(in_flight.settle(acks(batch))) == [("reply-1", Ack())]


def test_forgetting_the_replies_keeps_the_messages_and_settles_none_of_them() -> None:
    in_flight = holding(5)
    begun = in_flight.begin(2, HERE)
    assert in_flight.forget_replies() == len(in_flight) == 5
    waiting = in_flight.begin(2, HERE)
    assert [message.stream_sequence for message in waiting.messages] == [3, 4]
    assert in_flight.settle(acks(begun)) == in_flight.settle(acks(waiting)) == []
    assert in_flight.give_up_waiting() == []
    assert (len(in_flight), in_flight.batches, in_flight.waiting) == (1, 0, 1)


def test_what_arrives_after_the_replies_were_forgotten_is_settled() -> None:
    in_flight = holding(1)
    in_flight.forget_replies()
    in_flight.arrive(message(9), "reply-9", 9.0)
    late, present = in_flight.begin(2, HERE), in_flight.begin(2, HERE)
    assert (sequences(late), late.position) == ([1], None)
    assert (sequences(present), present.position) == ([9], HERE)
    assert in_flight.settle(acks(late)) == []
    assert in_flight.settle(acks(present)) == [("reply-9", Ack())]


def test_what_was_forgotten_stays_in_hand_until_it_is_committed() -> None:
    in_flight = holding(2)
    begun = in_flight.begin(1, HERE)
    in_flight.forget_replies()
    assert in_flight.settle(Decisions(begun, (Nak(1.0),))) == []
    assert in_flight.give_up_waiting() == []
    again = in_flight.begin(5, HERE)
    assert sorted(sequences(again)) == [1, 2]
    assert in_flight.settle(acks(again)) == []
    assert len(in_flight) == 0


def test_what_is_in_hand_for_long_is_known_whether_it_waits_or_has_begun() -> None:
    in_flight = holding(5)
    in_flight.begin(2, HERE)
    assert sorted(in_flight.arrived_before(4.0)) == ["reply-1", "reply-2", "reply-3"]
    assert list(in_flight.arrived_before(1.0)) == []
    in_flight.forget_replies()
    assert list(in_flight.arrived_before(9.0)) == []


def test_a_batch_that_is_not_known_settles_nothing() -> None:
    in_flight = holding(1)
    batch = in_flight.begin(1, HERE)
    in_flight.settle(acks(batch))
    assert in_flight.settle(acks(batch)) == []
    assert len(in_flight) == 0
