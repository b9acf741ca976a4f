"""Decisions of a batch, with a repository that only does what a test tells it to."""

import logging
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import pytest

from repo.batch_writer import Refusal, WriteResult
from repo.checkpoint import Checkpoint
from repo.errors import (
    CorruptDatabaseError,
    RepositoryError,
    SchemaError,
    TransientError,
    UnavailableError,
)
from repo.execution_results import Run
from repo.executions import PromotionFailure
from repo.rejected import RejectedEvent
from repo.repository import Repository
from tests.support.events import payload
from worker.codec.timestamps import parse_instant
from worker.decisions import LONGEST_DELAY, Ack, Nak
from worker.messages import Batch, Decisions, Message, Position
from worker.processing.processor import Projection
from worker.projections.manifests import (
    MANIFEST_UNKNOWN,
    MANIFESTS_UNAVAILABLE,
    TIMEOUT_INVALID,
    Manifest,
    ManifestCache,
    NoTimeout,
    Timeout,
)
from worker.status.counters import Counters

SECOND = 10**9
RECORDED_AT = parse_instant("2026-05-20T12:00:01.000000001Z")


class FakeRepository:
    """Remembers what it was given; raises `error`, refuses the runs at `refuse`."""

    def __init__(self) -> None:
        self.error: BaseException | None = None
        self.refuse: set[int] = set()
        self.promotion_failures: list[PromotionFailure] = []
        self.runs: list[Run] = []
        self.rejected: list[RejectedEvent] = []
        self.reached: Checkpoint | None = None

    def write(
        self,
        runs: Sequence[Run],
        rejected: Sequence[RejectedEvent],
        refusal: Refusal,
        reached: Checkpoint | None = None,
    ) -> WriteResult:
        if self.error is not None:
            raise self.error
        self.reached = reached
        kept = [run for index, run in enumerate(runs) if index not in self.refuse]
        refused = [refusal(index, "CHECK failed") for index in sorted(self.refuse)]
        self.runs += kept
        self.rejected += [*rejected, *refused]
        return WriteResult(len(kept), len(refused), [*rejected, *refused], self.promotion_failures)


class Bench:
    """A projection with its manifests, counters and repository."""

    def __init__(self) -> None:
        self.manifests = ManifestCache()
        self.counters = Counters()
        self.repository = FakeRepository()
        self.projection = Projection("EVENTS", self.manifests, self.counters)

    def project(self, *messages: Message) -> Decisions:
        batch = Batch(1, messages)
        decisions = self.projection.project(batch, cast(Repository, self.repository), lambda: None)
        assert decisions.batch is batch
        return decisions


@pytest.fixture
def bench() -> Bench:
    return Bench()


def message(sequence: int = 1, data: bytes | None = None, delivery: int = 1) -> Message:
    data = payload() if data is None else data
    return Message("events.started.e.p", data, sequence, delivery, RECORDED_AT)


def warnings(caplog: pytest.LogCaptureFixture, event: str) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.getMessage() == event and record.levelno == logging.WARNING
    ]


def test_a_start_becomes_the_row_of_the_contract(bench: Bench) -> None:
    bench.manifests.replace({"job-1": Manifest(1, Timeout(20 * SECOND))})
    data = payload(result_id="run-1", started_at="2026-05-20T14:00:00.10+02:00", version="2.0")
    assert bench.project(message(data=data)) == Decisions(
        Batch(1, (message(data=data),)), (Ack(),), fault=""
    )
    assert bench.repository.runs == [
        Run(
            result_id="run-1",
            request_id="request-1",
            exec_id="execution-1",
            pc_id="pc-1",
            started_at="2026-05-20T12:00:00.100+00:00",
            version="2.0",
            job_id="job-1",
            recorded_at="2026-05-20T12:00:01.000000001+00:00",
            expires_at="2026-05-20T12:02:21.000000001+00:00",
        )
    ]


def test_the_deadline_is_taken_from_recorded_at_however_wrong_the_agents_clock_is(
    bench: Bench,
) -> None:
    bench.manifests.replace({"job-1": Manifest(1, Timeout(3600 * SECOND))})
    bench.project(message(data=payload(started_at="0000-01-01T00:00:00Z")))
    bench.project(message(data=payload(started_at="9999-12-31T23:59:59Z")))
    assert {run.expires_at for run in bench.repository.runs} == {
        "2026-05-20T13:30:01.000000001+00:00"
    }


@pytest.mark.parametrize("timeout", [2**64 * SECOND - 1, 2**63 * SECOND, 10**30])
def test_no_timeout_of_a_manifest_stops_the_worker(bench: Bench, timeout: int) -> None:
    bench.manifests.replace({"job-1": Manifest(1, Timeout(timeout))})
    assert bench.project(message()).decisions == (Ack(),)
    assert bench.repository.runs[0].expires_at == "2027-05-20T12:00:01.000000001+00:00"


@pytest.mark.parametrize(
    ("snapshot", "reason"),
    [
        (None, MANIFESTS_UNAVAILABLE),
        ({}, MANIFEST_UNKNOWN),
        ({"job-1": Manifest(1, None)}, MANIFEST_UNKNOWN),
        ({"job-1": Manifest(1, NoTimeout(TIMEOUT_INVALID, "soon"))}, TIMEOUT_INVALID),
    ],
)
def test_a_missing_deadline_holds_no_row_back_and_is_logged_and_counted_by_reason(
    bench: Bench,
    caplog: pytest.LogCaptureFixture,
    snapshot: dict[str, Manifest] | None,
    reason: str,
) -> None:
    if snapshot is not None:
        bench.manifests.replace(snapshot)
    assert bench.project(message(1), message(2)).decisions == (Ack(), Ack())
    assert [run.expires_at for run in bench.repository.runs] == [None, None]
    assert bench.counters[f"deadline_missing_{reason}"] == 2
    assert [vars(record)["reason"] for record in warnings(caplog, "deadline.missing")] == [reason]


def test_a_malformed_event_is_rejected_whole_and_acked_beside_good_ones(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    decisions = bench.project(message(1), message(2, b"\xff\x00 no start"), message(3))
    assert decisions.decisions == (Ack(), Ack(), Ack())
    assert len(bench.repository.runs) == 2
    (rejected,) = bench.repository.rejected
    assert (rejected.stream, rejected.stream_sequence) == ("EVENTS", 2)
    assert (rejected.subject, rejected.payload) == ("events.started.e.p", b"\xff\x00 no start")
    assert rejected.recorded_at == "2026-05-20T12:00:01.000000001+00:00"
    assert "UTF-8" in rejected.reason
    assert parse_instant(rejected.rejected_at) > RECORDED_AT - 10 * 365 * 86_400 * SECOND
    assert len(warnings(caplog, "event.rejected")) == 1
    assert bench.counters["rejected"] == 1


def test_a_refused_row_becomes_the_rejected_event_of_its_own_message(bench: Bench) -> None:
    bench.repository.refuse = {1}
    good, bad, refused = message(7), message(8, b"bad"), message(9, payload(pc_id="refused"))
    assert bench.project(good, bad, refused).decisions == (Ack(), Ack(), Ack())
    assert [(event.stream_sequence, event.payload) for event in bench.repository.rejected] == [
        (8, b"bad"),
        (9, refused.payload),
    ]


@pytest.mark.parametrize("error", [TransientError, UnavailableError, SchemaError, RepositoryError])
def test_a_fault_of_the_database_naks_every_message_and_rejects_none(
    bench: Bench, caplog: pytest.LogCaptureFixture, error: type[RepositoryError]
) -> None:
    bench.repository.error = error("no")
    decisions = bench.project(message(1), message(2, b"bad"), message(3))
    assert len(decisions.decisions) == 3
    assert all(isinstance(decision, Nak) for decision in decisions.decisions)
    assert decisions.fault
    assert warnings(caplog, "event.rejected") == []
    assert len(warnings(caplog, "batch.failed")) == 1
    assert (bench.counters["rejected"], bench.counters["naks"]) == (0, 3)
    assert bench.counters["messages"] == 0


def test_the_delay_grows_with_how_often_each_message_was_delivered(bench: Bench) -> None:
    bench.repository.error = TransientError("busy")
    decisions = bench.project(*(message(n, delivery=n) for n in (1, 3, 5, 7, 1000)))
    delays = [decision.delay for decision in decisions.decisions if isinstance(decision, Nak)]
    assert len(delays) == 5
    assert all(earlier < later for earlier, later in pairwise(delays[:4]))
    assert max(delays) <= LONGEST_DELAY


def test_a_fault_is_told_to_the_broker_thread_and_its_end_to_the_log(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    bench.repository.error = UnavailableError("full")
    assert [bench.project(message()).fault for _ in range(3)] == ["UnavailableError: full"] * 3
    bench.repository.error = None
    assert [bench.project(message()).fault for _ in range(3)] == [""] * 3
    assert [r.getMessage() for r in caplog.records].count("database.recovered") == 1


def test_a_batch_reaches_its_highest_sequence_and_the_floor_it_began_with(bench: Bench) -> None:
    messages = (message(7), message(9, b"bad"), message(8))
    batch = Batch(1, messages, Position("2026-05-20T00:00:00+00:00", 4))
    bench.projection.project(batch, cast(Repository, bench.repository), lambda: None)
    reached = bench.repository.reached
    assert reached is not None
    assert reached[:3] == ("2026-05-20T00:00:00+00:00", 9, 4)
    assert parse_instant(reached.committed_at) <= time.time_ns()


def test_messages_of_a_stream_that_is_no_more_reach_no_checkpoint(bench: Bench) -> None:
    bench.project(message(7))
    assert bench.repository.reached is None


def test_an_unusable_database_is_raised_and_decides_nothing(bench: Bench) -> None:
    bench.repository.error = CorruptDatabaseError("malformed")
    with pytest.raises(CorruptDatabaseError):
        bench.project(message(1), message(2, b"bad"))
    assert (bench.counters["messages"], bench.counters["naks"]) == (0, 0)


def test_an_execution_that_is_not_promoted_costs_no_ack_and_is_a_warning(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.repository.promotion_failures = [PromotionFailure("execution-1", "no such table")]
    assert bench.project(message()).decisions == (Ack(),)
    (record,) = warnings(caplog, "execution.not_promoted")
    assert vars(record)["exec_id"] == "execution-1"
    assert bench.counters["promotions_failed"] == 1


def test_redelivered_messages_are_counted_among_the_committed_ones(bench: Bench) -> None:
    bench.project(message(1), message(2, delivery=2), message(3, delivery=9))
    assert (bench.counters["messages"], bench.counters["redelivered"]) == (3, 2)
    assert bench.counters["batches"] == 1
