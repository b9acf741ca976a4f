"""Every measurement of a run, and the figures that follow from them. Pure."""

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

WORKER = "the worker"
FLOOR = "floor: round trip and commit"
VISIBLE_FLOOR = "floor of a result: round trip and commit"


@dataclass(frozen=True, slots=True)
class Spread:
    """The median of some values, with the least and the greatest."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Spread":
        found = list(values)
        return cls(statistics.median(found), min(found), max(found))

    def text(self, form: str) -> str:
        """Return the three values, each formatted as `form` says."""
        return f"{self.median:{form}}  {self.least:{form}}–{self.most:{form}}"


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Return the smallest of the ascending values that `percent` of them do not exceed."""
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


@dataclass(frozen=True, slots=True)
class Drained:
    """One measurement of a drain. CPU time is in seconds for all events; limits have none."""

    program: str
    kind: str
    events: int
    seconds: float
    cpu: float | None = None

    @property
    def rate(self) -> float:
        """Events a second."""
        return self.events / self.seconds

    def __str__(self) -> str:
        return f"drain: {self.rate:,.0f} events/s, {self.program}"


@dataclass(frozen=True, slots=True)
class Ended:
    """One measurement of both streams or of results: `messages` of them in all."""

    what: str
    messages: int
    seconds: float

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    def __str__(self) -> str:
        return f"results: {self.rate:,.0f} messages/s, {self.what}"


@dataclass(frozen=True, slots=True)
class Latency:
    """One measurement of latency, or of its floor: the seconds of each event, ascending.

    `of_results` is set where results were published, else starts.
    """

    program: str
    rate: int
    seconds: list[float]
    of_results: bool = False

    def percent(self, percent: float) -> float:
        """Return within how many milliseconds so many percent of the rows were visible."""
        return percentile(self.seconds, percent) * 1000

    def __str__(self) -> str:
        figures = f"p50 is {self.percent(50):,.2f} ms, the longest {self.percent(100):,.2f} ms"
        return f"latency at {self.rate:,} events/s: {figures}, {self.program}"


@dataclass(slots=True)
class Results:
    """The measurements in the order of the rounds."""

    drains: list[Drained] = field(default_factory=list)
    latencies: list[Latency] = field(default_factory=list)
    ends: list[Ended] = field(default_factory=list)

    def add(self, measured: Drained | Latency | Ended) -> None:
        if isinstance(measured, Drained):
            self.drains.append(measured)
        elif isinstance(measured, Ended):
            self.ends.append(measured)
        else:
            self.latencies.append(measured)

    def by_program(self) -> dict[str, list[Drained]]:
        """Return the drains of each program, one a round."""
        return {each.program: self.of(each.program) for each in self.drains}

    def of(self, program: str) -> list[Drained]:
        return [drained for drained in self.drains if drained.program == program]

    def ratio(self, to: str) -> Spread:
        """Return the worker's rate divided by that of a program in the same round."""
        rounds = zip(self.of(WORKER), self.of(to), strict=True)
        return Spread.of(worker.rate / other.rate for worker, other in rounds)

    def ended(self, what: str) -> list[Ended]:
        """Return one kind of measurement, one a round."""
        return [each for each in self.ends if each.what == what]

    def floor_of(self, latency: Latency) -> str | None:
        """Return the name of the floor of a measurement, if it has one that was measured."""
        name = VISIBLE_FLOOR if latency.of_results else FLOOR
        is_measured = (latency.rate, name) in self.by_rate()
        return name if is_measured and latency.program != name else None

    def over_floor(self, latencies: Sequence[Latency], percent: float) -> Spread:
        """Return a program's percentile divided by the floor's in the same round."""
        name = VISIBLE_FLOOR if latencies[0].of_results else FLOOR
        floors = self.by_rate()[latencies[0].rate, name]
        rounds = zip(latencies, floors, strict=True)
        return Spread.of(one.percent(percent) / floor.percent(percent) for one, floor in rounds)

    def by_rate(self) -> dict[tuple[int, str], list[Latency]]:
        """Return the latencies of each rate and program, one a round; those of results last."""
        groups: dict[tuple[int, str], list[Latency]] = {}
        for each in sorted(self.latencies, key=lambda each: (each.of_results, each.rate)):
            groups.setdefault((each.rate, each.program), []).append(each)
        return groups
