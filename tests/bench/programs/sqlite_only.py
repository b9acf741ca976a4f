"""A limit: the same rows through the worker's own repository, in batches, with no broker.

`--decode` begins with payloads instead of rows, as the worker does: decode, deadline, write. It
prints the seconds of the writing as JSON; making the data is not part of them.
"""

import itertools
import json
import threading
import time
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from typing import TypeVar

from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.repository import Repository
from repo.sqlite.database import Database
from tests.bench.data import DataSet, Event
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.messages import Batch, Message
from worker.processing.processor import Projection
from worker.projections.manifests import Manifest, ManifestCache, read_timeout
from worker.settings import Settings
from worker.status.counters import Counters

_Item = TypeVar("_Item")

_BATCH = Settings(nats_urls=(), database="").batch


def main() -> None:
    """Prepare everything, write everything, tell how long the writing took."""
    parser = ArgumentParser()
    parser.add_argument("--database", required=True)
    parser.add_argument("--events", type=int, required=True)
    parser.add_argument("--manifests", type=int, required=True)
    parser.add_argument("--decode", action="store_true")
    given = parser.parse_args()
    data = DataSet(given.events, given.manifests)
    database = Database(f"sqlite:///{given.database}")
    with Repository(database, retry_for=10, give_up=threading.Event()) as repository:
        steps = (projecting if given.decode else writing)(data, repository)
        began = time.perf_counter()
        for step in steps:
            step()
        seconds = time.perf_counter() - began
    print(json.dumps({"seconds": seconds}))


def writing(data: DataSet, repository: Repository) -> list[Callable[[], object]]:
    """Return one step a batch that writes rows which are ready."""

    def write(runs: list[Run]) -> Callable[[], object]:
        return lambda: repository.write(runs, [], refuse)

    recorded_at = itertools.count(time.time_ns(), 1001)
    rows = (run_of(event, recorded) for event, recorded in zip(data, recorded_at, strict=False))
    return [write(runs) for runs in _batches(rows)]


def projecting(data: DataSet, repository: Repository) -> list[Callable[[], object]]:
    """Return one step a batch that decodes payloads, adds deadlines and writes."""
    cache = ManifestCache()
    cache.replace(
        {
            name: Manifest(1, read_timeout(json.dumps({"execute": {"timeout": text}}).encode()))
            for name, text in data.timeouts().items()
        }
    )
    projection = Projection("EVENTS", cache, Counters())

    def project(number: int, messages: list[Message]) -> Callable[[], object]:
        batch = Batch(number, tuple(messages))
        return lambda: projection.project(batch, repository, lambda: None)

    now = time.time_ns()
    messages = (
        Message(event.subject, event.payload, sequence, 1, now + sequence * 1001)
        for sequence, event in enumerate(data, start=1)
    )
    return [project(number, batch) for number, batch in enumerate(_batches(messages), start=1)]


def refuse(_index: int, reason: str) -> RejectedEvent:
    """Fail: the tables refuse none of these rows."""
    raise AssertionError(reason)


def run_of(event: Event, recorded_at: int) -> Run:
    """Return the row of an event that was recorded at an instant in nanoseconds since 1970."""
    return Run(
        result_id=event.result_id,
        request_id=event.request_id,
        exec_id=event.exec_id,
        pc_id=event.pc_id,
        started_at=format_instant(parse_instant(event.started_at)),
        version=event.version,
        job_id=event.manifest_id,
        recorded_at=format_instant(recorded_at),
        expires_at=format_instant(recorded_at + event.deadline_after * NANOSECONDS),
    )


def _batches(items: Iterator[_Item]) -> Iterator[list[_Item]]:
    while batch := list(itertools.islice(items, _BATCH)):
        yield batch


if __name__ == "__main__":
    main()
