"""The plots, as PNG: drain beside rivals and limits, the distribution of latencies, growth.

Bars and points are medians, whiskers the least and the greatest. The colours are Okabe and Ito's,
which people who see colours differently can tell apart.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.patches import Patch

from tests.bench.figures import Spread
from tests.bench.results import Results
from tests.bench.rivals import RIVALS, SQLITE, WORKER

_COLOURS = {"worker": "#0072B2", "rival": "#E69F00", "limit": "#999999"}
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00")
_DPI = 150


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what was measured and return the files."""
    mpl.use("Agg")
    pyplot.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    drawn = []
    for part in ("drain", "large drain"):
        if results.of(part):
            drawn.append(_drain(results, part, folder / f"{part.replace(' ', '-')}.png"))
    if results.latencies:
        drawn.append(_latency(results, folder / "latency.png"))
    if results.of("rows"):
        drawn.append(_growth(results, folder / "growth.png"))
    return drawn


def _drain(results: Results, part: str, path: Path) -> Path:
    keys = results.rivals(part)
    speeds = [_of(results.speed(part, rival=key)) for key in keys]
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(keys) + 1.6), layout="constrained")
    axes.barh(
        [RIVALS[key].title for key in keys],
        [speed.median for speed in speeds],
        xerr=_whiskers(speeds),
        color=[_COLOURS[RIVALS[key].kind] for key in keys],
        error_kw={"capsize": 3, "elinewidth": 1},
    )
    worker = _of(results.speed(part, rival=WORKER)).median
    for place, speed in enumerate(speeds):
        times = "" if keys[place] == WORKER else f"   worker {worker / speed.median:.2g} ×"
        text = f"  {speed.median:,.0f}/s{times}"
        axes.text(speed.most, place, text, va="center", fontsize=9)
    axes.set_xscale("log")
    axes.set_xlim(left=min(speed.least for speed in speeds) / 2)
    axes.set_xlim(right=max(speed.most for speed in speeds) * 6)
    axes.invert_yaxis()
    axes.set_xlabel("events per second, logarithmic; median, whiskers least–most")
    axes.xaxis.set_major_formatter("{x:,.0f}")
    axes.set_title(
        f"Draining a backlog of {results.values(part, 'events')[0]:,} events "
        f"(n = {len(results.of(part, rival=WORKER))})",
        loc="left",
    )
    handles = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    return _saved(figure, path)


def _latency(results: Results, path: Path) -> Path:
    rates = sorted({each.rate for each in results.latencies})
    figure, all_axes = pyplot.subplots(
        1, len(rates), figsize=(4 * len(rates), 3.8), sharey=True, layout="constrained"
    )
    for axes, rate in zip(_list(all_axes), rates, strict=True):
        runs = [each for each in results.latencies if each.rate == rate]
        for run in runs:
            _distribution(axes, run.floor_points, "#999999", "floor" if run is runs[0] else "")
            _distribution(axes, run.points, _LINES[0], "worker" if run is runs[0] else "")
        axes.set_xscale("log")
        axes.set_title(f"{rate:,} events/s", loc="left")
        axes.set_xlabel("ms from publish to visible, logarithmic")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3, which="both", axis="x")
        for share in (50, 99):
            axes.axhline(share, color="#CCCCCC", linewidth=0.8, linestyle=":")
    first = _list(all_axes)[0]
    first.set_ylabel("per cent of events within that time")
    first.set_yticks([0, 25, 50, 75, 99])
    first.legend(frameon=False)
    return _saved(figure, path)


def _distribution(axes: Any, points: list[float], colour: str, label: str) -> None:
    shares = [100 * number / len(points) for number in range(1, len(points) + 1)]
    milliseconds = [1000 * point for point in points]
    axes.plot(milliseconds, shares, color=colour, linewidth=1.4, label=label or None)


def _growth(results: Results, path: Path) -> Path:
    figure, all_axes = pyplot.subplots(1, 3, figsize=(12, 3.8), layout="constrained")
    panels = (
        ("rows", "old_rows", "rows in the table before"),
        ("workers", "workers", "workers on one consumer and file"),
        ("manifests", "manifests", "manifests"),
    )
    for axes, (part, name, label) in zip(all_axes, panels, strict=True):
        values = results.values(part, name)
        for key in results.rivals(part):
            speeds = [_of(results.speed(part, **{"rival": key, name: each})) for each in values]
            axes.errorbar(
                range(len(values)),
                [speed.median for speed in speeds],
                yerr=_whiskers(speeds),
                color=_LINES[0] if key == WORKER else "#666666",
                marker="o" if key == WORKER else "s",
                linestyle="--" if key == SQLITE else "-",
                capsize=3,
                label=RIVALS[key].title,
            )
        axes.set_xticks(range(len(values)), [f"{value:,}" for value in values])
        axes.set_xlabel(label)
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter("{x:,.0f}")
        axes.grid(alpha=0.3, axis="y")
    all_axes[0].set_ylabel("events per second; median, least–most")
    all_axes[0].legend(frameon=False)
    return _saved(figure, path)


def _saved(figure: Any, path: Path) -> Path:
    figure.savefig(path, dpi=_DPI)
    pyplot.close(figure)
    return path


def _of(speed: Spread | None) -> Spread:
    assert speed is not None
    return speed


def _whiskers(speeds: list[Spread]) -> list[list[float]]:
    below = [speed.median - speed.least for speed in speeds]
    return [below, [speed.most - speed.median for speed in speeds]]


def _list(axes: Any) -> list[Any]:
    return list(axes) if hasattr(axes, "__len__") else [axes]
