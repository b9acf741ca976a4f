"""What the recorded facts mean, on a clock that the test moves."""

import logging
import time

import pytest

from worker.codec.timestamps import NANOSECONDS
from worker.errors import (
    BROKER_UNREACHABLE,
    DATABASE_BLOCKED,
    PERMISSION_DENIED,
    PULL_LOST,
    STARTING,
    STREAM_MISSING,
)
from worker.status.broker_clock import BrokerClock
from worker.status.health import (
    _LONG_WRITE,
    _LONGEST_SILENCE,
    DRAINING,
    HUNG,
    IDLE,
    RUNNING,
    STALLED,
    STARVED,
    WORKING,
    CatchUp,
    Health,
)
from worker.status.readiness import Readiness
from worker.status.worker_status import WorkerStatus

PATIENCE = 10.0
BUSY_TIMEOUT = 1.0


class Worker:
    """A worker that runs and is ready, whose loop turns whenever time passes."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.readiness = Readiness(lambda: None, lambda _: None)
        self.health = Health(
            self.readiness,
            BrokerClock(lambda: round(self.now * NANOSECONDS)),
            patience=PATIENCE,
            busy_timeout=BUSY_TIMEOUT,
            clock=lambda: self.now,
        )
        self.health.enter(RUNNING)
        self.health.broker_heard()
        self.readiness.ready()

    def wait(
        self, seconds: float, *, turns: bool = True, steps: bool = True, hears: bool = True
    ) -> None:
        self.now += seconds
        if turns and hears:
            self.health.broker_heard()
        if turns:
            self.health.loop_alive()
        if turns and steps:
            self.health.session_progressed()

    def receive(self, messages: int) -> None:
        self.health.record_outstanding(messages, self.now)

    @property
    def state(self) -> str:
        return self.health.verdict().state

    @property
    def state_live_restart(self) -> tuple[str, bool, bool]:
        verdict = self.health.verdict()
        return verdict.state, verdict.is_live, verdict.restart_helps


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_worker_without_work_is_idle_and_ready_for_any_length_of_time(worker: Worker) -> None:
    worker.wait(1_000_000)
    assert worker.health.verdict() == (IDLE, True, True, False, "", 0.0)


def test_a_worker_is_live_while_it_projects_and_stalled_when_work_waits(worker: Worker) -> None:
    worker.wait(1000)
    worker.health.record_consumer(pending=5000, ack_pending=0)
    worker.receive(500)
    worker.wait(1)
    assert worker.health.verdict().idle_for == 1  # since the work came, not since the last commit
    for _ in range(20):
        worker.wait(PATIENCE)
        worker.health.projected()
        assert worker.state_live_restart == (WORKING, True, False)
    worker.wait(PATIENCE)
    assert worker.state_live_restart == (WORKING, True, False)
    worker.wait(BUSY_TIMEOUT + 1)
    assert worker.state_live_restart == (STALLED, False, True)
    worker.health.projected()
    assert worker.health.verdict().is_live


def test_no_restart_is_requested_while_the_broker_delivers_nothing(worker: Worker) -> None:
    worker.health.record_consumer(pending=1, ack_pending=10_000)
    worker.wait(60)
    worker.receive(0)
    assert worker.state_live_restart == (STARVED, False, False)
    worker.wait(60)
    assert worker.state_live_restart == (STALLED, False, True)


def test_messages_that_another_worker_holds_are_not_work_of_a_ready_worker(worker: Worker) -> None:
    worker.health.record_consumer(pending=0, ack_pending=5)
    assert (worker.health.has_work, worker.state) == (False, IDLE)
    worker.readiness.not_ready("the broker is silent")
    assert worker.health.has_work


def test_a_loop_that_does_not_turn_hangs_even_without_work(worker: Worker) -> None:
    states = []
    for seconds, turns in ((PATIENCE, False), (2, False), (0, True)):
        worker.wait(seconds, turns=turns)
        states.append(worker.state_live_restart)
    assert states == [(IDLE, True, False), (HUNG, False, True), (IDLE, True, False)]


def test_a_session_that_finishes_no_step_hangs_although_the_loop_turns(worker: Worker) -> None:
    states = []
    for seconds in (50, 10):
        worker.wait(seconds, steps=False)
        states.append(worker.state_live_restart)
    assert states == [(IDLE, True, False), (HUNG, False, True)]


@pytest.mark.parametrize(
    ("problem", "cause", "state"),
    [
        ("the broker is silent", BROKER_UNREACHABLE, BROKER_UNREACHABLE),
        ('the server says: Permissions Violation for "x"', BROKER_UNREACHABLE, PERMISSION_DENIED),
        ("the server says: Authorization Violation", BROKER_UNREACHABLE, PERMISSION_DENIED),
        ("database: locked", DATABASE_BLOCKED, DATABASE_BLOCKED),
    ],
)
def test_a_problem_is_the_state_and_no_reason_for_a_restart(
    worker: Worker, problem: str, cause: str, state: str
) -> None:
    worker.readiness.not_ready(problem, cause)
    worker.wait(1000)
    assert worker.health.verdict() == (state, True, False, False, problem, 0.0)
    worker.receive(1)
    worker.wait(1000)
    assert worker.state_live_restart == (state, False, False)


@pytest.mark.parametrize(
    ("problem", "cause", "state"),
    [
        (None, "", BROKER_UNREACHABLE),
        ("the consumer does not answer", PULL_LOST, BROKER_UNREACHABLE),
        ("the server says: Authorization Violation", BROKER_UNREACHABLE, PERMISSION_DENIED),
    ],
)
def test_a_broker_that_is_not_heard_of_wins_over_its_consequences(
    worker: Worker, problem: str | None, cause: str, state: str
) -> None:
    health = worker.health
    health.record_consumer(pending=5, ack_pending=1)
    health.record_oldest(None)
    known = [health.pending, health.ack_pending, health.lag]
    worker.wait(_LONGEST_SILENCE, hears=False)
    assert worker.state == WORKING
    worker.wait(1, hears=False)
    if problem is not None:
        worker.readiness.not_ready(problem, cause)
    verdict = health.verdict()
    assert (verdict.state, verdict.is_ready, verdict.restart_helps) == (state, False, False)
    unheard = [health.pending, health.ack_pending, health.lag]
    worker.wait(0)
    heard = [health.pending, health.ack_pending, health.lag]
    health.forget_consumer()
    forgotten = [health.pending, health.ack_pending, health.lag]
    assert known == heard == [5, 1, 0.0]
    assert unheard == forgotten == [None, None, None]


def test_a_problem_that_comes_and_goes_stays_the_cause_until_a_batch_is_projected(
    worker: Worker,
) -> None:
    worker.health.record_consumer(pending=1, ack_pending=0)
    worker.now = time.monotonic() - 100
    worker.health.projected()
    worker.readiness.not_ready("the server says: Permissions Violation", BROKER_UNREACHABLE)
    worker.readiness.ready()
    worker.now = time.monotonic() + 100
    worker.wait(0)
    assert worker.state_live_restart == (PERMISSION_DENIED, False, False)


def test_a_lock_is_reported_while_it_lasts_but_not_when_it_is_short(worker: Worker) -> None:
    worker.receive(1)
    worker.health.locked()
    assert worker.state == WORKING
    for _ in range(100):
        worker.wait(2, turns=False)
        worker.health.locked()
        assert (worker.state, worker.health.verdict().restart_helps) == (DATABASE_BLOCKED, False)
    assert not worker.health.verdict().is_live
    worker.health.committed()
    worker.health.projected()
    worker.wait(0)
    assert worker.state == WORKING


def test_a_commit_that_hangs_is_a_blocked_database_before_and_after_the_patience(
    worker: Worker,
) -> None:
    worker.receive(1)
    worker.health.writing()
    worker.wait(_LONG_WRITE)
    assert worker.state == WORKING
    states = []
    for _ in range(2):
        worker.wait(6, steps=False)
        verdict = worker.health.verdict()
        states.append((verdict.state, verdict.is_live, verdict.is_ready, verdict.restart_helps))
    assert states == [
        (DATABASE_BLOCKED, True, False, False),
        (DATABASE_BLOCKED, False, False, False),
    ]
    worker.wait(100, steps=False)
    problem = "a commit has been waiting for the disk for 116 s"
    assert worker.health.verdict()[:5] == (DATABASE_BLOCKED, False, False, False, problem)
    worker.health.written()
    worker.wait(0)
    assert worker.state == STALLED


def test_no_progress_is_expected_while_the_worker_starts_or_drains() -> None:
    readiness = Readiness(lambda: None, lambda _: None)
    now = 0.0
    health = Health(readiness, BrokerClock(), patience=1, busy_timeout=1, clock=lambda: now)
    now = 100.0
    assert health.verdict() == (STARTING, True, False, False, "", 0.0)
    health.enter(RUNNING)
    assert health.verdict().state == STARTING
    readiness.ready()
    health.record_outstanding(5, now)
    health.enter(DRAINING)
    now = 200.0
    assert health.verdict() == (DRAINING, True, False, False, "", 0.0)


def test_a_catch_up_and_a_shared_consumer_are_states_of_their_own(worker: Worker) -> None:
    health = worker.health
    health.record_catch_up(CatchUp(time.monotonic() - 10).expecting(300).after(100, 90))
    assert (worker.state, health.is_caught_up) == ("catching_up", False)
    reason = health.verdict().reason
    assert "100 of 300 messages" in reason
    assert "about 20 s left" in reason
    health.record_shared("a worker on host h")
    assert (worker.state, health.verdict().reason) == ("consumer_shared", "a worker on host h")
    assert not health.verdict().is_ready
    health.record_shared(None)
    health.record_catch_up(None, is_complete=True)
    assert (worker.state, health.is_caught_up) == ("idle", True)


def test_lag_is_the_age_of_the_oldest_message_by_the_brokers_clock_and_never_negative(
    worker: Worker,
) -> None:
    health, seen = worker.health, []
    health.record_consumer(pending=1, ack_pending=0)
    seen.append(health.lag)
    health.record_oldest(None)
    seen.append(health.lag)
    health.record_oldest(5_000_000_000)
    seen.append(health.lag)
    health.broker_clock.set(8_500_000_000)
    seen.append(health.lag)
    worker.wait(2)
    seen.append(health.lag)
    health.broker_clock.set(4_000_000_000)
    seen.append(health.lag)
    assert seen == [None, 0, None, pytest.approx(3.5), pytest.approx(5.5), 0]


def test_a_lost_connection_takes_the_brokers_time_with_it() -> None:
    status = WorkerStatus(["a"], stalled_after=1, busy_timeout=1, is_observed=False)
    health, projection = status.health, status.projections["a"].health
    health.broker_heard()
    projection.record_consumer(pending=1, ack_pending=0)
    projection.record_oldest(5_000_000_000)
    health.broker_clock.set(8_500_000_000)
    assert health.lag is not None
    health.broker_lost()
    health.broker_heard()
    assert health.lag is None


def test_readiness_logs_changes_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    status = WorkerStatus(["a", "b"], stalled_after=1, busy_timeout=1, is_observed=False)
    first, second = (one.readiness for one in status.projections.values())
    assert (first.is_ready, first.problem) == (False, "starting")
    for problem in ("no broker", "no stream"):
        first.not_ready(problem)
    first.ready()
    second.ready()
    second.ready()
    first.not_ready("no broker")
    assert (first.is_ready, first.cause) == (False, BROKER_UNREACHABLE)
    assert [record.getMessage() for record in caplog.records] == [
        "worker.not_ready",
        "worker.ready",
        "worker.not_ready",
    ]


def test_the_process_is_as_well_as_its_worst_projection() -> None:
    status = WorkerStatus(["a", "b"], stalled_after=1, busy_timeout=1, is_observed=False)
    health, (first, second) = status.health, status.projections.values()
    health.enter(RUNNING)
    health.broker_heard()
    for one, pending in ((first, 2), (second, 3)):
        one.readiness.ready()
        one.health.record_consumer(pending, 1)
        one.health.record_oldest(None)
    assert health.verdict()[:4] == ("working", True, True, False)
    assert (health.pending, health.ack_pending, health.lag) == (5, 2, 0.0)
    second.readiness.not_ready("stream B does not exist", STREAM_MISSING)
    second.health.forget_consumer()
    assert health.verdict()[:5] == (
        *("stream_missing", True, False, False),
        "b: stream B does not exist",
    )
    assert (health.pending, health.ack_pending, health.lag) == (None, None, None)
    status.disconnected()
    assert health.verdict()[::4] == ("broker_unreachable", "the broker is disconnected")
