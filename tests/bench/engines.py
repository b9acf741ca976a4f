"""The worker on PostgreSQL beside the worker on SQLite, and several workers beside one.

The server is Debian's, on the same machine, with its defaults: it syncs each commit. Each
measurement compares every row with its event, or raises BenchFailed.
"""

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from tests.bench.broker import BenchBroker
from tests.bench.contenders import PROJECTOR
from tests.bench.data import BROADCAST, make_events
from tests.bench.database import check_tables, fresh_database
from tests.bench.measure import probe
from tests.bench.process import BenchFailed, Program
from tests.bench.results import Ended, Latency
from tests.support.postgresql import Cluster
from tests.support.waiting import eventually

ON_SQLITE = "on SQLite, one worker"
ON_POSTGRESQL = "on PostgreSQL, one worker"
TWO = "on PostgreSQL, two workers"
FOUR = "on PostgreSQL, four workers"
_WORKERS = {ON_SQLITE: 1, ON_POSTGRESQL: 1, TWO: 2, FOUR: 4}

# What each of them is compared with.
COMPARED = {
    ON_POSTGRESQL: ON_SQLITE,
    TWO: ON_POSTGRESQL,
    FOUR: ON_POSTGRESQL,
}
_DURABLE: dict[str, str] = {"fsync": "on", "full_page_writes": "on", "shared_buffers": "128MB"}
_RUNS = "SELECT count(*), count(DISTINCT result_id), count(expires_at) FROM execution_results"
_LONGEST = 600.0
_RATE = 100
_MOST_VISIBLE = 1000


@dataclass(frozen=True, slots=True)
class MeasureEngines:
    """Measures in one folder, with one broker and one PostgreSQL server."""

    folder: Path
    nats: str
    postgresql: Cluster

    def round(self, count: int, *, reverse: bool) -> Iterator[Ended | Latency]:
        """Yield drains of so many starts, and the latency on each engine."""
        whats: list[str] = [ON_SQLITE, ON_POSTGRESQL, TWO, FOUR]
        for what in reversed(whats) if reverse else whats:
            yield self.drain(what, count)
        for what in (ON_SQLITE, ON_POSTGRESQL):
            yield self.visible(what, min(max(count // 10, 100), _MOST_VISIBLE))

    def drain(self, what: str, count: int) -> Ended:
        """Drain starts, from the first pull request to the last ack."""
        with (
            self._database(what, count) as (url, path),
            BenchBroker(self.nats) as broker,
            ExitStack() as programs,
        ):
            broker.fill(make_events(count))
            os.sync()
            seen = broker.watch(count)
            workers = [
                programs.enter_context(self._worker(url, number))
                for number in range(_WORKERS[what])
            ]
            began = broker.wait_for_request(seen, workers[0])
            eventually(lambda: seen.last_ack, _LONGEST)
            eventually(broker.is_acked, 30)
            for worker in workers:
                worker.output()
            seconds = broker.last_ack() - began
            self._check(what, path, url, count)
        return Ended(what, count, seconds)

    def visible(self, what: str, count: int) -> Latency:
        """Measure from publishing a start to seeing its row, at a hundred a second."""
        with self._database(what, count) as (url, path), BenchBroker(self.nats) as broker:
            broker.fill([])
            seen = broker.watch(count)
            with self._worker(url, 0, until_idle=False) as program:
                broker.wait_for_request(seen, program)
                place = path if what == ON_SQLITE else url
                seconds = probe(self.folder, self.nats, place, _RATE, count)
                program.stop()
        return Latency(what, _RATE, seconds)

    @contextmanager
    def _database(self, what: str, count: int) -> Iterator[tuple[str, Path]]:
        """Provide a new database with the pending executions of the events."""
        path = fresh_database(self.folder, PROJECTOR, count)
        if what == ON_SQLITE:
            yield f"sqlite:///{path}", path
            return
        name = self.postgresql.create_database()
        executions = {event.members["exec_id"]: event.members for event in make_events(count)}
        values = ", ".join(
            f"('{exec_id}', '{members['manifest_id']}', '1', 'benchmark', {BROADCAST})"
            for exec_id, members in executions.items()
        )
        columns = "exec_id, job_id, version, initiated_by, target_count"
        self.postgresql.ask(f"INSERT INTO executions ({columns}) VALUES {values}", name)
        self.postgresql.ask("CHECKPOINT", name)
        yield self.postgresql.url(name), path
        self.postgresql.drop_database(name)

    def _check(self, what: str, path: Path, url: str, count: int) -> None:
        if what == ON_SQLITE:
            check_tables(path, count)
            return
        with psycopg.connect(url) as connection:
            found = connection.execute(_RUNS).fetchall()
            statuses = connection.execute("SELECT DISTINCT status FROM executions").fetchall()
        if found != [(count, count, count)] or statuses != [("running",)]:
            raise BenchFailed(f"{what}: {count} starts became {found}, executions {statuses}")

    def _worker(self, url: str, number: int, *, until_idle: bool = True) -> Program:
        idle = ["--until-idle"] if until_idle else []
        command = [str(PROJECTOR), "run", *idle, "--nats", self.nats, "--database", url]
        return Program(command, self.folder / f"worker-{number}.log")


@contextmanager
def measuring_engines(folder: Path, nats: str) -> Iterator[MeasureEngines]:
    """Provide a server of this run's own."""
    cluster = Cluster(_DURABLE)
    try:
        yield MeasureEngines(folder, nats, cluster)
    finally:
        cluster.remove()
