"""The command behind scripts/bench: measure, print tables, write results.json and the plots."""

import importlib.util
import json
import shlex
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from tests.bench import machine, report
from tests.bench.measure import measure
from tests.bench.plan import PARTS, Plan
from tests.bench.process import BenchFailed
from tests.bench.results import Results
from tests.bench.targets import Target, targets
from tests.demo.process import ROOT


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("parts", nargs=-1, type=click.Choice(PARTS))
@click.option("--events", type=click.IntRange(100), help="Events of a backlog.  [default: 100000]")
@click.option("--repeat", type=click.IntRange(1), help="Measurements of each kind.  [default: 3]")
@click.option("--full", is_flag=True, help="Also a backlog of 1 000 000 and 5 000 000 rows.")
@click.option("--quick", is_flag=True, help="Small numbers that prove nothing; about two minutes.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / ".bench",
    show_default="<checkout>/.bench",
    help="Where to write results.json, report.md and the plots, and to keep what is measured with.",
)
def main(parts: tuple[str, ...], out: Path, **sizes: Any) -> None:
    """Measure PARTS, or everything, with a real broker and real files.

    NATS_SERVER names the nats-server to use, else the PATH does. Exit 1 if an event is lost.
    """
    console = Console(highlight=False)
    plan = planned(**sizes)
    out = out.resolve()
    size, versions = machine.machine(), machine.versions()
    with emptied(out / "work") as work:
        try:
            results = measure(console, plan, parts or PARTS, work, out / "pythons")
        except (BenchFailed, OSError, RuntimeError, AssertionError) as error:
            console.print(f"The benchmark failed: {error}", style="bold red", markup=False)
            sys.exit(1)
    reached = targets(results)
    report.show(console, results, reached)
    command = shlex.join(["scripts/bench", *sys.argv[1:]])
    facts = {"command": command, "machine": size, "versions": versions, "plan": asdict(plan)}
    write(out, results, reached, facts)
    (out / "report.md").write_text(report.markdown(results, reached, size), "utf-8")
    console.print(f"\n{out}: " + ", ".join(["results.json", "report.md", *draw(results, out)]))


def planned(events: int | None, repeat: int | None, *, full: bool, quick: bool) -> Plan:
    """Return the plan that the options ask for."""
    plan = Plan().quick() if quick else Plan()
    plan = plan.full() if full else plan
    return replace(plan, events=events or plan.events, repeat=repeat or plan.repeat)


@contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Make a folder anew and remove it at the end, also where the process is asked to end."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(out: Path, results: Results, reached: list[Target], facts: dict[str, Any]) -> None:
    """Write everything that was measured, and what it was measured on, as JSON."""
    told = {
        **facts,
        "targets": [{**asdict(target), "reached": target.reached} for target in reached],
        "measurements": results.as_dict(),
    }
    (out / "results.json").write_text(json.dumps(told, indent=2) + "\n", "utf-8")


def draw(results: Results, out: Path) -> list[str]:
    """Draw the plots, where the library is installed, and return their names."""
    if importlib.util.find_spec("matplotlib") is None:
        return []
    from tests.bench import plots

    return [path.name for path in plots.draw(results, out)]


if __name__ == "__main__":
    main()
