"""Goes through a plan, one measurement after the other, with a progress bar."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.drain import Drain, Drainer
from tests.bench.latency import LatencyMeter
from tests.bench.plan import Plan
from tests.bench.pythons import VERSIONS, Python, prepare
from tests.bench.results import Results
from tests.bench.tables import Templates
from tests.support.nats_server import NatsServer

Step = tuple[str, Callable[[], None]]


def measure(
    console: Console, plan: Plan, parts: Sequence[str], work: Path, pythons: Path
) -> Results:
    """Measure the parts of a plan in a folder; raises BenchFailed at the first that is void."""
    results = Results()
    templates = Templates(work)
    with _progress(console) as progress:
        for part in parts:
            with _server(work / f"nats-{part}") as server:
                bench = _Bench(plan, results, work, server, templates)
                steps = list(bench.steps(part, pythons))
                task = progress.add_task(part, total=len(steps))
                for title, step in steps:
                    progress.update(task, description=f"{part}: {title}")
                    step()
                    progress.advance(task)
                progress.update(task, description=part)
    return results


class _Bench:
    """The measurements of one part, on one server."""

    def __init__(
        self, plan: Plan, results: Results, work: Path, server: NatsServer, templates: Templates
    ) -> None:
        self._plan = plan
        self._results = results
        self._drainer = Drainer(work, server.url, server.pid, templates)
        self._meter = LatencyMeter(work, server.url, templates)

    def steps(self, part: str, pythons: Path) -> Iterator[Step]:
        """Yield each measurement with a title."""
        if part == "latency":
            yield from self._latencies()
        elif part == "pythons":
            yield from self._drains(self._plan.pythons(_prepared(pythons)))
        else:
            yield from self._drains(getattr(self._plan, "drains" if part == "drain" else part)())

    def _drains(self, drains: Iterator[Drain]) -> Iterator[Step]:
        for drain in drains:
            yield _title(drain), lambda drain=drain: self._drain(drain)  # type: ignore[misc]

    def _drain(self, drain: Drain) -> None:
        self._results.drains.append(self._drainer.measure(drain))

    def _latencies(self) -> Iterator[Step]:
        for rate, events, seed in self._plan.latencies():

            def step(rate: int = rate, events: int = events, seed: int = seed) -> None:
                self._results.latencies.append(self._meter.measure(rate, events, seed))

            yield f"{rate} events/s", step


def _prepared(folder: Path) -> list[Python]:
    found = (prepare(version, folder) for version in VERSIONS)
    return [python for python in found if python is not None]


def _title(drain: Drain) -> str:
    sizes = {
        "rows": f"{drain.old_rows:,} rows before",
        "workers": f"{drain.workers} of",
        "manifests": f"{drain.data.manifests:,} manifests",
        "memory": f"{drain.data.events:,} events",
        "pythons": f"Python {drain.label}",
    }
    return " ".join(filter(None, (sizes.get(drain.part, ""), drain.rival.title)))


@contextmanager
def _server(folder: Path) -> Iterator[NatsServer]:
    server = NatsServer(folder).start()
    try:
        yield server
    finally:
        server.stop()


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        # Every redraw takes time from what is measured.
        refresh_per_second=2,
    )
