"""Batches of starts become rows and decisions, in a real database file."""

import logging
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from repo import open_database
from repo.checkpoint import CheckpointGuard, Position
from repo.execution_results import START_WRITER, Run
from repo.repository import GuardedRepository
from tests.support.events import payload
from tests.support.rows import Row, Rows
from worker.codec.timestamps import parse_instant
from worker.messages import LONGEST_NAK_DELAY, Ack, Batch, BatchResult, Message, Nak, StreamPosition
from worker.processing.processor import BatchProcessor
from worker.projections.manifests import ManifestCache
from worker.projections.starts import STARTS
from worker.status.counters import Counters

SECOND = 10**9
STORED_AT = parse_instant("2026-05-20T12:00:01.000000001Z")
CREATED = "2026-05-20T00:00:00+00:00"
REJECT_BAD = """
CREATE TRIGGER other_program BEFORE INSERT ON execution_results WHEN NEW.pc_id = 'bad'
BEGIN SELECT RAISE(ABORT, 'no such PC'); END
"""


class Bench:
    """A processor with its counters and a repository of the test's own file."""

    def __init__(self, rows: Rows, repository: GuardedRepository[Run]) -> None:
        self.rows = rows
        self.repository = repository
        self.counters = Counters()
        self.processor = BatchProcessor(STARTS, "EVENTS", ManifestCache(), self.counters)

    def process(self, *messages: Message, position: StreamPosition | None = None) -> BatchResult:
        batch = Batch(1, messages, position)
        result = self.processor.process(batch, self.repository, lambda: None)
        assert result.batch is batch
        return result

    def checkpoint(self) -> Row:
        (found,) = self.rows.query("SELECT * FROM checkpoints")
        return found


@pytest.fixture
def bench(rows: Rows) -> Iterator[Bench]:
    guard = CheckpointGuard(Position("EVENTS", "consumer"))
    with GuardedRepository(
        open_database(rows.url, busy_timeout=0.02),
        START_WRITER,
        retry_for=0.0,
        give_up=threading.Event(),
        guard=guard,
    ) as repository:
        repository.begin(repository.recall(), CREATED, CREATED, start_over=False)
        yield Bench(rows, repository)


def message(sequence: int = 1, data: bytes | None = None, delivery: int = 1) -> Message:
    data = payload() if data is None else data
    return Message("events.started.e.p", data, sequence, delivery, STORED_AT)


def warnings(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.getMessage() == event and record.levelno == logging.WARNING
    ]


def test_a_row_that_a_trigger_rejects_becomes_a_rejected_event_of_its_message(bench: Bench) -> None:
    bench.rows.write(REJECT_BAD)
    good, malformed = message(7), message(8, b"malformed")
    bad = message(9, payload(pc_id="bad"))
    assert bench.process(good, malformed, bad).decisions == (Ack(), Ack(), Ack())
    assert bench.rows.count() == 1
    stored = [(event["stream_sequence"], event["payload"]) for event in bench.rows.rejected()]
    assert stored == [(8, b"malformed"), (9, bad.payload)]


def test_the_nak_delay_grows_with_the_deliveries_of_each_message(bench: Bench) -> None:
    with bench.rows.locked():
        result = bench.process(*(message(n, delivery=n) for n in (1, 3, 5, 7, 1000)))
    delays = [decision.delay for decision in result.decisions if isinstance(decision, Nak)]
    assert len(delays) == 5
    assert all(earlier < later for earlier, later in pairwise(delays[:4]))
    assert max(delays) <= LONGEST_NAK_DELAY


def test_a_failure_is_returned_each_time_and_its_end_is_logged_once(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with bench.rows.locked():
        for _ in range(3):
            assert "locked" in (bench.process(message()).failure or "")
    for _ in range(3):
        assert bench.process(message()).failure is None
    assert [record.getMessage() for record in caplog.records].count("database.recovered") == 1


def test_a_batch_advances_the_checkpoint_to_its_highest_sequence_and_floor(bench: Bench) -> None:
    messages = (message(7), message(9, b"malformed"), message(8))
    bench.process(*messages, position=StreamPosition(CREATED, 4))
    found = bench.checkpoint()
    assert (found["last_sequence"], found["caught_up_to"]) == (9, 4)
    assert abs(parse_instant(found["committed_at"]) - time.time_ns()) < 3600 * SECOND


def test_messages_of_a_deleted_stream_advance_no_checkpoint(bench: Bench) -> None:
    before = bench.checkpoint()
    bench.process(message(7))
    bench.process(message(8), position=StreamPosition("2026-05-19T00:00:00+00:00", 4))
    assert bench.rows.count() == 2
    assert bench.checkpoint() == {**before, "commits": 2}


def test_an_execution_that_cannot_be_promoted_is_a_warning_and_its_run_is_acked(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.rows.write("DROP TABLE executions")
    assert bench.process(message()).decisions == (Ack(),)
    assert bench.rows.count() == 1
    (record,) = warnings(caplog, "execution.not_promoted")
    assert (vars(record)["execution"], vars(record)["executions"]) == ("execution-1", 1)
    assert bench.counters["promotions_failed"] == 1


def test_a_batch_is_written_only_when_it_is_its_turn(bench: Bench) -> None:
    written: list[int] = []
    batch = Batch(1, (message(),))
    bench.processor.process(batch, bench.repository, lambda: written.append(bench.rows.count()))
    assert (written, bench.rows.count()) == ([0], 1)
