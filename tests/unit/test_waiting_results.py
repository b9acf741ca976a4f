"""Which results of a batch wait for the starts that were stored before them, in a real file."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from repo import open_database
from repo.checkpoint import CheckpointGuard, Position
from repo.repository import GuardedRepository
from repo.results import Result, result_writer
from tests.support import events
from tests.support.rows import Row, Rows
from worker.messages import (
    ALWAYS,
    Ack,
    Batch,
    BatchResult,
    Fetch,
    Message,
    Output,
    StreamPosition,
    Wait,
)
from worker.processing.processor import BatchProcessor
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.status.counters import Counters

POSITION = Position("RESULTS", "consumer")
CREATED = "2026-05-20T00:00:00+00:00"
READY_UNTIL = 1000
LATER = READY_UNTIL + 1


class Bench:
    """A processor of results with a repository of the test's own file."""

    def __init__(self, rows: Rows, repository: GuardedRepository[Result]) -> None:
        self.rows = rows
        self.counters = Counters()
        self._repository = repository
        self._processor = BatchProcessor(RESULTS, "RESULTS", ManifestCache(), self.counters)

    def process(self, *messages: Message, number: int = 1, **options: Any) -> BatchResult:
        position = StreamPosition(CREATED, 0)
        batch = Batch(number, messages, position, **{"ready_until": READY_UNTIL, **options})
        result = self._processor.process(batch, self._repository, lambda: None)
        assert len(result.decisions) == len(messages)
        left = sum(not isinstance(one, Ack) for one in result.decisions)
        assert result.failure or result.left == left
        return result

    def start(self, *result_ids: str) -> None:
        for result_id in result_ids:
            self.rows.insert_in_flight(result_id)

    def run(self, result_id: str) -> Row:
        run = self.rows.run(result_id)
        assert run is not None
        return run


@pytest.fixture
def bench(rows: Rows) -> Iterator[Bench]:
    with GuardedRepository(
        open_database(rows.url, busy_timeout=0.02),
        result_writer(POSITION),
        retry_for=0.0,
        give_up=threading.Event(),
        guard=CheckpointGuard(POSITION),
    ) as repository:
        repository.begin(repository.recall(), CREATED, CREATED, start_over=False)
        yield Bench(rows, repository)


def message(result_id: str, sequence: int, stored_at: int = LATER, **members: Any) -> Message:
    payload = json.dumps(events.result(result_id=result_id, **members)).encode()
    return Message("results.q", payload, sequence, 1, stored_at)


def test_only_a_result_without_a_row_waits_and_all_that_are_behind_it(bench: Bench) -> None:
    bench.start("first", "behind")
    batch = [message(name, at) for at, name in enumerate(("first", "without", "behind"), start=1)]
    assert bench.process(*batch).decisions == (Ack(), Wait(), Wait())
    assert bench.rows.result_ids() == ["behind", "first"]
    assert bench.run("behind")["finished_at"] is None
    (checkpoint,) = bench.rows.query("SELECT last_sequence FROM checkpoints")
    assert checkpoint["last_sequence"] == 1
    assert bench.counters["messages"] == 1


def test_nothing_is_written_where_the_first_result_waits(bench: Bench) -> None:
    batch = [message("without", 1), message("malformed", 2, exit_code=None)]
    assert bench.process(*batch).decisions == (Wait(), Wait())
    assert (bench.rows.count(), bench.rows.rejected(), bench.counters["batches"]) == (0, [], 0)


@pytest.mark.parametrize(("stored_at", "until"), [(READY_UNTIL, READY_UNTIL), (LATER, ALWAYS)])
def test_a_result_waits_for_no_start_that_was_stored_after_it(
    bench: Bench, stored_at: int, until: int
) -> None:
    result = bench.process(message("without", 1, stored_at), ready_until=until)
    assert result.decisions == (Ack(),)
    assert bench.rows.result_ids() == ["without"]


def test_a_batch_that_was_made_before_another_came_back_waits_as_a_whole(bench: Bench) -> None:
    assert bench.process(message("run", 1), number=1).decisions == (Wait(),)
    bench.start("run")
    # Another result of the same run: the first one has to win, though the row exists by now.
    other = message("run", 2, exit_code=7, stdout_object="never")
    assert bench.process(other, number=2, after=0).decisions == (Wait(),)
    both = bench.process(message("run", 1), other._replace(output=Output()), number=3, after=2)
    assert both.decisions == (Ack(), Ack())
    assert bench.run("run")["exit_code"] == 0


def test_output_is_fetched_only_for_a_result_that_need_not_wait(bench: Bench) -> None:
    offloaded = message("run", 1, stdout="", stdout_object="key")
    assert bench.process(offloaded, number=1).decisions == (Wait(),)
    bench.start("run")
    (decision,) = bench.process(offloaded, number=2, after=1).decisions
    assert not isinstance(decision, Ack | Wait)
    fetched = offloaded._replace(output=Output(stdout="whole"))
    assert bench.process(fetched, number=3, after=2).decisions == (Ack(),)
    assert bench.run("run")["stdout"] == "whole"


def test_what_comes_after_a_result_that_is_fetched_for_waits_for_it_in_any_batch(
    bench: Bench,
) -> None:
    bench.start("run", "other")
    first = message("run", 1, stdout_object="key")
    second, third, fourth = (message("run", at, exit_code=7) for at in (2, 3, 4))
    behind = Fetch(None, None, "run")
    found = bench.process(first, second, message("other", 9), number=1)
    assert found.decisions == (Fetch("key", None, "run"), behind, Ack())
    # This batch was made before what became of the first one was known, and the next one after it.
    assert bench.process(third, number=2, after=0).decisions == (behind,)
    known = bench.process(fourth, number=3, after=2, fetching=frozenset({"run"}))
    assert known.decisions == (behind,)
    done = [one._replace(output=Output()) for one in (first, second)]
    assert bench.process(*done, number=4, after=3).decisions == (Ack(), Ack())
    assert bench.run("run")["exit_code"] == 0


def test_a_database_that_fails_costs_no_message_whether_it_waits_or_not(bench: Bench) -> None:
    bench.start("first")
    with bench.rows.locked():
        failed = bench.process(message("first", 1), message("without", 2))
    assert failed.failure is not None
    assert not {Ack(), Wait()} & set(failed.decisions)
