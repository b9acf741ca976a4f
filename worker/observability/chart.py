"""A line over the last hour, as SVG. Pure."""

import math
from collections.abc import Iterable, Iterator, Sequence

from worker.observability.markup import Html, element
from worker.status.history import EVERY, SPAN

_WIDTH, _HEIGHT = 360, 60
# A sample may be late; without one for longer, nothing is known in between.
_GAP = 2.5 * EVERY

Point = tuple[float, float | None]


def chart(points: Sequence[Point], now: float, label: str) -> Html:
    """Return the line through (seconds, value) up to `now`; a value of None interrupts it."""
    top = scale(value for _, value in points if value is not None)
    path = element("path", d=" ".join(_path(points, now, top)), class_="line")
    half = element("path", d=f"M0 {_HEIGHT / 2:g}H{_WIDTH}", class_="grid")
    return element(
        "svg",
        half,
        path,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        preserveAspectRatio="none",
        role="img",
        aria_label=label,
    )


def scale(values: Iterable[float]) -> float:
    """Return the upper end of the axis: 1, 2 or 5 times a power of ten, at least 1."""
    most = max(values, default=0.0)
    if most <= 1:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= most)


def _path(points: Sequence[Point], now: float, top: float) -> Iterator[str]:
    before = float("-inf")
    for at, value in points:
        if value is None:
            before = float("-inf")
            continue
        place = f"{_WIDTH * (1 - (now - at) / SPAN):.1f} {_HEIGHT * (1 - value / top):.1f}"
        # A dot of its own where the line begins: its neighbours may both be unknown.
        yield f"L{place}" if at - before <= _GAP else f"M{place}h0"
        before = at
