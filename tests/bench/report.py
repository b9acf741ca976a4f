"""The tables of a run, and the machine and versions that its figures depend on."""

import os
import platform
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from rich.table import Table

from tests.bench import ends, engines
from tests.bench import tables as large_tables
from tests.bench.results import WORKER, Results, Spread
from tests.support.nats_server import find_nats_server


def machine() -> dict[str, object]:
    """Return the processor, its cores, the load before the run, and the versions involved."""
    cpuinfo = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.partition(": ")[2] for line in cpuinfo if line.startswith("model name")]
    server = subprocess.run(
        [find_nats_server(), "--version"], capture_output=True, text=True, check=True
    )
    go = shutil.which("go")
    return {
        "processor": models[0] if models else platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "nats-server": server.stdout.strip(),
        "nats-py": version("nats-py"),
        "go": go and subprocess.check_output([go, "version"], text=True).strip(),
    }


def tables(results: Results) -> Iterator[Table]:
    """Yield a table for each part that was measured."""
    if results.drains:
        yield _drain(results)
    if results.ends:
        yield _ends(results)
    if results.latencies:
        yield _latency(results)


def _drain(results: Results) -> Table:
    table = _table(
        f"drain of {results.drains[0].events:,} events; median  least–most",
        *("program", "events/s", "the worker is, by round", "CPU/event"),
        caption="SQLite has its default settings in (a) to (c), the worker's in (d) to (f)",
    )
    for program, drains in results.by_program().items():
        micros = [each.cpu / each.events * 1e6 for each in drains if each.cpu is not None]
        table.add_row(
            program,
            Spread.of(each.rate for each in drains).text(",.0f"),
            "" if program == WORKER else f"{results.ratio(program).text('.2f')} ×",
            f"{Spread.of(micros).median:.0f} µs" if micros else "",
        )
    return table


def _ends(results: Results) -> Table:
    table = _table(
        "results, and both streams; median  least–most",
        *("drained", "messages/s", "ratio, by round", "to"),
        caption="one process unless a worker for each is named; results have 1 KB of output;\n"
        "with and without indexes, a second is one of CPU",
    )
    for what in dict.fromkeys(each.what for each in results.ends):
        ended = results.ended(what)
        other = {**ends.COMPARED, **engines.COMPARED}.get(what) or large_tables.compared_with(what)
        ratios = [] if other is None else zip(ended, results.ended(other), strict=True)
        ratio = Spread.of(one.rate / its.rate for one, its in ratios).text(".2f") if other else ""
        rate = Spread.of(each.rate for each in ended).text(",.0f")
        table.add_row(what, rate, ratio, other or "")
    return table


def _latency(results: Results) -> Table:
    table = _table(
        "latency from publish to visible row, ms; median  least–most",
        *("program", "events/s", "p50", "of floor", "p99", "of floor"),
        caption="the floor is one round trip to the stream and one commit",
    )
    for (rate, program), latencies in results.by_rate().items():
        cells = [program, f"{rate:,}"]
        for percent in (50, 99):
            cells.append(Spread.of(each.percent(percent) for each in latencies).text(".2f"))
            floor = results.floor_of(latencies[0])
            cells.append(f"{results.over_floor(latencies, percent).median:.2f} ×" if floor else "")
        table.add_row(*cells)
    return table


def _table(title: str, first: str, *others: str, caption: str) -> Table:
    table = Table(title=title, caption=caption, title_justify="left", caption_justify="left")
    table.add_column(first, no_wrap=True)
    for column in others:
        table.add_column(column, justify="right", no_wrap=True)
    return table
