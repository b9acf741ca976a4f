import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant
from worker.messages import (
    FIRST_NAK_DELAY,
    LONGEST_NAK_DELAY,
    Ack,
    Delivery,
    Nak,
    nak_delay,
    read_delivery,
    read_pending,
)

TIME = 1_779_278_400_123_456_789
DELIVERY = Delivery(delivery=3, stream_sequence=4711, consumer_sequence=99, stored_at=TIME)
NOT_A_SEQUENCE = ["", "x", "-4711", "4_711", "+4711", " 4711", "\u0664", "47\n"]
NOT_A_TIME = ["", "now", "1779278400e9", "9" * 5000, 2**64 * 1000, -(2**64) * 1000]

tokens = st.sampled_from(["$JS", "ACK", "7", "-1", "x", "", "9" * 30])


@pytest.mark.parametrize(
    "reply",
    [
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"$JS.ACK._.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0.random",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0.random.more",
    ],
)
def test_a_reply_subject_holds_delivery_count_sequences_and_the_exact_time(reply: str) -> None:
    assert read_delivery(reply) == DELIVERY


@pytest.mark.parametrize(
    "reply",
    [
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.12",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.12.random",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.12.random.more",
    ],
)
def test_a_reply_subject_holds_how_many_messages_are_left(reply: str) -> None:
    assert read_pending(reply) == 12


@pytest.mark.parametrize(
    "reply",
    [
        *("", ".", "........", "_INBOX.abc.1", "$JS.ACK", "$JS.API.CONSUMER.MSG.NEXT.a.b"),
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}",
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0.ten-tokens",
        f"$JS.NAK.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0",
        *(f"$JS.ACK.EVENTS.consumer.3.{sequence}.99.{TIME}.0" for sequence in NOT_A_SEQUENCE),
        *(f"$JS.ACK.EVENTS.consumer.3.4711.99.{time}.0" for time in NOT_A_TIME),
    ],
    ids=lambda reply: ascii(reply)[:60],
)
def test_any_other_subject_returns_none(reply: str) -> None:
    assert read_delivery(reply) is None


@given(st.text() | st.lists(tokens, max_size=14).map(".".join))
def test_reading_a_reply_subject_never_raises(reply: str) -> None:
    delivery = read_delivery(reply)
    assert delivery is None or format_instant(delivery.stored_at)


def test_the_delay_doubles_with_each_delivery_up_to_60_seconds() -> None:
    delays = [nak_delay(delivery, 0.0) for delivery in range(1, 10)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_jitter_shortens_the_delay_by_up_to_half() -> None:
    assert [nak_delay(3, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 3.0, 2.0]


@given(st.integers(-10, 10**9), st.integers(-10, 10**9), st.floats(0, 1))
def test_a_delay_is_bounded_and_never_shrinks(one: int, other: int, jitter: float) -> None:
    shorter, longer = (nak_delay(delivery, jitter) for delivery in sorted((one, other)))
    assert FIRST_NAK_DELAY / 2 <= shorter <= longer <= LONGEST_NAK_DELAY


def test_decisions_are_immutable_values() -> None:
    assert Ack() == Ack()
    assert Nak(1.0) == Nak(1.0) != Nak(2.0)
    with pytest.raises(AttributeError):
        Nak(1.0).delay = 2.0  # type: ignore[misc]
