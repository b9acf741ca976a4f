"""All that was measured, what follows from it, and the file that holds both."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tests.bench.drain import Drained
from tests.bench.figures import Spread
from tests.bench.latency import Latency


@dataclass(slots=True)
class Results:
    """Every single measurement, in the order in which they were made."""

    drains: list[Drained] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)

    def of(self, part: str, **wanted: Any) -> list[Drained]:
        """Return the drains of a part, or of those with the wanted values."""
        return [
            drained
            for drained in self.drains
            if drained.part == part
            and all(getattr(drained, name) == value for name, value in wanted.items())
        ]

    def speed(self, part: str, **wanted: Any) -> Spread | None:
        """Return the spread of the events a second, None where nothing was measured."""
        return spread(self.of(part, **wanted), lambda drained: drained.events_a_second)

    def ratio(self, part: str, over: dict[str, Any], under: dict[str, Any]) -> float | None:
        """Return the ratio of the median speeds of two choices within one part."""
        first, second = self.speed(part, **over), self.speed(part, **under)
        return first.median / second.median if first and second else None

    def latency(self, rate: float, value: Callable[[Latency], float]) -> Spread | None:
        """Return the spread of one figure of the latency at a rate."""
        found = [value(each) for each in self.latencies if each.rate == rate]
        return Spread.of(found) if found else None

    def values(self, part: str, name: str) -> list[Any]:
        """Return the different values that something had in a part, in order."""
        return sorted({getattr(drained, name) for drained in self.of(part)})

    def rivals(self, part: str) -> list[str]:
        """Return who took part, in the order of their first measurement."""
        return list(dict.fromkeys(drained.rival for drained in self.of(part)))

    def as_dict(self) -> dict[str, Any]:
        """Return all measurements as plain values."""
        return {
            "drains": [asdict(drained) for drained in self.drains],
            "latencies": [asdict(latency) for latency in self.latencies],
        }

    @classmethod
    def read(cls, path: Path) -> "Results":
        """Return the results that a file holds."""
        told = json.loads(path.read_text("utf-8"))["measurements"]
        return cls(
            [Drained(**each) for each in told["drains"]],
            [Latency(**each) for each in told["latencies"]],
        )


def spread(drains: Iterable[Drained], value: Callable[[Drained], float]) -> Spread | None:
    """Return the spread of one figure of some drains; None where there are none."""
    found = [value(drained) for drained in drains]
    return Spread.of(found) if found else None
