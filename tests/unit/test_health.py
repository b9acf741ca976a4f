"""What the recorded facts mean, on a clock that the test moves."""

import logging
import time

import pytest

from worker.errors import BROKER_UNREACHABLE, DATABASE_BLOCKED, PERMISSION_DENIED, STARTING
from worker.status.health import (
    DRAINING,
    HUNG,
    IDLE,
    RUNNING,
    STALLED,
    STARVED,
    WORKING,
    Health,
    Verdict,
)
from worker.status.readiness import Readiness

PATIENCE = 10.0
BUSY_TIMEOUT = 1.0


class Worker:
    """A worker that runs and is ready, whose loop turns whenever time passes."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.readiness = Readiness()
        self.health = Health(
            self.readiness, patience=PATIENCE, busy_timeout=BUSY_TIMEOUT, clock=lambda: self.now
        )
        self.health.enter(RUNNING)
        self.readiness.ready()

    def wait(self, seconds: float, *, turns: bool = True, steps: bool = True) -> None:
        self.now += seconds
        if turns:
            self.health.turn()
        if turns and steps:
            self.health.step()

    def receive(self, messages: int) -> None:
        self.health.received(messages, self.now)

    @property
    def verdict(self) -> Verdict:
        return self.health.verdict()

    @property
    def state(self) -> str:
        return self.verdict.state

    @property
    def state_live_restart(self) -> tuple[str, bool, bool]:
        verdict = self.verdict
        return verdict.state, verdict.is_live, verdict.restart_helps


@pytest.fixture
def worker() -> Worker:
    return Worker()


def test_a_worker_without_work_is_idle_and_ready_for_any_length_of_time(worker: Worker) -> None:
    worker.wait(1_000_000)
    assert worker.verdict == (IDLE, True, True, False, "", 0.0)


def test_a_worker_is_live_while_it_projects_and_stalled_when_work_waits(worker: Worker) -> None:
    worker.wait(1000)
    worker.health.consumer(pending=5000, ack_pending=0, ack_floor=0)
    worker.receive(500)
    for _ in range(20):
        worker.wait(PATIENCE)
        worker.health.projected()
        assert worker.state_live_restart == (WORKING, True, False)
    worker.wait(PATIENCE)
    assert worker.state_live_restart == (WORKING, True, False)
    worker.wait(BUSY_TIMEOUT + 1)
    assert worker.state_live_restart == (STALLED, False, True)
    worker.health.projected()
    assert worker.verdict.is_live


def test_waiting_counts_from_the_arrival_of_work_and_not_from_a_commit(worker: Worker) -> None:
    worker.wait(1000)
    worker.receive(1)
    worker.wait(1)
    assert (worker.state, worker.verdict.idle_for) == (WORKING, 1)


def test_no_restart_is_requested_while_the_broker_delivers_nothing(worker: Worker) -> None:
    worker.health.consumer(pending=1, ack_pending=10_000, ack_floor=0)
    worker.wait(60)
    worker.receive(0)
    assert worker.state_live_restart == (STARVED, False, False)
    worker.wait(60)
    assert worker.state_live_restart == (STALLED, False, True)


def test_messages_that_another_worker_holds_are_not_work_of_a_ready_worker(worker: Worker) -> None:
    worker.health.consumer(pending=0, ack_pending=5, ack_floor=0)
    assert (worker.health.has_work, worker.state) == (False, IDLE)
    worker.readiness.not_ready("the broker is silent")
    assert worker.health.has_work


def test_a_loop_that_does_not_turn_hangs_even_without_work(worker: Worker) -> None:
    worker.wait(PATIENCE, turns=False)
    assert worker.state == IDLE
    worker.wait(2, turns=False)
    assert worker.state_live_restart == (HUNG, False, True)
    worker.wait(0)
    assert worker.state == IDLE


def test_a_session_that_finishes_no_step_hangs_although_the_loop_turns(worker: Worker) -> None:
    worker.wait(50, steps=False)
    assert worker.state == IDLE
    worker.wait(10, steps=False)
    assert worker.state_live_restart == (HUNG, False, True)


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
    assert worker.verdict == (state, True, False, False, problem, 0.0)
    worker.receive(1)
    worker.wait(1000)
    assert worker.state_live_restart == (state, False, False)


def test_a_problem_that_comes_and_goes_is_the_cause_until_the_next_batch(worker: Worker) -> None:
    worker.health.consumer(pending=1, ack_pending=0, ack_floor=0)
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
        assert (worker.state, worker.verdict.restart_helps) == (DATABASE_BLOCKED, False)
    assert not worker.verdict.is_live
    worker.health.committed()
    worker.health.projected()
    worker.wait(0)
    assert worker.state == WORKING


def test_a_commit_that_hangs_is_a_blocked_database(worker: Worker) -> None:
    worker.receive(1)
    worker.health.committing()
    worker.wait(PATIENCE)
    assert worker.state == WORKING
    worker.wait(PATIENCE)
    assert worker.state_live_restart == (DATABASE_BLOCKED, False, False)
    worker.health.committed()
    assert worker.state == STALLED


def test_no_progress_is_expected_while_the_worker_starts_or_drains() -> None:
    readiness = Readiness()
    now = 0.0
    health = Health(readiness, patience=1, busy_timeout=1, clock=lambda: now)
    now = 100.0
    assert health.verdict() == (STARTING, True, False, False, "", 0.0)
    health.enter(RUNNING)
    assert health.verdict().state == STARTING
    readiness.ready()
    health.received(5, now)
    health.enter(DRAINING)
    now = 200.0
    assert health.verdict() == (DRAINING, True, False, False, "", 0.0)


def test_a_replay_ends_when_the_broker_counts_all_of_it_as_acked(worker: Worker) -> None:
    health = worker.health
    seen = [health.is_caught_up]
    health.compared(is_missing=True, replayed_until=10)
    health.consumer(pending=5, ack_pending=2, ack_floor=3)
    seen.append(health.is_caught_up)
    health.compared(is_missing=False, replayed_until=None)  # the consumer was bound again
    seen.append(health.is_caught_up)
    health.consumer(pending=5, ack_pending=2, ack_floor=10)
    seen.append(health.is_caught_up)
    health.compared(is_missing=True, replayed_until=None)  # --no-replay
    health.consumer(pending=0, ack_pending=0, ack_floor=20)
    seen.append(health.is_caught_up)
    assert seen == [None, False, False, True, False]


def test_lag_is_the_age_of_the_oldest_message_and_never_negative(worker: Worker) -> None:
    assert worker.health.lag == 0
    worker.health.oldest_message(time.time_ns() - 3_500_000_000)
    assert 3.5 <= worker.health.lag < 10
    worker.health.oldest_message(time.time_ns() + 3_500_000_000)
    assert worker.health.lag == 0


def test_readiness_logs_changes_only(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    readiness = Readiness()
    assert (readiness.is_ready, readiness.problem) == (False, "starting")
    for problem in ("no broker", "no stream"):
        readiness.not_ready(problem)
    readiness.ready()
    readiness.ready()
    readiness.not_ready("no broker")
    assert (readiness.is_ready, readiness.cause) == (False, BROKER_UNREACHABLE)
    assert [record.getMessage() for record in caplog.records] == [
        "worker.not_ready",
        "worker.ready",
        "worker.not_ready",
    ]
