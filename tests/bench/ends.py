"""Measurements of results: their drain, alone and beside starts, and when a result is visible.

Both streams at once are compared with two workers at once, one for each stream, and with one stream
after the other. Each measurement checks the tables at its end, or raises BenchFailed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from tests.bench.broker import BenchBroker
from tests.bench.contenders import PROJECTOR, THIS_WORKER
from tests.bench.data import BROADCAST, Event, Result, make_events, make_results
from tests.bench.database import check_ends, check_tables, fresh_database
from tests.bench.measure import probe
from tests.bench.process import Program
from tests.bench.results import VISIBLE_FLOOR, Ended, Latency
from tests.support.broker import CONSUMER, RESULTS, RESULTS_CONSUMER, STREAM
from tests.support.nats_server import NatsServer
from tests.support.waiting import eventually

BOTH = ("starts", "results")
_STARTS = (STREAM, CONSUMER)
_RESULTS = (RESULTS, RESULTS_CONSUMER)
_LONGEST = 600.0
_RATE = 100
_MOST_VISIBLE = 1000

# What is measured.
STARTS_ALONE = "starts"
RESULTS_ALONE = "results, their runs in flight"
ONE_WORKER = "both streams, one worker"
TWO_WORKERS = "both streams, a worker for each"
IN_TURN = "one stream after the other"
ONE_EXECUTION = "results of one execution"
HUNDRED_EXECUTIONS = "results of a hundred executions"
VISIBLE = "the worker, a result"

# What each of them is compared with.
COMPARED = {
    RESULTS_ALONE: STARTS_ALONE,
    ONE_WORKER: TWO_WORKERS,
    IN_TURN: ONE_WORKER,
    ONE_EXECUTION: HUNDRED_EXECUTIONS,
}


class Backlog(NamedTuple):
    """What a server holds, and what the worker on it projects."""

    nats: str
    projections: Sequence[str]
    starts: Sequence[Event]
    results: Sequence[Result]

    @property
    def consumers(self) -> Iterator[tuple[int, tuple[str, str]]]:
        """The stream and the consumer of each kind that it has, with the number of messages."""
        for messages, consumer in ((self.starts, _STARTS), (self.results, _RESULTS)):
            if messages:
                yield len(messages), consumer


@dataclass(frozen=True, slots=True)
class MeasureEnds:
    """Measures in one folder, with one server."""

    folder: Path
    nats: str

    def round(self, runs: int, *, reverse: bool) -> Iterator[Ended | Latency]:
        """Yield one measurement of each kind with so many runs, if any.

        A tenth of their results, but a hundred at least, is counted for one execution.
        """
        if not runs:
            return
        some = max(100, runs // 10)
        measurements: list[Callable[[], Ended]] = [
            lambda: self.starts(runs),
            lambda: self.results(RESULTS_ALONE, runs),
            lambda: self.both(ONE_WORKER, runs),
            lambda: self.both(TWO_WORKERS, runs),
            lambda: self.results(ONE_EXECUTION, some, some),
            lambda: self.results(HUNDRED_EXECUTIONS, some, some // 100),
        ]
        alone: dict[str, float] = {}
        for measure in reversed(measurements) if reverse else measurements:
            ended = measure()
            alone[ended.what] = ended.seconds
            yield ended
        yield Ended(IN_TURN, 2 * runs, alone[STARTS_ALONE] + alone[RESULTS_ALONE])
        yield from self.visible(_RATE, min(some, _MOST_VISIBLE))

    def starts(self, count: int) -> Ended:
        """Drain starts alone."""
        path = fresh_database(self.folder, PROJECTOR, count)
        backlog = Backlog(self.nats, ("starts",), list(make_events(count)), [])
        seconds = self._drain(path, [backlog])
        check_tables(path, count)
        return Ended(STARTS_ALONE, count, seconds)

    def results(self, what: str, count: int, size: int = BROADCAST) -> Ended:
        """Drain results alone, of executions with `size` runs, which are in flight."""
        path = fresh_database(self.folder, PROJECTOR, count, size, in_flight=True)
        backlog = Backlog(self.nats, BOTH, [], list(make_results(count, size)))
        seconds = self._drain(path, [backlog])
        check_ends(path, count, size)
        return Ended(what, count, seconds)

    def both(self, what: str, count: int) -> Ended:
        """Drain starts and their results, stored by turns, with one worker.

        Two workers share the database; the one of the results has a server without starts.
        """
        path = fresh_database(self.folder, PROJECTOR, count)
        starts, results = list(make_events(count)), list(make_results(count))
        if what == ONE_WORKER:
            seconds = self._drain(path, [Backlog(self.nats, BOTH, starts, results)])
        else:
            other = NatsServer(self.folder / "other")
            try:
                other.start()
                of_starts = Backlog(self.nats, ("starts",), starts, [])
                of_results = Backlog(other.url, BOTH, [], results)
                seconds = self._drain(path, [of_starts, of_results])
            finally:
                other.stop()
        check_ends(path, count)
        return Ended(what, 2 * count, seconds)

    def visible(self, rate: int, count: int) -> Iterator[Latency]:
        """Yield how long it takes until a result is visible at a rate, and the floor of that."""
        for title, arguments in ((VISIBLE_FLOOR, ["--floor"]), (VISIBLE, [])):
            path = fresh_database(self.folder, PROJECTOR, count, in_flight=True)
            with BenchBroker(self.nats) as broker, ExitStack() as programs:
                broker.fill_both([], [])
                if not arguments:
                    seen = broker.watch(count, *_RESULTS)
                    program = programs.enter_context(
                        self._worker(path, self.nats, BOTH, until_idle=False)
                    )
                    broker.wait_for_request(seen, program)
                asked = ("--results", *arguments)
                seconds = probe(self.folder, self.nats, path, rate, count, *asked)
                if not arguments:
                    program.stop()
                    check_ends(path, count)
            yield Latency(title, rate, seconds, of_results=True)

    def _drain(self, path: Path, backlogs: Sequence[Backlog]) -> float:
        """Return the seconds from the first pull request of a backlog to the last ack of all."""
        with ExitStack() as closing:
            brokers = [closing.enter_context(BenchBroker(one.nats)) for one in backlogs]
            drains = []
            for broker, backlog in zip(brokers, backlogs, strict=True):
                broker.fill_both(backlog.starts, backlog.results)
                drains += [(broker, *consumer) for consumer in backlog.consumers]
            # Otherwise the kernel would write back the backlog while the program is measured.
            os.sync()
            seen = [broker.watch(count, *consumer) for broker, count, consumer in drains]
            workers = [
                closing.enter_context(self._worker(path, one.nats, one.projections))
                for one in backlogs
            ]
            broker = brokers[0]
            began = min(broker.wait_for_request(one, workers[0]) for one in seen)
            for one in seen:
                eventually(lambda: one.last_ack, _LONGEST)  # noqa: B023
            for worker in workers:
                worker.output()
            return max(broker.last_ack(*consumer) for broker, _, consumer in drains) - began

    def _worker(
        self, path: Path, nats: str, projections: Sequence[str], *, until_idle: bool = True
    ) -> Program:
        command = THIS_WORKER.command(nats, path, until_idle=until_idle)
        return Program(command, self.folder / f"{'-'.join(projections)}.log", projections)
