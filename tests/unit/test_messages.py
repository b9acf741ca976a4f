import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant
from worker.messages import Delivery, read_delivery

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
def test_a_reply_subject_holds_the_delivery_count_the_sequences_and_the_exact_time(
    reply: str,
) -> None:
    assert read_delivery(reply) == DELIVERY


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
