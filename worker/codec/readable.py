"""Times as people read them: short, in UTC, relative where that says more. Pure."""

from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
# The largest unit of which there are at least two, so that "90 min" is not rounded to "2 h".
_UNITS = ((86_400, "d"), (3600, "h"), (60, "min"))


def span(seconds: float) -> str:
    """Return a duration in its largest unit of which there are two or more: `45 s`, `90 min`."""
    seconds = abs(seconds)
    for length, unit in _UNITS:
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def short_time(stored: str | None, now: int) -> str:
    """Return stored text as `12:04:05` on the day of `now`, else `26 Nov 12:04`, both in UTC.

    `now` is in nanoseconds since 1970. Another year is shown as a date; a text that is not in
    stored form, which another program has written, stays as it is.
    """
    if stored is None:
        return "-"
    try:
        parse_stored(stored)
    except ValueError:
        return stored
    today = format_instant(now)
    if stored[:10] == today[:10]:
        return stored[11:19]
    if stored[:4] != today[:4]:
        return stored[:10]
    return f"{int(stored[8:10])} {_MONTHS[int(stored[5:7]) - 1]} {stored[11:16]}"


def ago(stored: str | None, now: int) -> str:
    """Return how long ago a stored time was, as `3 min ago`; `-` without one."""
    if stored is None:
        return "-"
    try:
        seconds = (now - parse_stored(stored)) / NANOSECONDS
    except ValueError:
        return stored
    return f"in {span(seconds)}" if seconds < 0 else f"{span(seconds)} ago"


def until(deadline: str | None, now: int) -> tuple[str, bool]:
    """Return `in 2 min`, `overdue 3 min` or `none` for a deadline, and whether it has passed."""
    if deadline is None:
        return "none", False
    try:
        seconds = (parse_stored(deadline) - now) / NANOSECONDS
    except ValueError:
        return deadline, False
    return (f"overdue {span(seconds)}", True) if seconds < 0 else (f"in {span(seconds)}", False)
