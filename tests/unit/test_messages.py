import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant
from worker.messages import Delivery, read_delivery

TIME = 1_779_278_400_123_456_789
TOLD = Delivery(delivery=3, stream_sequence=4711, consumer_sequence=99, recorded_at=TIME)


@pytest.mark.parametrize(
    "reply",
    [
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"$JS.ACK._.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0.random",
        f"$JS.ACK.hub.ACCOUNT.EVENTS.consumer.3.4711.99.{TIME}.0.random.more",
    ],
    ids=["9 tokens", "11 tokens", "12 tokens", "13 tokens"],
)
def test_a_reply_subject_tells_delivery_sequence_and_the_exact_time(reply: str) -> None:
    assert read_delivery(reply) == TOLD


@pytest.mark.parametrize(
    "reply",
    [
        *("", ".", "........", "_INBOX.abc.1", "$JS.ACK", "$JS.API.CONSUMER.MSG.NEXT.a.b"),
        f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}",
        f"$JS.NAK.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0",
        f"$JS.ACK.EVENTS.consumer.x.4711.99.{TIME}.0",
        f"$JS.ACK.EVENTS.consumer.3..99.{TIME}.0",
        "$JS.ACK.EVENTS.consumer.3.4711.99.now.0",
        "$JS.ACK.EVENTS.consumer.3.4711.99..0",
        "$JS.ACK.EVENTS.consumer.3.4711.99.1779278400e9.0",
        "$JS.ACK.EVENTS.consumer.3.4711.99." + "9" * 5000 + ".0",
    ],
    ids=lambda reply: str(reply)[:40],
)
def test_a_subject_that_is_no_reply_of_a_consumer_tells_nothing(reply: str) -> None:
    assert read_delivery(reply) is None


def test_ten_tokens_are_neither_form_and_tell_nothing() -> None:
    assert read_delivery(f"$JS.ACK.EVENTS.consumer.3.4711.99.{TIME}.0.5") is None


@pytest.mark.parametrize(
    "sequence", ["-4711", "4_711", "+4711", " 4711", "\u0664", "47\n"], ids=ascii
)
def test_a_token_that_is_not_all_digits_is_no_number(sequence: str) -> None:
    assert read_delivery(f"$JS.ACK.EVENTS.consumer.3.{sequence}.99.{TIME}.0") is None


@pytest.mark.parametrize("time", [2**64 * 1000, -(2**64) * 1000])
def test_a_time_that_has_no_text_tells_nothing(time: int) -> None:
    assert read_delivery(f"$JS.ACK.EVENTS.consumer.3.4711.99.{time}.0") is None


@settings(deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from(["$JS", "ACK", "7", "-1", "x", "", "9" * 30]), max_size=14).map(
        ".".join
    )
)
def test_any_reply_is_read_or_tells_nothing_and_never_raises(reply: str) -> None:
    told = read_delivery(reply)
    assert told is None or format_instant(told.recorded_at)
