"""What a person reads: tables on the screen, and the same ratios as Markdown."""

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table

from tests.bench.figures import Spread
from tests.bench.results import Results, spread
from tests.bench.rivals import RIVALS, WORKER
from tests.bench.targets import Target

_MICRO = 1e6
_MILLI = 1e3
_MEGABYTE = 1e6


def show(console: Console, results: Results, targets: list[Target]) -> None:
    """Print a table for each part that was measured."""
    for part in ("drain", "large drain"):
        if results.of(part):
            console.print(_drain(results, part))
    if results.latencies:
        console.print(_latency(results))
    for table in _growth(results):
        console.print(table)
    if targets:
        console.print(_targets(targets))


def markdown(results: Results, targets: list[Target], machine: dict[str, object]) -> str:
    """Return the ratios with the machine's size, as the README may show them."""
    lines = [
        f"Measured on {machine['cores']} cores ({machine['processor']}), "
        f"{machine['memory_gib']} GiB.",
    ]
    if results.of("drain"):
        lines += ["", "| drain of a backlog | events/s, median | least–most | the worker is |"]
        lines.append("|---|---|---|---|")
    for key in results.rivals("drain"):
        speed, ratio = _speed_and_ratio(results, "drain", key)
        least_most = f"{speed.least:,.0f}–{speed.most:,.0f}"
        lines.append(
            f"| {RIVALS[key].title} | {speed.median:,.0f} | {least_most} | {ratio:.2f} × |"
        )
    lines += ["", "| target | found | bound | reached |", "|---|---|---|---|"]
    for target in targets:
        lines.append(
            f"| {target.name} | {_value(target.found, target)} | "
            f"{_bound(target)} | {'yes' if target.reached else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def _drain(results: Results, part: str) -> Table:
    events = results.values(part, "events")[0]
    table = _table(
        f"{part}: a backlog of {events:,} events, first request to last ack; medians, least–most",
        *("program", "events/s", "worker is", "CPU/event", "server's CPU", "peak memory", "first"),
    )
    for key in results.rivals(part):
        speed, ratio = _speed_and_ratio(results, part, key)
        table.add_row(
            RIVALS[key].title,
            _spread(speed),
            f"{ratio:.2f} ×",
            *_costs(results, part, key),
            style="bold" if key == WORKER else "",
        )
    table.caption = (
        "(a)(b)(c): SQLite's defaults, WAL, synchronous FULL, as the simplest worker has them; "
        "(d) with the worker's own pragmas and batches"
    )
    return table


def _costs(results: Results, part: str, key: str) -> Iterator[str]:
    rival = RIVALS[key]
    drains = results.of(part, rival=key)
    cpu = spread(drains, lambda drained: drained.cpu_an_event * _MICRO)
    server = spread(drains, lambda drained: drained.server_cpu_an_event * _MICRO)
    peak = spread(drains, lambda drained: drained.peak_memory / _MEGABYTE)
    first = spread(
        (drained for drained in drains if drained.first_event_after is not None),
        lambda drained: drained.first_event_after or 0.0,
    )
    for measured, text in ((cpu, "{:.0f} µs"), (server, "{:.0f} µs"), (peak, "{:.0f} MB")):
        yield text.format(measured.median) if measured and rival.needs_broker else ""
    yield f"{first.median:.2f} s" if first else ""


def _latency(results: Results) -> Table:
    table = _table(
        "latency: publish to visible in the table, ms; medians, least–most",
        *("events/s", "p50", "p99", "floor p50", "floor p99", "p50 is", "p99 is", "observer adds"),
    )
    for rate in sorted({each.rate for each in results.latencies}):
        figures = [
            results.latency(rate, value)
            for value in (
                lambda each: each.p50 * _MILLI,
                lambda each: each.p99 * _MILLI,
                lambda each: each.floor_p50 * _MILLI,
                lambda each: each.floor_p99 * _MILLI,
                lambda each: each.p50 / each.floor_p50,
                lambda each: each.p99 / each.floor_p99,
                lambda each: each.look_p50 * _MILLI / 2,
            )
        ]
        p50, p99, floor_p50, floor_p99, over_p50, over_p99, added = filter(None, figures)
        table.add_row(
            f"{rate:,.0f}",
            *(_spread(each, 2) for each in (p50, p99, floor_p50, floor_p99)),
            f"{over_p50.median:.1f} ×",
            f"{over_p99.median:.1f} ×",
            f"≈ {added.median:.2f}",
        )
    table.caption = "floor: a round trip to the stream on a bare socket, and one commit of one row"
    return table


def _growth(results: Results) -> Iterator[Table]:
    sizes = {
        "rows": ("old_rows", "rows before"),
        "workers": ("workers", "workers"),
        "manifests": ("manifests", "manifests"),
        "memory": ("events", "events"),
        "pythons": ("label", "Python"),
    }
    for part, (name, title) in sizes.items():
        rivals = results.rivals(part)
        if not rivals:
            continue
        titles = [RIVALS[key].title for key in rivals]
        table = _table(f"{part}: events/s; medians, least–most", title, *titles, "peak memory")
        for value in results.values(part, name):
            speeds = [results.speed(part, **{"rival": key, name: value}) for key in rivals]
            drains = results.of(part, **{"rival": WORKER, name: value})
            peak = spread(drains, lambda drained: drained.peak_memory / _MEGABYTE)
            table.add_row(
                f"{value:,}" if isinstance(value, int) else value,
                *(_spread(speed) for speed in speeds),
                f"{peak.median:.0f} MB" if peak else "",
            )
        yield table


def _targets(targets: list[Target]) -> Table:
    table = _table("targets, as ratios within this run", "target", "found", "bound", "reached")
    for target in targets:
        table.add_row(
            target.name,
            _value(target.found, target),
            _bound(target),
            "yes" if target.reached else "no",
            style="" if target.reached else "bold yellow",
        )
    return table


def _speed_and_ratio(results: Results, part: str, key: str) -> tuple[Spread, float]:
    speed = results.speed(part, rival=key)
    assert speed is not None
    return speed, results.ratio(part, {"rival": WORKER}, {"rival": key}) or 0.0


def _table(title: str, first: str, *others: str) -> Table:
    table = Table(title=title, title_justify="left", caption_justify="left", title_style="bold")
    table.add_column(first)
    for column in others:
        table.add_column(column, justify="right")
    return table


def _spread(measured: Spread | None, digits: int = 0) -> str:
    if measured is None:
        return ""
    median, least, most = (
        f"{value:,.{digits}f}" for value in (measured.median, measured.least, measured.most)
    )
    return f"{median}  {least}–{most}"


def _value(value: float, target: Target) -> str:
    return (
        f"{value:.2f}{target.unit}" if target.unit in ("×", " s") else f"{value:.0f}{target.unit}"
    )


def _bound(target: Target) -> str:
    return f"{'≥' if target.at_least else '≤'} {_value(target.bound, target)}"
