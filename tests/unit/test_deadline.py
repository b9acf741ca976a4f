import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant, parse_instant
from worker.projections.deadline import deadline

SECOND = 10**9
YEAR = 365 * 86_400 * SECOND
LARGEST_TIMEOUT = (2**64 - 1) * SECOND + SECOND - 1
NOW = parse_instant("2026-05-20T12:00:00.123456789Z")
LAST = parse_instant("9999-12-31T23:59:59.999999999Z")


@pytest.mark.parametrize(
    ("timeout", "span"),
    [
        *((0, 120), (1, 121), (20, 140), (239, 359), (240, 360), (242, 363), (360, 540)),
        *((3600, 90 * 60), (9000, 13_500), (86_400, 129_600)),
    ],
)
def test_the_slack_is_half_the_timeout_but_at_least_two_minutes(timeout: int, span: int) -> None:
    assert deadline(NOW, timeout * SECOND) == NOW + span * SECOND


def test_a_deadline_is_exact_to_the_nanosecond() -> None:
    assert format_instant(deadline(NOW, 20 * SECOND)) == "2026-05-20T12:02:20.123456789+00:00"
    assert deadline(NOW, 2) == NOW + 120 * SECOND + 2
    assert deadline(NOW, 240 * SECOND + 2) == NOW + 360 * SECOND + 3


@pytest.mark.parametrize(
    "timeout",
    [
        *(LARGEST_TIMEOUT, (2**64 - 1) * SECOND, 2**63 * SECOND, (2**64 - 1) * SECOND // 2),
        *((2**64 - 1) * SECOND * 2 // 3 + SECOND, 10_000 * YEAR, LAST - NOW),
    ],
)
def test_a_timeout_that_overflows_gives_365_days(timeout: int) -> None:
    assert deadline(NOW, timeout) == NOW + YEAR


def test_a_deadline_after_year_9999_becomes_365_days_or_the_last_instant_of_that_year() -> None:
    half = (LAST - NOW) // 3
    recorded_at = LAST - 3 * half
    assert deadline(recorded_at, 2 * half) == LAST
    assert deadline(recorded_at, 2 * half + 1) == recorded_at + YEAR
    assert deadline(LAST, 0) == deadline(LAST - 120 * SECOND, 0) == LAST
    assert deadline(LAST - YEAR, LARGEST_TIMEOUT) == LAST
    assert deadline(LAST - YEAR + 1, LARGEST_TIMEOUT) == LAST


@given(st.integers(0, (LAST - NOW) // 2), st.integers(0, (LAST - NOW) // 2))
def test_a_longer_timeout_never_has_an_earlier_deadline(one: int, other: int) -> None:
    earlier, later = (deadline(NOW, timeout) for timeout in sorted((one, other)))
    assert NOW + 120 * SECOND <= earlier <= later <= LAST


@given(st.integers(0, LARGEST_TIMEOUT), st.integers(0, LAST))
def test_every_timeout_gives_a_deadline_that_can_be_stored(timeout: int, recorded_at: int) -> None:
    instant = deadline(recorded_at, timeout)
    assert format_instant(instant) >= format_instant(recorded_at)
    assert instant - recorded_at >= 120 * SECOND or recorded_at > LAST - YEAR
