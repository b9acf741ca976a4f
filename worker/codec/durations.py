"""Duration text, as manifests write it ("2h 30m"), to whole nanoseconds. Pure functions."""

import re

from worker.codec.timestamps import NANOSECONDS

# The spellings and lengths are the contract's table; case counts.
_UNITS: dict[str, int] = {
    **dict.fromkeys(("ns", "nsec", "nanos"), 1),
    **dict.fromkeys(("us", "usec", "µs"), 1_000),
    **dict.fromkeys(("ms", "msec", "millis"), 1_000_000),
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), NANOSECONDS),
    **dict.fromkeys(("m", "min", "mins", "minute", "minutes"), 60 * NANOSECONDS),
    **dict.fromkeys(("h", "hr", "hrs", "hour", "hours"), 3_600 * NANOSECONDS),
    **dict.fromkeys(("d", "day", "days"), 86_400 * NANOSECONDS),
    **dict.fromkeys(("w", "wk", "wks", "week", "weeks"), 604_800 * NANOSECONDS),
    **dict.fromkeys(("M", "month", "months"), 2_630_016 * NANOSECONDS),
    **dict.fromkeys(("y", "yr", "yrs", "year", "years"), 31_557_600 * NANOSECONDS),
}
_MINUTE = 60 * NANOSECONDS
_UNSIGNED_64 = 2**64 - 1

# A number may hold spaces between its digits; a unit may not.
_TERM = re.compile(
    r"(?P<whole>[0-9][0-9\s]*)(?:\.(?P<fraction>\s*[0-9][0-9\s]*))?(?P<unit>[A-Za-zµ]+)\s*"
)

# No fraction with more digits than this can come out whole in any unit: 10^20 does not divide
# any unit's length times a number whose last digit is not 0.
_LONGEST_FRACTION = 20


def parse_duration(text: str) -> int:
    """Return the nanoseconds that a duration text names.

    Terms of a number and a unit are added up; "0" alone is zero. Raises ValueError for an empty
    text, a number without a unit, an unknown unit, a fraction that does not come out whole, and
    for a number or a sum of seconds beyond 64 bits.
    """
    text = text.strip()
    if text == "0":
        return 0
    if not text:
        raise ValueError("the text is empty")
    total = position = 0
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            raise ValueError(f"no number with a unit at character {position + 1}")
        total += _term(term["whole"], term["fraction"], term["unit"])
        if total // NANOSECONDS > _UNSIGNED_64:
            raise ValueError("the sum of seconds is beyond 64 bits")
        position = term.end()
    return total


def _term(whole: str, fraction: str | None, unit: str) -> int:
    length = _UNITS.get(unit)
    if length is None:
        raise ValueError(f"unknown unit {unit[:20]!r}")
    value = _number(whole) * length
    if fraction is None:
        return value
    if length == 1:
        raise ValueError("a nanosecond has no fraction")
    return value + _part(fraction, length)


def _number(digits: str) -> int:
    significant = "".join(digits.split()).lstrip("0")
    if len(significant) > len(str(_UNSIGNED_64)) or int(significant or "0") > _UNSIGNED_64:
        raise ValueError("a number is beyond 64 bits")
    return int(significant or "0")


def _part(fraction: str, length: int) -> int:
    """Return the nanoseconds of a unit's decimal fraction, which must come out whole."""
    digits = "".join(fraction.split()).rstrip("0")
    smallest = 1 if length <= _MINUTE else NANOSECONDS
    if len(digits) > _LONGEST_FRACTION:
        raise ValueError("the fraction does not come out whole")
    denominator: int = 10 ** len(digits)
    count, rest = divmod(int(digits or "0") * (length // smallest), denominator)
    if rest:
        raise ValueError("the fraction does not come out whole")
    return count * smallest
