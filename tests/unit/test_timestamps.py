import re
from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from worker.codec.timestamps import (
    format_instant,
    is_representable,
    parse_instant,
    parse_stored,
    to_stored,
)

SECOND = 10**9
DAY = 86_400 * SECOND
STORED = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.(\d{3}|\d{6}|\d{9}))?\+00:00", re.ASCII)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
FIRST = ((datetime(1, 1, 1, tzinfo=UTC) - EPOCH).days - 366) * DAY
LAST = ((datetime(9999, 12, 31, tzinfo=UTC) - EPOCH).days + 1) * DAY - 1

whole_seconds = st.integers(FIRST // SECOND, LAST // SECOND).map(lambda second: second * SECOND)
instants = st.integers(FIRST, LAST) | st.integers(0, 10**12) | whole_seconds
offsets = st.integers(-1439, 1439).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@pytest.mark.parametrize(
    ("fraction", "stored"),
    [
        *(("", ""), (".1", ".100"), (".12", ".120"), (".123", ".123"), (".1234", ".123400")),
        *((".12345", ".123450"), (".123456", ".123456"), (".000000000", ""), (".0", "")),
        *((".1234567", ".123456700"), (".12345678", ".123456780"), (".123456789", ".123456789")),
        *((".000000001", ".000000001"), (".000001", ".000001"), (".001000000", ".001")),
    ],
)
def test_a_fraction_is_stored_in_the_shortest_exact_form(fraction: str, stored: str) -> None:
    instant = parse_instant(f"2026-05-20T12:00:00{fraction}Z")
    assert format_instant(instant) == f"2026-05-20T12:00:00{stored}+00:00"


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("2026-05-20T06:30:00.5-05:30", "2026-05-20T12:00:00.500+00:00"),
        ("2026-05-20T12:00:00-00:00", "2026-05-20T12:00:00+00:00"),
        ("2024-02-28T23:30:00-00:45", "2024-02-29T00:15:00+00:00"),
        ("2026-05-20T12:00:00+23:59", "2026-05-19T12:01:00+00:00"),
        ("2026-05-20T12:00:00-23:59", "2026-05-21T11:59:00+00:00"),
        ("2026-05-20 12:00:00.5Z", "2026-05-20T12:00:00.500+00:00"),
        ("2026-05-20 13:00:00+01:00", "2026-05-20T12:00:00+00:00"),
        ("2026-05-20t12:00:00.5z", "2026-05-20T12:00:00.500+00:00"),
        # A leap second is read as the second after it.
        ("2016-12-31T23:59:60Z", "2017-01-01T00:00:00+00:00"),
        ("2016-12-31T23:59:60.5Z", "2017-01-01T00:00:00.500+00:00"),
        ("2017-01-01T00:59:60+01:00", "2017-01-01T00:00:00+00:00"),
        ("1990-12-31T15:59:60-08:00", "1991-01-01T00:00:00+00:00"),
    ],
)
def test_any_offset_and_leap_second_is_converted_to_utc(text: str, stored: str) -> None:
    assert format_instant(parse_instant(text)) == stored


@pytest.mark.parametrize(
    ("instant", "text"),
    [
        (1_779_278_400_123_456_789, "2026-05-20T12:00:00.123456789+00:00"),
        (0, "1970-01-01T00:00:00+00:00"),
        (-1, "1969-12-31T23:59:59.999999999+00:00"),
        (FIRST, "0000-01-01T00:00:00+00:00"),
        (LAST, "9999-12-31T23:59:59.999999999+00:00"),
        (FIRST + 59 * DAY, "0000-02-29T00:00:00+00:00"),
        (FIRST + 366 * DAY - 1, "0000-12-31T23:59:59.999999999+00:00"),
        (FIRST + 366 * DAY, "0001-01-01T00:00:00+00:00"),
    ],
)
def test_nanoseconds_are_exact_from_year_0000_to_year_9999(instant: int, text: str) -> None:
    assert is_representable(instant)
    assert format_instant(instant) == text
    assert parse_instant(text) == parse_stored(text) == instant


@pytest.mark.parametrize(
    "text",
    [
        *("2026-05-20T12:00:60Z", "2016-12-31T23:59:60+01:00", "9999-12-31T23:59:60Z"),
        *("2016-12-31T23:59:61Z", "2026-05-20T24:00:00Z", "2026-05-20T12:60:00Z"),
        *("2026-00-01T00:00:00Z", "2026-13-01T00:00:00Z", "2026-01-00T00:00:00Z"),
        *("2026-04-31T00:00:00Z", "2026-02-29T00:00:00Z", "1900-02-29T00:00:00Z"),
        *("2026-05-20T12:00:00+24:00", "2026-05-20T12:00:00+00:60", "2026-05-20T12:00:00-99:00"),
        *("0000-01-01T00:30:00+01:00", "9999-12-31T23:30:00-01:00"),
        *("", "\n", "now", "2026-05-20", "12:00:00Z", "1779278400", "2026-05-20T12:00:00"),
        *("2026-05-20  12:00:00Z", "2026-05-20\u00a012:00:00Z", "2026-05-2012:00:00Z"),
        *("2026-05-20\t12:00:00Z", "2026-05-20_12:00:00Z", "2026-05-20T12:00Z", "20260520T120000Z"),
        *("2026-05-20T12:00:00.Z", "2026-05-20T12:00:00,5Z", "2026-05-20T12:00:00.1234567890Z"),
        *("2026-05-20T12:00:00+0200", "2026-05-20T12:00:00+02", "2026-05-20T12:00:00 +02:00"),
        *("2026-05-20T12:00:00Z\n", " 2026-05-20T12:00:00Z", "2026-05-20T12:00:00Z "),
        *("2026-05-20T12:00:00Z\x00", "2026-05-20T12:00:00ZZ", "2026-05-20T12:00:00UTC"),
        *("26-05-20T12:00:00Z", "12026-05-20T12:00:00Z", "+2026-05-20T12:00:00Z"),
        *("-001-05-20T12:00:00Z", "2026-5-20T12:00:00Z", "2026-05-20T12:00:00.+1Z"),
        *("\u0662026-05-20T12:00:00Z", "2026-05-20T12:00:0\uff10Z", "2026-05-20T12:00:00.\u0661Z"),
        *("2026\u221205\u221220T12:00:00Z", "2026-05-20T12:00:00\u221202:00"),
    ],
    ids=ascii,
)
def test_text_that_is_out_of_range_or_not_in_rfc_3339_form_is_rejected(text: str) -> None:
    with pytest.raises(ValueError):
        parse_instant(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "2026-05-20T12:00:01Z", "2026-05-20t12:00:01+00:00", "2026-05-20T12:00:01-00:00"),
        *("2026-05-20T13:00:01+01:00", "2026-05-20T12:00:01.1+00:00", "2026-05-20 12:00:01+00:00"),
        *("2026-05-20T12:00:01.000+00:00", "2026-05-20T23:59:60+00:00"),
    ],
)
def test_only_the_stored_form_is_parsed_as_stored_text(text: str) -> None:
    with pytest.raises(ValueError, match="form"):
        parse_stored(text)


@pytest.mark.parametrize("instant", [FIRST - 1, LAST + 1, 2**70, -(2**70)])
def test_an_instant_outside_the_years_0000_to_9999_has_no_text(instant: int) -> None:
    assert not is_representable(instant)
    with pytest.raises(ValueError):
        format_instant(instant)


@given(instants)
def test_every_stored_text_has_the_shortest_exact_fraction_and_parses_back(instant: int) -> None:
    text = format_instant(instant)
    assert STORED.fullmatch(text)
    assert parse_instant(text) == parse_stored(text) == instant
    fraction = text.partition("+")[0].partition(".")[2]
    shortest = min(digits for digits in (0, 3, 6, 9) if instant % SECOND % 10 ** (9 - digits) == 0)
    assert len(fraction) == shortest


@given(instants, instants, st.integers(-2, 2) | st.integers(-SECOND, SECOND))
def test_stored_texts_sort_as_their_times(one: int, other: int, near: int) -> None:
    for second in (other, min(max(one + near, FIRST), LAST)):
        assert (format_instant(one) < format_instant(second)) == (one < second)


@given(st.datetimes(timezones=offsets).filter(lambda when: when.year < 9999))
def test_the_calendar_matches_the_standard_library(when: datetime) -> None:
    assert parse_instant(when.isoformat()) == parse_instant(when.isoformat(" "))
    assert parse_instant(when.isoformat()) == (when - EPOCH) // timedelta(microseconds=1) * 1000


@settings(max_examples=200)
@given(st.text() | st.from_regex(r"\A[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{8,20}[Zz+-]?.*\Z"))
def test_any_text_is_parsed_or_raises_value_error(text: str) -> None:
    try:
        instant = parse_instant(text)
    except ValueError:
        return
    assert STORED.fullmatch(format_instant(instant))


@given(st.integers(FIRST, LAST), st.sampled_from(["Z", "z", "+00:00", "-00:30"]))
@example(parse_instant("2016-12-31T23:59:60.123456789Z"), "Z")
@example(parse_instant("2026-05-20T12:00:00.123456Z"), "Z")
def test_the_stored_text_of_a_text_is_that_of_its_instant(instant: int, offset: str) -> None:
    seconds = format_instant(instant // 10**9 * 10**9).removesuffix("+00:00")
    for fraction in (f".{instant % 10**9:09}", f".{instant % 10**6:06}", ""):
        text = f"{seconds}{fraction}{offset}"
        with suppress(ValueError):  # an offset may lead out of the years 0000 to 9999
            assert to_stored(text) == format_instant(parse_instant(text))


@given(st.from_regex(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}.[0-9]{9}Z"))
@example("2026-02-30T12:00:00.123456789Z")
@example("2026-05-20T12:00:60.123456789Z")
@example("2026-05-20T12:00:00.12345678\u0669Z")
def test_text_has_a_stored_text_exactly_if_it_is_an_instant(text: str) -> None:
    try:
        expected = format_instant(parse_instant(text))
    except ValueError as error:
        with pytest.raises(ValueError, match=re.escape(str(error))):
            to_stored(text)
    else:
        assert to_stored(text) == expected
