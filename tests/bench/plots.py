"""The plots, as PNG: the rates of a drain and the distribution of latencies.

The colours are Okabe and Ito's, which people with colour blindness can tell apart.
"""

from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib import pyplot
from matplotlib.patches import Patch

from tests.bench.results import FLOOR, WORKER, Results, Spread

_COLOURS = {"worker": "#0072B2", "rival": "#E69F00", "limit": "#999999"}
_LINES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")


def draw(results: Results, folder: Path) -> list[str]:
    """Draw what was measured and return the names of the files."""
    mpl.use("Agg")
    pyplot.rcParams.update({"font.size": 10, "axes.spines.top": False, "axes.spines.right": False})
    figures = {}
    if results.drains:
        figures["drain.png"] = _drain(results)
    if any(not each.of_results for each in results.latencies):
        figures["latency.png"] = _latency(results)
    for name, figure in figures.items():
        figure.savefig(folder / name, dpi=150)
        pyplot.close(figure)
    return list(figures)


def _drain(results: Results) -> Any:
    programs = results.by_program()
    rates = [Spread.of(each.rate for each in drains) for drains in programs.values()]
    figure, axes = pyplot.subplots(figsize=(9, 0.55 * len(rates) + 1.6), layout="constrained")
    below = [rate.median - rate.least for rate in rates]
    axes.barh(
        list(programs),
        [rate.median for rate in rates],
        xerr=[below, [rate.most - rate.median for rate in rates]],
        color=[_COLOURS[drains[0].kind] for drains in programs.values()],
        error_kw={"capsize": 3, "elinewidth": 1},
    )
    for place, (program, rate) in enumerate(zip(programs, rates, strict=True)):
        ratio = "" if program == WORKER else f"   worker {results.ratio(program).median:.2g} ×"
        axes.text(rate.most, place, f"  {rate.median:,.0f}/s{ratio}", va="center", fontsize=9)
    axes.set(xscale="log", xlabel="events per second, logarithmic; median, whiskers least–most")
    axes.set_xlim(min(rate.least for rate in rates) / 2, max(rate.most for rate in rates) * 6)
    axes.invert_yaxis()
    axes.xaxis.set_major_formatter("{x:,.0f}")
    rounds = programs[WORKER]
    title = f"Drain of {rounds[0].events:,} events (n = {len(rounds)})"
    axes.set_title(title, loc="left")
    handles = [Patch(color=colour, label=kind) for kind, colour in _COLOURS.items()]
    axes.legend(handles=handles, loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False)
    return figure


def _latency(results: Results) -> Any:
    latencies = [each for each in results.latencies if not each.of_results]
    rates = sorted({each.rate for each in latencies})
    programs = dict.fromkeys(each.program for each in latencies)
    programs.pop(FLOOR, None)
    colours = {FLOOR: "#999999", **dict(zip(programs, _LINES, strict=False))}
    size = 4 * len(rates), 3.8
    figure, (all_axes,) = pyplot.subplots(
        1, len(rates), figsize=size, sharey=True, layout="constrained", squeeze=False
    )
    for axes, rate in zip(all_axes, rates, strict=True):
        for each in latencies:
            if each.rate == rate:
                _distribution(axes, each.seconds, colours[each.program])
        axes.set(xscale="log", xlabel="ms from publish to visible, logarithmic")
        axes.set_title(f"{rate:,} events/s", loc="left")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.grid(alpha=0.3)
    all_axes[0].set(ylabel="percent of events within that time", yticks=[0, 25, 50, 75, 99])
    handles = [Patch(color=colour, label=program) for program, colour in colours.items()]
    figure.legend(handles=handles, loc="outside upper left", ncols=3, frameon=False)
    return figure


def _distribution(axes: Any, seconds: list[float], colour: str) -> None:
    percents = [100 * number / len(seconds) for number in range(1, len(seconds) + 1)]
    axes.plot([1000 * each for each in seconds], percents, color=colour, linewidth=1.4)
