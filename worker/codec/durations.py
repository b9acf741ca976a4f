"""Parse the duration text of manifests, such as "2h 30m", into whole nanoseconds. Pure."""

import re

from worker.codec.timestamps import NANOSECONDS

# Nanoseconds by spelling. Case matters: m is a minute, M a month. A month is a twelfth of a year
# of 365.25 days, rounded to 30.44 days.
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

# Unicode's White_Space. To Python the separators U+001C to U+001F are spaces as well.
_SPACES = re.compile(r"[^\S\x1c-\x1f]*")
# Spaces are allowed between the digits of a number, but not inside a unit.
_DIGITS = rf"[0-9](?:[0-9]|{_SPACES.pattern[:-1]})*"
_TERM = re.compile(
    rf"(?P<whole>{_DIGITS})(?:\.(?P<fraction>{_SPACES.pattern}{_DIGITS}))?(?P<unit>[A-Za-zµ]+)"
    + _SPACES.pattern
)

# A longer fraction without trailing zeros cannot be whole in any unit. Rejecting it first keeps
# texts of a million digits cheap.
_MAX_FRACTION_DIGITS = 20


def parse_duration(text: str) -> int:
    """Return the sum of the text's terms in nanoseconds; each term is a number and a unit.

    "0" alone, without any space, is zero. A fraction must be a whole number of nanoseconds for
    units up to minutes, and of seconds for longer units. Raises ValueError for an empty text, a
    number without a unit, an unknown unit, any other fraction, and a number or a sum of seconds
    that exceeds 64 bits.
    """
    if text == "0":
        return 0
    begin = _SPACES.match(text)
    total, position = 0, begin.end() if begin else 0
    if position == len(text):
        raise ValueError("the text is empty")
    while position < len(text):
        term = _TERM.match(text, position)
        if term is None:
            raise ValueError(f"expected a number with a unit at character {position + 1}")
        total += _term(term["whole"], term["fraction"], term["unit"])
        if total // NANOSECONDS > _UNSIGNED_64:
            raise ValueError("the sum exceeds 64 bits of seconds")
        position = term.end()
    return total


def _term(whole: str, fraction: str | None, unit: str) -> int:
    length = _UNITS.get(unit)
    if length is None:
        raise ValueError(f"unknown unit {unit[:20]!r}")
    significant = "".join(whole.split()).lstrip("0") or "0"
    if len(significant) > len(str(_UNSIGNED_64)) or int(significant) > _UNSIGNED_64:
        raise ValueError("a number exceeds 64 bits")
    value = int(significant) * length
    if fraction is None:
        return value
    if length == 1:
        raise ValueError("a nanosecond cannot have a fraction")
    return value + _fraction(fraction, length)


def _fraction(fraction: str, length: int) -> int:
    """Return the nanoseconds of a decimal fraction of a unit that is `length` nanoseconds long."""
    digits = "".join(fraction.split()).rstrip("0")
    resolution = 1 if length <= _MINUTE else NANOSECONDS
    if len(digits) <= _MAX_FRACTION_DIGITS:
        denominator: int = 10 ** len(digits)
        count, rest = divmod(int(digits or "0") * (length // resolution), denominator)
        if not rest:
            return count * resolution
    unit = "nanoseconds" if resolution == 1 else "seconds"
    raise ValueError(f"a fraction is not a whole number of {unit}")
