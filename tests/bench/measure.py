"""One measurement: a drain of a backlog, the latency at a rate, or the floor of the latency.

Each prepares a fresh stream and database, and checks the tables at the end, or raises BenchFailed.
"""

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.broker import BenchBroker, Seen
from tests.bench.contenders import PROJECTOR, Contender
from tests.bench.data import make_events
from tests.bench.database import check_tables, fresh_database
from tests.bench.process import Program, run
from tests.bench.results import FLOOR, Drained, Latency
from tests.support.waiting import eventually

_LONGEST = 3600.0
_FASTEST_FLOOR = 100.0
_MOST_FLOOR_EVENTS = 500


@dataclass(frozen=True, slots=True)
class Measure:
    """Measures in one folder, with one server."""

    folder: Path
    nats: str

    def round(
        self, contenders: Sequence[Contender], events: int, rates: dict[int, int]
    ) -> Iterator[Drained | Latency]:
        """Yield a drain of so many events, if any, and the latencies at each rate."""
        for contender in contenders if events else ():
            yield self.drain(contender, events)
        for rate, count in rates.items():
            yield self.floor(rate, count)
            for contender in contenders:
                if contender.kind != "limit":
                    yield self.latency(contender, rate, count)

    def drain(self, contender: Contender, count: int) -> Drained:
        """Drain a fresh backlog: from the first pull request to the last ack."""
        path = fresh_database(self.folder, contender.projector, count)
        command = contender.command(self.nats, path)
        if contender.kind == "limit":
            command += ["--events", str(count)]
            seconds = json.loads(run(command, self.folder / "limit.log", _LONGEST))
            check_tables(path, count)
            return Drained(contender.title, contender.kind, count, seconds)
        with BenchBroker(self.nats) as broker:
            broker.fill(make_events(count))
            # Otherwise the kernel would write back the backlog while the program is measured.
            os.sync()
            seen = broker.watch(count)
            with Program(command, self.folder / "program.log") as program:
                began = broker.wait_for_request(seen, program)
                cpu = _cpu_until_last_ack(program, seen)
                eventually(broker.is_acked, 30)
                # The worker ends by itself when it is idle.
                program.output() if contender.kind == "worker" else program.stop()
            seconds = broker.last_ack() - began
            check_tables(path, count, broker.stored_at)
        return Drained(contender.title, contender.kind, count, seconds, cpu)

    def latency(self, contender: Contender, rate: int, count: int) -> Latency:
        """Measure from publishing an event to seeing its row, at `rate` events a second."""
        path = fresh_database(self.folder, contender.projector, count)
        command = contender.command(self.nats, path, until_idle=False)
        with BenchBroker(self.nats) as broker:
            broker.fill([])
            seen = broker.watch(count)
            with Program(command, self.folder / "program.log") as program:
                broker.wait_for_request(seen, program)
                seconds = self._probe(path, rate, count)
                eventually(broker.is_acked, 30)
                program.stop()
            check_tables(path, count, broker.stored_at)
        return Latency(contender.title, rate, seconds)

    def floor(self, rate: int, count: int) -> Latency:
        """Measure a round trip to the stream and a commit, for some events."""
        count = min(count, _MOST_FLOOR_EVENTS)
        path = fresh_database(self.folder, PROJECTOR, count)
        with BenchBroker(self.nats) as broker:
            broker.fill([])
        seconds = self._probe(path, min(rate, _FASTEST_FLOOR), count, "--floor")
        return Latency(FLOOR, rate, seconds)

    def _probe(self, path: Path, rate: float, count: int, *arguments: str) -> list[float]:
        return probe(self.folder, self.nats, path, rate, count, *arguments)


def probe(
    folder: Path, nats: str, database: Path | str, rate: float, count: int, *arguments: str
) -> list[float]:
    """Run the program that publishes and observes; return its figures in ascending order."""
    os.sync()
    command = [sys.executable, "-m", "tests.bench.probe", "--nats", nats, *arguments]
    command += ["--database", str(database), "--rate", str(rate), "--events", str(count)]
    return sorted(json.loads(run(command, folder / "probe.log", count / rate + 60)))


def _cpu_until_last_ack(program: Program, seen: Seen) -> float:
    """Return the CPU seconds from now until the last ack is seen or the program ends."""
    first = last = program.cpu_seconds()
    while seen.last_ack is None and last is not None:
        program.check_running()
        time.sleep(0.05)
        last = program.cpu_seconds() or last
    return (last or 0.0) - (first or 0.0)
