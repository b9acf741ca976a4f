"""What is measured, in which order: sizes, repeats, and the rounds of one part. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tests.bench.data import DataSet
from tests.bench.drain import Drain
from tests.bench.pythons import Python
from tests.bench.rivals import DECODE_SQLITE, PULL, RIVALS, SERIAL, SQLITE, WORKER, drain_rivals

PARTS = ("drain", "latency", "growth", "memory", "pythons")


@dataclass(frozen=True, slots=True)
class Plan:
    """The sizes of a run. `rates` are events a second, each with how many events are sent."""

    events: int = 100_000
    repeat: int = 3
    large: int | None = None
    old_rows: tuple[int, ...] = (0, 1_000_000)
    workers: tuple[int, ...] = (1, 2, 4)
    manifests: tuple[int, ...] = (1, 100, 20_000)
    rates: tuple[tuple[int, int], ...] = ((10, 200), (100, 2000), (1000, 10_000))
    backlogs: tuple[int, int] = (10_000, 1_000_000)

    def full(self) -> "Plan":
        """Return the plan with the sizes that take hours."""
        return replace(self, large=1_000_000, old_rows=(*self.old_rows, 5_000_000))

    def quick(self) -> "Plan":
        """Return a plan that tries everything in about two minutes and proves nothing."""
        return replace(
            self,
            events=3000,
            repeat=2,
            old_rows=(0, 20_000),
            manifests=(1, 100, 2000),
            rates=((10, 20), (100, 150), (1000, 1500)),
            backlogs=(2000, 20_000),
        )

    def drains(self) -> Iterator[Drain]:
        """Yield the drains of all rivals, round-robin.

        The large backlog is not for the serial loop, which would take hours for what it has shown.
        """
        for _ in range(self.repeat):
            yield from (Drain("drain", rival, DataSet(self.events)) for rival in drain_rivals())
        for _ in range(self.repeat if self.large else 0):
            data = DataSet(self.large or 0)
            rivals = (rival for rival in drain_rivals() if rival.key != SERIAL)
            yield from (Drain("large drain", rival, data) for rival in rivals)

    def growth(self) -> Iterator[Drain]:
        """Yield drains beside more rows, by more workers, with more manifests."""
        worker, data = RIVALS[WORKER], DataSet(self.events)
        for _ in range(self.repeat):
            for old_rows in self.old_rows:
                yield Drain("rows", worker, data, old_rows=old_rows)
                yield Drain("rows", RIVALS[SQLITE], data, old_rows=old_rows)
            for workers in self.workers:
                yield Drain("workers", worker, data, workers=workers, held_back=True)
            for manifests in self.manifests:
                yield Drain("manifests", worker, DataSet(self.events, manifests))

    def memory(self) -> Iterator[Drain]:
        """Yield the worker's drains of a small and of a large backlog."""
        for _ in range(self.repeat):
            for events in self.backlogs:
                yield Drain("memory", RIVALS[WORKER], DataSet(events))

    def pythons(self, pythons: list[Python]) -> Iterator[Drain]:
        """Yield drains of the worker under each Python, beside the limits under the same one."""
        for _ in range(self.repeat):
            for python in pythons:
                for key in (WORKER, DECODE_SQLITE, PULL):
                    yield Drain(
                        "pythons",
                        RIVALS[key],
                        DataSet(self.events),
                        python=str(python.executable),
                        label=python.version,
                    )

    def latencies(self) -> Iterator[tuple[int, int, int]]:
        """Yield rate, events and seed of each measurement of latency."""
        for number in range(self.repeat):
            for rate, events in self.rates:
                yield rate, events, 1000 * (number + 1) + rate
