"""Duration text. The table of units is copied by hand from the contract."""

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worker.codec.durations import parse_duration

SECOND = 10**9
LARGEST = 2**64 - 1

TABLE = {
    "ns nsec nanos": Fraction(1, 10**9),
    "us usec \u00b5s": Fraction(1, 10**6),
    "ms msec millis": Fraction(1, 10**3),
    "s sec secs second seconds": Fraction(1),
    "m min mins minute minutes": Fraction(60),
    "h hr hrs hour hours": Fraction(3600),
    "d day days": Fraction(86_400),
    "w wk wks week weeks": Fraction(604_800),
    "M month months": Fraction(2_630_016),
    "y yr yrs year years": Fraction(31_557_600),
}
UNITS = {spelling: length for row, length in TABLE.items() for spelling in row.split()}
SHORT = [unit for unit, length in UNITS.items() if length <= 60 and not unit.startswith("n")]
LONG = [unit for unit, length in UNITS.items() if length > 60]

units = st.sampled_from(sorted(UNITS))
spaces = st.text(" ", max_size=3)


def nanoseconds(number: int, unit: str) -> int:
    return int(number * UNITS[unit] * SECOND)


@pytest.mark.parametrize("unit", UNITS)
def test_every_spelling_has_the_length_of_the_table(unit: str) -> None:
    assert parse_duration(f"7{unit}") == int(7 * UNITS[unit] * SECOND)


@pytest.mark.parametrize("unit", UNITS)
def test_the_spellings_of_the_table_are_all_there_are(unit: str) -> None:
    for wrong in (unit.upper(), unit.capitalize(), unit + "x", unit + "ss", "x" + unit):
        if wrong not in UNITS:
            with pytest.raises(ValueError):
                parse_duration(f"1{wrong}")


def test_case_tells_a_minute_from_a_month() -> None:
    assert parse_duration("1m") == 60 * SECOND
    assert parse_duration("1M") == 2_630_016 * SECOND


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30s", 30),
        ("60s", 60),
        ("300s", 300),
        ("1h", 3600),
        ("2h 30m", 9000),
        ("2h30m", 9000),
        ("1h1h", 7200),
        ("30m 2h", 9000),
        ("1y1M1w1d1h1m1s", 31_557_600 + 2_630_016 + 604_800 + 86_400 + 3600 + 60 + 1),
    ],
)
def test_terms_are_added_up_whether_they_touch_or_not(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds * SECOND


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("  30s", 30),
        ("30s  ", 30),
        ("30  s", 30),
        ("1h   30m", 5400),
        (" 1 h 30 m ", 5400),
        ("1 0s", 10),
        ("1 2 3 s", 123),
        ("1h 1 0 m", 4200),
    ],
)
def test_spaces_are_allowed_around_terms_before_units_and_inside_numbers(
    text: str, seconds: int
) -> None:
    assert parse_duration(text) == seconds * SECOND


@pytest.mark.parametrize("text", ["1 h r", "1h o u r", "1m s", "1s ec", "1\u00b5 s"])
def test_a_space_inside_a_unit_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_zero_alone_is_zero() -> None:
    assert parse_duration("0") == 0


@pytest.mark.parametrize("unit", UNITS)
def test_zero_of_every_unit_is_zero(unit: str) -> None:
    assert parse_duration(f"0{unit}") == 0


@pytest.mark.parametrize("text", ["1", "00", "0.0", "10", "1h 30", "30 1h 5", "0 0", "1h 0"])
def test_any_other_number_without_a_unit_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("text", ["", " ", "   ", "\t"])
def test_the_empty_text_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    "text",
    [
        *("s", "h30m", "-1s", "+1s", "1h-30m", "1h,30m", "1h and 30m", "1h;", "never", "PT1H"),
        *("1e3s", "1_000s", "0x10s", "1,5h", "1:30", "1s\x00", "\ufeff1s"),
        *("\u0661s", "\uff11s", "\u00b2s", "1\u03bcs", "1\uff53", "\u00bds"),
    ],
)
def test_what_is_no_term_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1.5h", 5400 * SECOND),
        ("0.2s", SECOND // 5),
        ("0.5m", 30 * SECOND),
        ("0.25ms", 250_000),
        ("0.001us", 1),
        ("0.000000001s", 1),
        ("1.123456789s", 1_123_456_789),
        ("0.5d", 43_200 * SECOND),
        ("1.5h 0.5s", 5400 * SECOND + SECOND // 2),
        ("1.5h30m", 7200 * SECOND),
        ("0.5y", 15_778_800 * SECOND),
        ("0.125M", 328_752 * SECOND),
        ("01.50h", 5400 * SECOND),
        ("1.5 h", 5400 * SECOND),
        ("0.0000000010000s", 1),
    ],
)
def test_a_fraction_that_comes_out_whole_is_taken(text: str, value: int) -> None:
    assert parse_duration(text) == value


@pytest.mark.parametrize(
    "text",
    [
        *("0.0000000001s", "0.0001us", "1.1234567891s", "0.00000000001m"),
        *("0.0001h", "0.00001d", "0.1M", "0.000001w", "0.00000001y", "1.00005h"),
    ],
)
def test_a_fraction_that_does_not_come_out_whole_is_an_error(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("unit", ["ns", "nsec", "nanos"])
@pytest.mark.parametrize("number", ["1.5", "0.5", "1.0"])
def test_a_fraction_of_a_nanosecond_is_an_error(number: str, unit: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(number + unit)


@pytest.mark.parametrize("text", [".5h", "1.h", ".h", ".", "1..5h", "1.5.5h", "1h .5m", "1 . s"])
def test_a_fraction_needs_digits_on_both_sides_of_the_point(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize("unit", [unit for unit in UNITS if UNITS[unit] <= 1])
def test_the_largest_number_of_64_bits_is_taken_and_one_more_is_an_error(unit: str) -> None:
    assert parse_duration(f"{LARGEST}{unit}") == nanoseconds(LARGEST, unit)
    with pytest.raises(ValueError):
        parse_duration(f"{LARGEST + 1}{unit}")


@pytest.mark.parametrize("unit", [unit for unit in UNITS if UNITS[unit] > 1])
def test_a_product_beyond_64_bits_of_seconds_is_an_error(unit: str) -> None:
    most = int(LARGEST // UNITS[unit])
    assert parse_duration(f"{most}{unit}") == nanoseconds(most, unit)
    with pytest.raises(ValueError):
        parse_duration(f"{most + 1}{unit}")


def test_the_largest_sum_of_64_bits_is_taken_and_one_more_is_an_error() -> None:
    assert parse_duration(f"{LARGEST - 1}s 1s") == LARGEST * SECOND
    assert parse_duration(f"{LARGEST}s 999ms") == LARGEST * SECOND + 999 * 10**6
    for text in (f"{LARGEST}s 1s", f"{LARGEST}s 1000ms", f"1ns {LARGEST}s 999999999ns"):
        with pytest.raises(ValueError):
            parse_duration(text)


@pytest.mark.parametrize("digits", [5_000, 100_000])
def test_digits_beyond_what_python_converts_are_judged_by_their_value(digits: int) -> None:
    with pytest.raises(ValueError):
        parse_duration("9" * digits + "s")
    with pytest.raises(ValueError):
        parse_duration("0." + "9" * digits + "s")
    assert parse_duration("0" * digits + "7s") == 7 * SECOND


def test_a_text_of_many_terms_and_spaces_is_read_in_one_go() -> None:
    assert parse_duration("1s" * 50_000) == 50_000 * SECOND
    assert parse_duration("1" + " " * 100_000 + "s") == SECOND
    with pytest.raises(ValueError):
        parse_duration("1 " * 100_000)


@settings(deadline=None)
@given(st.integers(0, LARGEST))
def test_any_whole_number_of_seconds_comes_back_exactly(seconds: int) -> None:
    assert parse_duration(f"{seconds}s") == seconds * SECOND


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 10**9), units, spaces, spaces), min_size=1, max_size=6))
def test_a_sum_of_terms_is_the_sum_of_its_parts(terms: list[tuple[int, str, str, str]]) -> None:
    text = "".join(f"{number}{before}{unit}{after}" for number, unit, before, after in terms)
    assert parse_duration(text) == sum(nanoseconds(number, unit) for number, unit, *_ in terms)


@settings(deadline=None)
@given(
    st.integers(0, 1000),
    st.text("0123456789", min_size=1, max_size=12),
    st.sampled_from([*SHORT, *LONG]),
)
def test_a_fraction_is_exact_or_an_error(whole: int, fraction: str, unit: str) -> None:
    exact = Fraction(f"{whole}.{fraction}") * UNITS[unit] * SECOND
    part = exact - whole * UNITS[unit] * SECOND
    if part % (1 if unit in SHORT else SECOND):
        with pytest.raises(ValueError):
            parse_duration(f"{whole}.{fraction}{unit}")
    else:
        assert parse_duration(f"{whole}.{fraction}{unit}") == exact


@settings(deadline=None, max_examples=300)
@given(st.one_of(st.text(), st.text("0159 .smhdwMy\u00b5\n-", max_size=20)))
def test_any_text_parses_or_raises_a_value_error_and_nothing_else(text: str) -> None:
    try:
        value = parse_duration(text)
    except ValueError:
        return
    assert 0 <= value < (LARGEST + 1) * SECOND
    assert text.strip() == "0" or any(unit in text for unit in UNITS)
