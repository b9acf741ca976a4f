"""The command behind scripts/bench: measure in rounds, print tables, write results and plots."""

import importlib.util
import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from itertools import chain
from pathlib import Path

import click
from rich.console import Console

from tests.bench import report, tables
from tests.bench.contenders import (
    THIS_WORKER,
    CannotBuild,
    Contender,
    go_rival,
    other_worker,
    rivals,
)
from tests.bench.ends import MeasureEnds
from tests.bench.engines import measuring_engines
from tests.bench.measure import Measure
from tests.bench.process import ROOT, BenchFailed
from tests.bench.results import Results
from tests.support.nats_server import NatsServer

PARTS = ("drain", "latency", "results", "postgresql")
_FOLDER = click.Path(file_okay=False, resolve_path=True, path_type=Path)
# Events a second, and how many events are published.
_RATES = {10: 200, 100: 2000, 1000: 10_000}
_QUICK_RATES = {10: 20, 100: 150, 1000: 1500}


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice((*PARTS, *tables.PARTS)))
@click.option("--events", type=click.IntRange(100), help="Events in a backlog.  [default: 100000]")
@click.option("--repeat", type=click.IntRange(1), help="Rounds.  [default: 3]")
@click.option("--quick", is_flag=True, help="Two rounds of 3000 events: a trial, not a result.")
@click.option("--against", type=_FOLDER, help="A checkout whose worker is measured as well.")
@click.option("--no-rivals", is_flag=True, help="Measure the workers only.")
@click.option(
    "--out",
    type=_FOLDER,
    default=ROOT / ".bench",
    show_default="<checkout>/.bench",
    help="Where to write results.json, report.txt and the plots.",
)
def main(
    parts: tuple[str, ...],
    *,
    events: int | None,
    repeat: int | None,
    quick: bool,
    against: Path | None,
    no_rivals: bool,
    out: Path,
) -> None:
    """Measure PARTS with a real server and real files; all but indexes and retention by default.

    In each round the programs take turns. NATS_SERVER names the nats-server to use; the default is
    the one on the PATH. Exits with 1 if a program fails or a table lacks an event.
    """
    # The tables need more than the 80 columns that a pipe gets by default.
    width = None if sys.stdout.isatty() else 120
    console = Console(highlight=False, record=True, width=width)
    contenders = [THIS_WORKER, *([other_worker(against)] if against else [])]
    size = events or (3000 if quick else 100_000)
    backlog, runs, starts = (
        size if one in (parts or PARTS) else 0 for one in ("drain", "results", "postgresql")
    )
    rates = (_QUICK_RATES if quick else _RATES) if "latency" in (parts or PARTS) else {}
    if not no_rivals and (backlog or rates):
        contenders += [*rivals(), *_built(console)]
    facts = {"command": shlex.join(["scripts/bench", *sys.argv[1:]]), "machine": report.machine()}
    results = Results()
    try:
        with _workspace(out / "work") as measure, ExitStack() as servers:
            ends = MeasureEnds(measure.folder, measure.nats)
            of_tables = set(parts).intersection(tables.PARTS)
            if starts or of_tables:
                place = measure.folder, measure.nats
                engines = servers.enter_context(measuring_engines(*place))
                # Runs are written to tables of ten times as many: 20 000 to a million.
                large = tables.MeasureTables(*place, engines.postgresql, 10 * size)
            for number in range(repeat or (2 if quick else 3)):
                # If the machine slows down during a round, the next one makes up for it.
                turns = contenders[::-1] if number % 2 else contenders
                of_starts = measure.round(turns, backlog, rates)
                of_results = ends.round(runs, reverse=bool(number % 2))
                of_engines = engines.round(starts, reverse=bool(number % 2)) if starts else ()
                of_indexes = (
                    large.indexes(size // 5, reverse=bool(number % 2))
                    if "indexes" in of_tables
                    else ()
                )
                of_retention = large.retention(size // 5) if "retention" in of_tables else ()
                measurements = (of_starts, of_results, of_engines, of_indexes, of_retention)
                for measured in chain(*measurements):
                    results.add(measured)
                    console.print(str(measured))
    except (BenchFailed, OSError, RuntimeError, AssertionError) as error:
        console.print(f"The benchmark failed: {error}", style="bold red", markup=False)
        sys.exit(1)
    for table in report.tables(results):
        console.print(table)
    (out / "report.txt").write_text(console.export_text(), "utf-8")
    (out / "results.json").write_text(json.dumps({**facts, **asdict(results)}) + "\n", "utf-8")
    files = ["report.txt", "results.json"]
    if importlib.util.find_spec("matplotlib"):
        from tests.bench.plots import draw

        files += draw(results, out)
    console.print(f"{out}: {', '.join(files)}")


def _built(console: Console) -> list[Contender]:
    """Return the programs that were built here, and print which one cannot be built."""
    try:
        return [go_rival()]
    except CannotBuild as error:
        console.print(str(error), markup=False)
        return []


@contextmanager
def _workspace(folder: Path) -> Iterator[Measure]:
    """Provide an empty folder with a nats-server, and remove both at the end, also on SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    server = NatsServer(folder)
    try:
        server.start()
        yield Measure(folder, server.url)
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
