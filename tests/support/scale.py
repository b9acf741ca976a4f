"""One test in two forms: a short one of seconds, and a long one of many repetitions."""

import pytest


def short_and_long(name: str, *, short: int, long: int, timeout: int) -> pytest.MarkDecorator:
    """Parametrize `name` with both numbers; the long form is marked, and has its own timeout."""
    marks = (pytest.mark.long, pytest.mark.timeout(timeout))
    return pytest.mark.parametrize(
        name, [pytest.param(short, id="short"), pytest.param(long, id="long", marks=marks)]
    )
