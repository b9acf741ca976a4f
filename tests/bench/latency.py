"""From publish to visible in the table, at a steady rate; and the floor of it.

Publisher, worker and observer are processes of their own. All times are of the kernel's monotonic
clock, which they share. What the observer adds, half of its time between looks on average, is part
of the worker's latency and not of the floor's: it never flatters the worker.
"""

import json
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from tests.bench.broker import BenchBroker
from tests.bench.check import check
from tests.bench.data import DataSet
from tests.bench.figures import percentile, quantiles
from tests.bench.process import BenchFailed, Program
from tests.bench.rivals import RIVALS, WORKER
from tests.bench.tables import Templates

_SETTLED_WITHIN = 30.0
_FASTEST_FLOOR = 100.0
_POINTS = 400


@dataclass(frozen=True, slots=True)
class Latency:
    """What was measured at one rate, in seconds; `points` are quantiles at equal distances."""

    rate: float
    events: int
    p50: float
    p99: float
    most: float
    floor_p50: float
    floor_p99: float
    round_trip_p50: float
    commit_p50: float
    look_p50: float
    look_p99: float
    points: list[float]
    floor_points: list[float]


class LatencyMeter:
    """MetricsObserver latencies against one server, in one folder."""

    def __init__(self, folder: Path, url: str, templates: Templates) -> None:
        self._folder = folder
        self._url = url
        self._templates = templates

    def measure(self, rate: float, events: int, seed: int) -> Latency:
        """Measure the floor, then the worker at `rate` events a second; raises BenchFailed."""
        data = DataSet(events, seed=seed)
        floor_rate = min(rate, _FASTEST_FLOOR)
        floor = self._floor(DataSet(min(events, 500), seed=seed), floor_rate)
        latencies, looks = self._worker(data, rate)
        sums = [sum(pair) for pair in floor]
        return Latency(
            rate=rate,
            events=events,
            p50=percentile(latencies, 50),
            p99=percentile(latencies, 99),
            most=max(latencies),
            floor_p50=percentile(sums, 50),
            floor_p99=percentile(sums, 99),
            round_trip_p50=percentile([trip for trip, _ in floor], 50),
            commit_p50=percentile([commit for _, commit in floor], 50),
            look_p50=percentile(looks, 50),
            look_p99=percentile(looks, 99),
            points=quantiles(latencies, _POINTS),
            floor_points=quantiles(sums, _POINTS),
        )

    def _floor(self, data: DataSet, rate: float) -> list[tuple[float, float]]:
        path = self._prepared(data)
        command = [*_module("floor"), "--database", str(path), *self._schedule(data, rate)]
        with Program(command, self._folder / "floor.log") as program:
            pairs = json.loads(program.output(data.events / rate + _SETTLED_WITHIN))
        return [(trip / 1e9, commit / 1e9) for trip, commit in pairs]

    def _worker(self, data: DataSet, rate: float) -> tuple[list[float], list[float]]:
        """Return the latency of each event and the observer's times between looks, in seconds."""
        path = self._prepared(data)
        within = data.events / rate + _SETTLED_WITHIN
        worker = RIVALS[WORKER].command(self._url, path)
        worker.remove("--until-idle")
        limits = ["--rows", str(data.events), "--within", str(within)]
        observer = [*_module("observer"), "--database", str(path), *limits]
        publisher = [*_module("publisher"), *self._schedule(data, rate)]
        with (
            BenchBroker(self._url) as broker,
            Program(worker, self._folder / "worker.log") as working,
            Program(observer, self._folder / "observer.log") as observing,
        ):
            _until_pulling(broker, working)
            with Program(publisher, self._folder / "publisher.log") as publishing:
                published: dict[str, int] = json.loads(publishing.output(within))
            told = json.loads(observing.output(within))
            _until_settled(broker)
            working.stop()
            check(path, data, 0, broker.stored_at)
        seen: dict[str, int] = told["seen"]
        if seen.keys() != published.keys():
            raise BenchFailed(f"{len(published)} events, of which {len(seen)} were seen")
        latencies = [(seen[name] - sent) / 1e9 for name, sent in published.items()]
        return latencies, [look / 1e9 for look in told["looks"]]

    def _prepared(self, data: DataSet) -> Path:
        """Return a database with nothing but executions, beside a stream that is empty."""
        path = self._folder / "measured.db"
        self._templates.copy(data, 0, path)
        with BenchBroker(self._url) as broker:
            broker.fill_bucket(data.timeouts())
            broker.fill([])
        os.sync()
        return path

    def _schedule(self, data: DataSet, rate: float) -> list[str]:
        size = ["--events", str(data.events), "--seed", str(data.seed)]
        return ["--nats", self._url, "--rate", str(rate), *size]


def _module(name: str) -> list[str]:
    return [sys.executable, "-m", f"tests.bench.programs.{name}"]


def _until_pulling(broker: BenchBroker, worker: Program) -> None:
    seen = broker.watch(1)
    deadline = time.monotonic() + 30
    while seen.first_request is None:
        worker.check_running()
        if time.monotonic() > deadline:
            raise BenchFailed(f"the worker does not pull:\n{worker.log}")
        time.sleep(0.01)


def _until_settled(broker: BenchBroker) -> None:
    deadline = time.monotonic() + _SETTLED_WITHIN
    while broker.left():
        if time.monotonic() > deadline:
            raise BenchFailed(f"{broker.left()} events are not acked")
        time.sleep(0.05)
