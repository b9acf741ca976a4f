import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.messages import FIRST_NAK_DELAY, LONGEST_NAK_DELAY, Ack, Nak, nak_delay


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
