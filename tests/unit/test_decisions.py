import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.decisions import FIRST_DELAY, LONGEST_DELAY, Ack, Nak, nak_delay

deliveries = st.integers(-10, 10**9)
jitters = st.floats(0, 1)


def test_the_delay_doubles_with_each_delivery_up_to_the_longest() -> None:
    delays = [nak_delay(delivery, 0.0) for delivery in range(1, 10)]
    assert delays == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]


def test_jitter_takes_up_to_half_of_the_delay_away() -> None:
    assert [nak_delay(3, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 3.0, 2.0]


@settings(deadline=None)
@given(deliveries, jitters)
def test_every_delay_is_above_zero_and_bounded(delivery: int, jitter: float) -> None:
    assert FIRST_DELAY / 2 <= nak_delay(delivery, jitter) <= LONGEST_DELAY


@settings(deadline=None)
@given(deliveries, deliveries, jitters)
def test_more_deliveries_never_mean_a_shorter_delay(one: int, other: int, jitter: float) -> None:
    fewer, more = sorted((one, other))
    assert nak_delay(fewer, jitter) <= nak_delay(more, jitter)


def test_decisions_are_values() -> None:
    assert Ack() == Ack()
    assert Nak(1.0) == Nak(1.0) != Nak(2.0)
    with pytest.raises(AttributeError):
        Nak(1.0).delay = 2.0  # type: ignore[misc]
