"""What the worker is to reach, as ratios within one run, and whether it did. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from tests.bench.results import Results, spread
from tests.bench.rivals import BATCHED, FRAMEWORK, PULL, SERIAL, SQLITE, WORKER

_MEGABYTE = 1_000_000
_OF_A_LIMIT = 0.8
_NO_CLIFF = 0.8
_NOT_FAR_BEHIND = 2 / 3


@dataclass(frozen=True, slots=True)
class Target:
    """A target, what was found, and the bound; `at_least` tells on which side it holds."""

    name: str
    found: float
    bound: float
    at_least: bool
    unit: str = "×"

    @property
    def reached(self) -> bool:
        """Tell whether the target was reached."""
        return self.found >= self.bound if self.at_least else self.found <= self.bound


def targets(results: Results) -> list[Target]:
    """Return the targets of all parts that were measured."""
    return [*_drain(results), *_latency(results), *_growth(results), *_memory(results)]


def _drain(results: Results) -> Iterator[Target]:
    def times(key: str) -> float | None:
        return results.ratio("drain", {"rival": WORKER}, {"rival": key})

    limits = {"(d) bare SQLite": times(SQLITE), "(e) bare pull": times(PULL)}
    of_limits = {name: ratio for name, ratio in limits.items() if ratio is not None}
    lower = max(of_limits.items(), key=lambda item: item[1], default=None)
    for key, name, bound in ((SERIAL, "(a)", 10.0), (BATCHED, "(b)", 3.0), (FRAMEWORK, "(c)", 2.0)):
        ratio = times(key)
        if ratio is None:
            continue
        allowed = results.ratio("drain", {"rival": SQLITE}, {"rival": key})
        # No worker can be faster than its database.
        least = min(bound, _OF_A_LIMIT * allowed) if key == BATCHED and allowed else bound
        yield Target(f"drain, times {name}", ratio, least, at_least=True)
    if lower is not None:
        name = f"drain, share of the lower limit, {lower[0]}"
        yield Target(name, lower[1], _OF_A_LIMIT, at_least=True)
    first = spread(
        (each for each in results.of("drain", rival=WORKER) if each.first_event_after),
        lambda drained: drained.first_event_after or 0.0,
    )
    if first is not None:
        yield Target("start to first projected event", first.median, 1.5, False, " s")


def _latency(results: Results) -> Iterator[Target]:
    for rate in sorted({each.rate for each in results.latencies}):
        p50 = results.latency(rate, lambda each: each.p50 / each.floor_p50)
        p99 = results.latency(rate, lambda each: each.p99 / each.floor_p99)
        assert p50 is not None
        assert p99 is not None
        yield Target(f"p50 at {rate} events/s, times the floor's", p50.median, 2, at_least=False)
        if rate == 100:
            yield Target("p99 at 100 events/s, times the floor's", p99.median, 5, at_least=False)


def _growth(results: Results) -> Iterator[Target]:
    for rows in results.values("rows", "old_rows")[1:]:
        kept = [
            results.ratio("rows", {"rival": key, "old_rows": rows}, {"rival": key, "old_rows": 0})
            for key in (WORKER, SQLITE)
        ]
        if kept[0] and kept[1]:
            name = f"speed kept beside {rows:,} rows, times that of (d)"
            yield Target(name, kept[0] / kept[1], _NO_CLIFF, at_least=True)
    for workers in results.values("workers", "workers")[1:]:
        ratio = results.ratio("workers", {"workers": workers}, {"workers": 1})
        if ratio:
            yield Target(f"{workers} workers, times one", ratio, 0.9, at_least=True)
    for manifests in results.values("manifests", "manifests")[1:]:
        ratio = results.ratio("manifests", {"manifests": manifests}, {"manifests": 1})
        if ratio:
            yield Target(f"{manifests:,} manifests, times one", ratio, _NO_CLIFF, at_least=True)
    speeds = {
        version: speed.median
        for version in results.values("pythons", "label")
        if (speed := results.speed("pythons", rival=WORKER, label=version))
    }
    if len(speeds) > 1:
        slowest = min(speeds, key=lambda version: speeds[version])
        share = speeds[slowest] / max(speeds.values())
        yield Target(f"slowest Python, {slowest}, times the fastest", share, _NOT_FAR_BEHIND, True)


def _memory(results: Results) -> Iterator[Target]:
    backlogs = results.values("memory", "events")
    peaks = {}
    for events in backlogs:
        peak = spread(results.of("memory", events=events), lambda drained: drained.peak_memory)
        if peak is not None:
            peaks[events] = peak.median / _MEGABYTE
    if len(peaks) > 1:
        small, large = min(peaks), max(peaks)
        name = f"peak memory, {large:,} events over {small:,}"
        yield Target(name, peaks[large] - peaks[small], 30, False, " MB")
        yield Target(f"peak memory, {large:,} events", peaks[large], 150, False, " MB")
