"""Parse RFC 3339 text into instants, and format instants as the text stored in the tables.

An instant is an integer: nanoseconds since 1970-01-01T00:00:00Z. `datetime` only has microseconds.
Pure functions, except `present_second`.
"""

import re
import time
from datetime import date
from functools import lru_cache

NANOSECONDS = 1_000_000_000
_DAY = 86_400
_EPOCH_DAY = date(1970, 1, 1).toordinal()

# `date` supports the years 1 to 9999. Year 0 has the calendar of year 400, one cycle later.
_CYCLE_YEARS = 400
_CYCLE_DAYS = 146_097

_RFC3339 = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{1,9}))?"
    r"(?:[Zz]|([+-][0-9]{2}:[0-9]{2}))"
)

# Events of a broadcast share their seconds, so most lookups of a batch are cache hits.
_CACHED_SECONDS = 4096


def parse_instant(text: str) -> int:
    """Return the nanoseconds since 1970 of an RFC 3339 text.

    Any offset, 0 to 9 fractional digits, and a space for the T are accepted. A leap second, which
    RFC 3339 allows at 23:59:60 UTC, is read as the second after it. Raises ValueError for any other
    text, and for an instant outside the years 0000 to 9999 in UTC.
    """
    match = _RFC3339.fullmatch(text)
    if match is None:
        raise ValueError("not in the form YYYY-MM-DDTHH:MM:SS[.fraction](Z|+HH:MM|-HH:MM)")
    second, fraction, offset = match.groups()
    return _whole_second(second, offset) * NANOSECONDS + int((fraction or "").ljust(9, "0"))


@lru_cache(_CACHED_SECONDS)
def _whole_second(text: str, offset: str | None) -> int:
    """Return the seconds since 1970 of YYYY-MM-DDTHH:MM:SS; an offset of None means UTC."""
    hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
    if hour > 23 or minute > 59 or second > 60:
        raise ValueError("the time of day is out of range")
    days = _days(int(text[:4]), int(text[5:7]), int(text[8:10]))
    minutes = days * 1440 + hour * 60 + minute - _offset_minutes(offset or "+00:00")
    if second == 60 and minutes % 1440 != 1439:
        raise ValueError("second 60 is only valid at 23:59:60 UTC")
    seconds = minutes * 60 + second
    if not is_representable(seconds * NANOSECONDS):
        raise ValueError("outside the years 0000 to 9999 in UTC")
    return seconds


def _offset_minutes(offset: str) -> int:
    hours, minutes = int(offset[1:3]), int(offset[4:6])
    if hours > 23 or minutes > 59:
        raise ValueError("the offset is out of range")
    return (hours * 60 + minutes) * (-1 if offset[0] == "-" else 1)


def to_stored(text: str) -> str:
    """Return the stored text of an RFC 3339 text; raises as `parse_instant`.

    It is that of `format_instant(parse_instant(text))`, without the way through an integer for what
    agents send: UTC, with a fraction of which all nine digits are needed.
    """
    if (
        len(text) == 30
        and text[19] == "."
        and text[29] == "Z"
        and text[26:29] != "000"
        and text[20:29].isdecimal()
        and text.isascii()
        and _is_stored_second(text[:19])
    ):
        return f"{text[:29]}+00:00"
    return format_instant(parse_instant(text))


@lru_cache(_CACHED_SECONDS)
def _is_stored_second(text: str) -> bool:
    """Return whether a text begins the stored text of an instant."""
    try:
        return format_instant(parse_instant(f"{text}Z")) == f"{text}+00:00"
    except ValueError:
        return False


def format_instant(instant: int) -> str:
    """Return the stored text of nanoseconds since 1970.

    The form is YYYY-MM-DDTHH:MM:SS[.fff|.ffffff|.fffffffff]+00:00 with the shortest exact fraction,
    so sorting texts sorts times. Raises ValueError outside the years 0000 to 9999.
    """
    seconds, nanoseconds = divmod(instant, NANOSECONDS)
    return with_fraction(second_text(seconds), nanoseconds)


def with_fraction(second: str, nanoseconds: int) -> str:
    """Return the stored text of an instant: the text of its second, and the rest of it."""
    if nanoseconds % 1000:
        return f"{second}.{nanoseconds:09}+00:00"
    digits = f"{nanoseconds:09}".removesuffix("000").removesuffix("000").removesuffix("000")
    return f"{second}{'.' if digits else ''}{digits}+00:00"


def present_second() -> str:
    """Return the current time as stored text, in whole seconds."""
    return format_instant(time.time_ns() // NANOSECONDS * NANOSECONDS)


def parse_stored(text: str) -> int:
    """Return the nanoseconds since 1970 of a stored text; the exact inverse of `format_instant`.

    Raises ValueError for any other text, including RFC 3339 text that is not in the stored form.
    """
    instant = parse_instant(text)
    if format_instant(instant) != text:
        raise ValueError(f"not in the stored form, expected {format_instant(instant)}")
    return instant


def is_representable(instant: int) -> bool:
    """Return whether an instant has a stored text, which covers the years 0000 to 9999."""
    return FIRST_INSTANT <= instant <= LAST_INSTANT


def _days(year: int, month: int, day: int) -> int:
    """Return the days from 1970-01-01 to a date; raises ValueError if there is no such date."""
    if year == 0:
        return date(_CYCLE_YEARS, month, day).toordinal() - _EPOCH_DAY - _CYCLE_DAYS
    return date(year, month, day).toordinal() - _EPOCH_DAY


@lru_cache(_CACHED_SECONDS)
def second_text(seconds: int) -> str:
    """Return YYYY-MM-DDTHH:MM:SS; raises ValueError outside the years 0000 to 9999."""
    if not is_representable(seconds * NANOSECONDS):
        raise ValueError("outside the years 0000 to 9999")
    days, second_of_day = divmod(seconds, _DAY)
    hour, rest = divmod(second_of_day, 3600)
    return f"{_day_text(days)}T{hour:02}:{rest // 60:02}:{rest % 60:02}"


def _day_text(days: int) -> str:
    ordinal = days + _EPOCH_DAY
    if ordinal < 1:
        return "0000" + date.fromordinal(ordinal + _CYCLE_DAYS).isoformat()[4:]
    return date.fromordinal(ordinal).isoformat()


FIRST_INSTANT = _days(0, 1, 1) * _DAY * NANOSECONDS
LAST_INSTANT = (_days(9999, 12, 31) + 1) * _DAY * NANOSECONDS - 1
