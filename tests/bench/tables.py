"""Large tables: what each index costs a writer, and what retention.sql costs a worker.

The tables are those of sql/<engine>/sample.sql. Each measurement has a copy of them.
"""

import os
import re
import shutil
import sqlite3
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from repo import open_database
from repo.execution_results import START_WRITER, Run
from repo.repository import Repository
from repo.results import Result, result_writer
from tests.bench.broker import BenchBroker
from tests.bench.contenders import PROJECTOR
from tests.bench.measure import probe
from tests.bench.process import ROOT, BenchFailed, Program, run
from tests.bench.results import Ended, Latency
from tests.support.postgresql import Cluster

PARTS = ("indexes", "retention")
ENGINES = ("sqlite", "postgresql")
_ALL = "all indexes"
_PREFIX = "execution_results_"
_BATCH = 500
_BROADCAST = 50
_RATE = 100
_DAYS = 30
_LONGEST = 600.0
_MOST_VISIBLE = 1000
_INDEXES = {
    "sqlite": "SELECT name FROM sqlite_schema WHERE tbl_name = 'execution_results'"
    " AND type = 'index' AND sql IS NOT NULL ORDER BY name",
    "postgresql": "SELECT indexname FROM pg_indexes WHERE tablename = 'execution_results'"
    " AND indexname NOT LIKE '%pkey' ORDER BY 1",
}
_AT = "2026-11-27T12:00:00.123+00:00"


def compared_with(what: str) -> str | None:
    """Return what a measurement without an index is compared with."""
    before, _, _ = what.partition(", without ")
    return None if before == what else f"{before}, {_ALL}"


@dataclass(frozen=True, slots=True)
class MeasureTables:
    """Measures in one folder, with one broker and one PostgreSQL server, on so many rows."""

    folder: Path
    nats: str
    postgresql: Cluster
    rows: int

    def indexes(self, count: int, *, reverse: bool) -> Iterator[Ended]:
        """Yield the CPU time of so many starts and results, with all indexes and without each."""
        for engine in ENGINES:
            with self._copy(engine) as (_, ask):
                each = [(name.removeprefix(_PREFIX),) for (name,) in ask(_INDEXES[engine])]
            cases = [(), *each, ("job_id", "pc_id")]
            for dropped in reversed(cases) if reverse else cases:
                yield from self._write(engine, dropped, count)

    def _write(self, engine: str, dropped: Sequence[str], count: int) -> Iterator[Ended]:
        with self._copy(engine) as (url, ask):
            for index in dropped:
                ask(f"DROP INDEX {_PREFIX}{index}")
            exec_ids = [str(uuid.uuid4()) for _ in range(count // _BROADCAST)]
            columns = "exec_id, job_id, version, initiated_by, target_count, status"
            values = ", ".join(
                f"('{one}', 'j', '1', 'b', {_BROADCAST}, 'running')" for one in exec_ids
            )
            ask(f"INSERT INTO executions ({columns}) VALUES {values}")
            runs = [_run(exec_ids[number // _BROADCAST]) for number in range(count)]
            os.sync()
            case = f"without {' and '.join(dropped)}" if dropped else _ALL
            results = [_result(one, number) for number, one in enumerate(runs, 1)]
            for what, writer, rows in (
                ("starts", START_WRITER, runs),
                ("results", result_writer(None), results),
            ):
                seconds = self._written(url, writer, rows)
                yield Ended(f"{engine}: {what}, {case}", count, seconds)
            if ask("SELECT sum(success_count) FROM executions WHERE initiated_by = 'b'") != [
                (count,)
            ]:
                raise BenchFailed(f"{engine}, {case}: not every run was counted")

    def _written(self, url: str, writer: Any, rows: Sequence[Any]) -> float:
        """Write rows in batches as a worker does, and return the seconds of CPU that it took.

        An index costs CPU; what else the machine does would change the time of a clock more.
        """
        repository = Repository(open_database(url), writer, retry_for=60, give_up=threading.Event())
        with closing(repository):
            repository.write([], [], _reject)  # connects
            began = self._cpu_seconds()
            for at in range(0, len(rows), _BATCH):
                repository.write(rows[at : at + _BATCH], [], _reject)
            return self._cpu_seconds() - began

    def _cpu_seconds(self) -> float:
        """Return the CPU time so far of this process and of the server with its sessions."""
        server = (self.postgresql.data / "postmaster.pid").read_text().split()[0]
        ticks = 0
        for file in Path("/proc").glob("[0-9]*/stat"):
            with suppress(OSError):  # the process has ended
                text = file.read_text()
                # The fields after the name start with field 3 of proc(5).
                fields = text.rpartition(")")[2].split()
                ticks += sum(map(int, fields[11:13])) if fields[1] == server else 0
                ticks += sum(map(int, fields[11:15])) if file.parent.name == server else 0
        return time.process_time() + ticks / os.sysconf("SC_CLK_TCK")

    def retention(self, count: int) -> Iterator[Ended | Latency]:
        """Yield the latency of a worker alone and beside retention.sql, and each batch of that."""
        count = min(count, _MOST_VISIBLE)
        for engine in ENGINES:
            with self._copy(engine) as (url, _), self._worker(url):
                seconds = self._visible(url, count)
            yield Latency(f"{engine}, alone", _RATE, seconds)
            with self._copy(engine) as (url, _), self._worker(url):
                end = threading.Event()
                batches: list[Ended] = []

                def delete(engine: str = engine, url: str = url) -> None:
                    while not end.wait(1):  # noqa: B023
                        batches.append(self._delete(engine, url))  # noqa: B023

                deleting = threading.Thread(target=delete)
                deleting.start()
                try:
                    seconds = self._visible(url, count)
                finally:
                    end.set()
                    deleting.join()
            yield Latency(f"{engine}, beside retention.sql", _RATE, seconds)
            yield from (batch for batch in batches if batch.messages)

    def _delete(self, engine: str, url: str) -> Ended:
        script = ROOT / "sql" / engine / "retention.sql"
        if engine == "sqlite":
            file = url.removeprefix("sqlite:///")
            command = ["sqlite3", file, f".parameter set :days {_DAYS}", f".read {script}"]
        else:
            command = ["psql", "-X", "-q", "-v", f"days={_DAYS}", "-f", str(script), url]
        began = time.monotonic()
        output = run(command, self.folder / "retention.log", _LONGEST)
        seconds = time.monotonic() - began
        deleted = re.findall(r"(\d+) (?:executions|runs)", output)
        return Ended(f"{engine}: rows deleted by retention.sql", sum(map(int, deleted)), seconds)

    def _visible(self, url: str, count: int) -> list[float]:
        place = url.removeprefix("sqlite:///")
        return probe(self.folder, self.nats, place, _RATE, count)

    @contextmanager
    def _worker(self, url: str) -> Iterator[None]:
        command = [str(PROJECTOR), "run", "--nats", self.nats, "--database", url]
        with BenchBroker(self.nats) as broker:
            broker.fill([])
            seen = broker.watch(1)
            with Program(command, self.folder / "worker.log") as program:
                broker.wait_for_request(seen, program)
                yield
                program.stop()

    @contextmanager
    def _copy(self, engine: str) -> Iterator[tuple[str, Callable[[str], list[Any]]]]:
        """Provide a copy of the sample: its URL, and a function that runs a statement in it."""
        if engine == "postgresql":
            name = self._filled_database()
            copy = f"copy_{uuid.uuid4().hex}"
            self.postgresql.ask(f"CREATE DATABASE {copy} TEMPLATE {name} STRATEGY file_copy")
            yield self.postgresql.url(copy), lambda sql: self.postgresql.ask(sql, copy)
            self.postgresql.drop_database(copy)
            return
        path = Path(shutil.copyfile(self._filled_file(), self.folder / "copy.db"))
        yield f"sqlite:///{path}", lambda sql: _ask(path, sql)
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)

    def _filled_file(self) -> Path:
        path = self.folder / "sample.db"
        if not path.exists():
            log = self.folder / "sample.log"
            run([str(PROJECTOR), "migrate", "--database", f"sqlite:///{path}"], log)
            script = ROOT / "sql" / "sqlite" / "sample.sql"
            chosen = f".parameter set :runs {self.rows}"
            run(["sqlite3", str(path), chosen, f".read {script}"], log, _LONGEST)
        return path

    def _filled_database(self) -> str:
        name = "sample"
        if not self.postgresql.ask(f"SELECT 1 FROM pg_database WHERE datname = '{name}'"):
            self.postgresql.ask(f"CREATE DATABASE {name} TEMPLATE template0")
            url = self.postgresql.url(name)
            open_database(url).migrate()
            script = ROOT / "sql" / "postgresql" / "sample.sql"
            command = ["psql", "-X", "-q", "-v", f"runs={self.rows}", "-f", str(script), url]
            run(command, self.folder / "sample.log", _LONGEST)
            self.postgresql.ask("VACUUM ANALYZE", name)
        return name


def _reject(index: int, reason: str) -> Any:
    raise BenchFailed(f"row {index} was rejected: {reason}")


def _ask(path: Path, sql: str) -> list[Any]:
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as connection:
        return connection.execute(sql).fetchall()


def _run(exec_id: str) -> Run:
    name = str(uuid.uuid4())
    number = int(name[:8], 16)
    return Run(
        result_id=name,
        request_id=exec_id,
        exec_id=exec_id,
        pc_id=f"pc-{number % 5000}",
        started_at=_AT,
        version="1",
        job_id=f"job-{number % 40}",
        recorded_at=_AT,
        expires_at=_AT,
    )


def _result(one: Run, sequence: int) -> Result:
    return Result(
        **{name: getattr(one, name) for name in ("result_id", "request_id", "exec_id", "pc_id")},
        started_at=one.started_at,
        exit_code=0,
        stdout="." * 1024,
        stderr="",
        finished_at=_AT,
        job_id=one.job_id,
        recorded_at=_AT,
        skipped=False,
        parent_result_id=None,
        stream_sequence=sequence,
    )
