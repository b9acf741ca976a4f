"""The stored text of an instant, worked out apart from the worker's own code."""

from datetime import datetime, timedelta


def stored_text(told: str, *, plus: int = 0) -> str:
    """Return how an RFC 3339 instant in UTC ("…Z") must stand in the tables, `plus` seconds on."""
    whole, _, fraction = told.removesuffix("Z").partition(".")
    moved = datetime.fromisoformat(whole) + timedelta(seconds=plus)
    digits = fraction.ljust(9, "0")
    for length in (6, 3, 0):
        if set(digits[length:]) != {"0"}:
            break
        digits = digits[:length]
    return f"{moved.isoformat()}{'.' if digits else ''}{digits}+00:00"
