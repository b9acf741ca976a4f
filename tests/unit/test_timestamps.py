import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.codec.timestamps import format_instant, is_representable, parse_instant, parse_stored

SECOND = 10**9
STORED = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}"
    r"(\.[0-9]{3}|\.[0-9]{6}|\.[0-9]{9})?\+00:00"
)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = (
    int((datetime(1, 1, 1, tzinfo=UTC) - EPOCH).total_seconds()) * SECOND - 366 * 86_400 * SECOND
)
LAST = (
    int((datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC) - EPOCH).total_seconds() + 1) * SECOND - 1
)

instants = (
    st.integers(FIRST, LAST)
    | st.integers(0, 10**12)
    | st.integers(FIRST, LAST).map(lambda instant: max(FIRST, instant // SECOND * SECOND))
)


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2026-05-20T12:00:00Z", "2026-05-20T12:00:00+00:00"),
        ("2026-05-20T12:00:00.1Z", "2026-05-20T12:00:00.100+00:00"),
        ("2026-05-20T12:00:00.12Z", "2026-05-20T12:00:00.120+00:00"),
        ("2026-05-20T12:00:00.123Z", "2026-05-20T12:00:00.123+00:00"),
        ("2026-05-20T12:00:00.1234Z", "2026-05-20T12:00:00.123400+00:00"),
        ("2026-05-20T12:00:00.12345Z", "2026-05-20T12:00:00.123450+00:00"),
        ("2026-05-20T12:00:00.123456Z", "2026-05-20T12:00:00.123456+00:00"),
        ("2026-05-20T12:00:00.1234567Z", "2026-05-20T12:00:00.123456700+00:00"),
        ("2026-05-20T12:00:00.12345678Z", "2026-05-20T12:00:00.123456780+00:00"),
        ("2026-05-20T12:00:00.123456789Z", "2026-05-20T12:00:00.123456789+00:00"),
        ("2026-05-20T12:00:00.000000001Z", "2026-05-20T12:00:00.000000001+00:00"),
        ("2026-05-20T12:00:00.000001Z", "2026-05-20T12:00:00.000001+00:00"),
        ("2026-05-20T12:00:00.001000000Z", "2026-05-20T12:00:00.001+00:00"),
        ("2026-05-20T12:00:00.000000000Z", "2026-05-20T12:00:00+00:00"),
    ],
)
def test_zero_to_nine_digits_are_stored_with_the_shortest_exact_fraction(
    text: str, stored: str
) -> None:
    assert format_instant(parse_instant(text)) == stored


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2026-05-20T14:00:00+02:00", "2026-05-20T12:00:00+00:00"),
        ("2026-05-20T06:30:00.5-05:30", "2026-05-20T12:00:00.500+00:00"),
        ("2026-05-20T12:00:00+00:00", "2026-05-20T12:00:00+00:00"),
        ("2026-05-20T12:00:00-00:00", "2026-05-20T12:00:00+00:00"),
        ("2026-01-01T00:30:00+01:00", "2025-12-31T23:30:00+00:00"),
        ("2024-02-28T23:30:00-00:45", "2024-02-29T00:15:00+00:00"),
        ("2026-05-20T12:00:00+23:59", "2026-05-19T12:01:00+00:00"),
        ("2026-05-20T12:00:00-23:59", "2026-05-21T11:59:00+00:00"),
        ("1969-12-31T23:59:59.999999999Z", "1969-12-31T23:59:59.999999999+00:00"),
    ],
)
def test_any_offset_is_taken_and_stored_as_utc(text: str, stored: str) -> None:
    assert format_instant(parse_instant(text)) == stored


def test_nanoseconds_are_exact_in_both_directions() -> None:
    assert parse_instant("2026-05-20T12:00:00.123456789Z") == 1_779_278_400_123_456_789
    assert format_instant(1_779_278_400_123_456_789) == "2026-05-20T12:00:00.123456789+00:00"
    assert parse_instant("1970-01-01T00:00:00Z") == 0
    assert format_instant(-1) == "1969-12-31T23:59:59.999999999+00:00"


def test_t_and_z_may_be_lowercase() -> None:
    assert parse_instant("2026-05-20t12:00:00.5z") == parse_instant("2026-05-20T12:00:00.5Z")


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500+00:00"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00+00:00"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00+00:00"),
    ],
)
def test_a_leap_second_is_an_instant(text: str, stored: str) -> None:
    assert format_instant(parse_instant(text)) == stored


@pytest.mark.parametrize(
    "text",
    [
        *("2026-05-20T12:00:60Z", "2016-12-31T23:59:60+01:00", "9999-12-31T23:59:60Z"),
        *("2016-12-31T23:59:61Z", "2026-05-20T24:00:00Z", "2026-05-20T12:60:00Z"),
        *("2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-00T00:00:00Z"),
        *("2026-04-31T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z"),
        *("2026-05-20T12:00:00+24:00", "2026-05-20T12:00:00+00:60", "2026-05-20T12:00:00-99:00"),
        *("0000-01-01T00:30:00+01:00", "9999-12-31T23:30:00-01:00"),
    ],
)
def test_a_value_out_of_range_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "2026-05-20", "12:00:00Z", "1779278400", "2026-05-20T12:00:00"),
        *("2026-05-20 12:00:00Z", "2026-05-20_12:00:00Z", "2026-05-20T12:00Z", "20260520T120000Z"),
        *("2026-05-20T12:00:00.Z", "2026-05-20T12:00:00,5Z", "2026-05-20T12:00:00.1234567890Z"),
        *("2026-05-20T12:00:00+0200", "2026-05-20T12:00:00+02", "2026-05-20T12:00:00 +02:00"),
        *("2026-05-20T12:00:00Z\n", " 2026-05-20T12:00:00Z", "2026-05-20T12:00:00Z ", "\n"),
        *("2026-05-20T12:00:00Z\x00", "2026-05-20T12:00:00ZZ", "2026-05-20T12:00:00UTC"),
        *("26-05-20T12:00:00Z", "12026-05-20T12:00:00Z", "+2026-05-20T12:00:00Z"),
        *("-001-05-20T12:00:00Z", "2026-5-20T12:00:00Z", "2026-05-20T12:00:00.+1Z"),
        *("\u0662026-05-20T12:00:00Z", "2026-05-20T12:00:0\uff10Z", "2026-05-20T12:00:00.\u0661Z"),
        *("2026\u221205\u221220T12:00:00Z", "2026-05-20T12:00:00\u221202:00"),
    ],
)
def test_a_text_of_another_form_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_instant(text)


@pytest.mark.parametrize("text", ["0000-01-01T00:00:00", "9999-12-31T23:59:59.999999999"])
def test_the_years_0000_and_9999_are_whole(text: str) -> None:
    assert format_instant(parse_instant(text + "Z")) == text + "+00:00"


def test_year_0000_is_a_leap_year_and_is_followed_by_year_0001() -> None:
    assert format_instant(parse_instant("0000-02-29T12:00:00Z")) == "0000-02-29T12:00:00+00:00"
    last = parse_instant("0000-12-31T23:59:59.999999999Z")
    assert format_instant(last + 1) == "0001-01-01T00:00:00+00:00"


def test_beyond_year_9999_and_before_year_0000_no_instant_has_a_text() -> None:
    assert is_representable(FIRST)
    assert is_representable(LAST)
    for instant in (FIRST - 1, LAST + 1, 2**70, -(2**70)):
        assert not is_representable(instant)
        with pytest.raises(ValueError):
            format_instant(instant)


@settings(deadline=None)
@given(instants)
def test_every_text_has_the_stored_form_and_reads_back_exactly(instant: int) -> None:
    text = format_instant(instant)
    assert STORED.fullmatch(text)
    assert parse_instant(text) == instant


@settings(deadline=None)
@given(instants)
def test_no_shorter_fraction_would_be_exact(instant: int) -> None:
    fraction = format_instant(instant).partition("+")[0].partition(".")[2]
    wanted = min(digits for digits in (0, 3, 6, 9) if instant % SECOND % 10 ** (9 - digits) == 0)
    assert len(fraction) == wanted


@settings(deadline=None)
@given(instants, instants, st.integers(-2, 2) | st.integers(-SECOND, SECOND))
def test_the_order_of_texts_is_the_order_of_times(one: int, other: int, near: int) -> None:
    for second in (other, min(max(one + near, FIRST), LAST)):
        assert (format_instant(one) < format_instant(second)) == (one < second)


@settings(deadline=None)
@given(
    st.datetimes(datetime(2, 1, 1), datetime(9998, 12, 31)),  # noqa: DTZ001
    st.integers(-1439, 1439),
)
def test_the_calendar_is_that_of_the_standard_library(naive: datetime, offset: int) -> None:
    sign, minutes = "-" if offset < 0 else "+", abs(offset)
    text = f"{naive.isoformat()}{sign}{minutes // 60:02}:{minutes % 60:02}"
    utc = naive.replace(tzinfo=UTC) - timedelta(minutes=offset)
    assert parse_instant(text) == (utc - EPOCH) // timedelta(microseconds=1) * 1000


@settings(deadline=None, max_examples=200)
@given(st.text() | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,20}[Zz+-]?.*\Z"))
def test_any_text_is_an_instant_or_raises_a_value_error_and_nothing_else(text: str) -> None:
    try:
        instant = parse_instant(text)
    except ValueError:
        return
    assert STORED.fullmatch(format_instant(instant))


@given(instants)
def test_a_stored_text_is_read_back_exactly(instant: int) -> None:
    assert parse_stored(format_instant(instant)) == instant


@pytest.mark.parametrize(
    "text",
    [
        "2026-05-20T12:00:01Z",
        "2026-05-20t12:00:01+00:00",
        "2026-05-20T12:00:01-00:00",
        "2026-05-20T13:00:01+01:00",
        "2026-05-20T12:00:01.1+00:00",
        "2026-05-20T12:00:01.000+00:00",
        "2026-05-20T23:59:60+00:00",
        "2026-05-20 12:00:01+00:00",
        "",
    ],
)
def test_no_other_text_of_an_instant_is_a_stored_one(text: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parse_stored(text)
