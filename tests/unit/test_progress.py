"""What the signs of life mean, on a clock that the test moves."""

import time

from worker.errors import BROKER_AWAY, DATABASE_BLOCKED, PERMISSION_DENIED, STARTING
from worker.status.health import DRAINING, HUNG, IDLE, RUNNING, STALLED, STARVED, WORKING, Progress
from worker.status.readiness import Readiness

PATIENCE = 10.0
BUSY_TIMEOUT = 1.0


class Worker:
    """A worker that runs and is ready, whose loop turns whenever time passes."""

    def __init__(self) -> None:
        self.now = time.monotonic()
        self.readiness = Readiness()
        self.progress = Progress(
            self.readiness, patience=PATIENCE, busy_timeout=BUSY_TIMEOUT, clock=lambda: self.now
        )
        self.progress.enter(RUNNING)
        self.readiness.ready()

    def wait(self, seconds: float, *, turns: bool = True, steps: bool = True) -> None:
        self.now += seconds
        if turns:
            self.progress.turn()
        if turns and steps:
            self.progress.step()

    @property
    def state(self) -> str:
        return self.progress.verdict().state

    @property
    def is_live(self) -> bool:
        return self.progress.verdict().is_live

    @property
    def restart_helps(self) -> bool:
        return self.progress.verdict().restart_helps


def test_nothing_to_do_is_idle_for_however_long() -> None:
    worker = Worker()
    worker.wait(1_000_000)
    assert worker.progress.verdict() == (IDLE, True, True, False, "", 0.0)


def test_work_that_is_done_is_never_too_late_and_work_that_lies_is() -> None:
    worker = Worker()
    worker.wait(1000)
    worker.progress.consumer(pending=5000, ack_pending=0, floor=0)
    worker.progress.hold(500, worker.now)
    for _ in range(20):
        worker.wait(PATIENCE)
        worker.progress.projected()
        assert (worker.state, worker.is_live) == (WORKING, True)
    worker.wait(PATIENCE)
    assert (worker.state, worker.is_live) == (WORKING, True)
    worker.wait(BUSY_TIMEOUT + 1)
    assert (worker.state, worker.is_live, worker.restart_helps) == (STALLED, False, True)
    worker.progress.projected()
    assert worker.is_live


def test_work_counts_from_when_it_came_not_from_the_last_commit() -> None:
    worker = Worker()
    worker.wait(1000)
    worker.progress.hold(1, worker.now)
    worker.wait(1)
    assert worker.state == WORKING
    assert worker.progress.verdict().idle_for == 1


def test_a_broker_that_delivers_nothing_is_not_the_workers_own_fault() -> None:
    worker = Worker()
    worker.progress.consumer(pending=1, ack_pending=10_000, floor=0)
    worker.wait(60)
    worker.progress.hold(0, worker.now)
    assert (worker.state, worker.is_live, worker.restart_helps) == (STARVED, False, False)
    worker.wait(60)
    assert (worker.state, worker.restart_helps) == (STALLED, True)


def test_a_loop_that_does_not_turn_hangs_also_without_work() -> None:
    worker = Worker()
    worker.wait(PATIENCE, turns=False)
    assert worker.state == IDLE
    worker.wait(2, turns=False)
    assert (worker.state, worker.is_live, worker.restart_helps) == (HUNG, False, True)
    worker.wait(0)
    assert worker.state == IDLE


def test_a_session_that_gets_nothing_done_hangs_although_the_loop_turns() -> None:
    worker = Worker()
    worker.wait(50, steps=False)
    assert worker.state == IDLE
    worker.wait(10, steps=False)
    assert (worker.state, worker.is_live) == (HUNG, False)


def test_what_stands_in_the_way_is_told_apart_and_no_restart_is_asked_for() -> None:
    worker = Worker()
    for problem, cause, expected in (
        ("the broker is silent", BROKER_AWAY, BROKER_AWAY),
        ('the server says: Permissions Violation for "x"', BROKER_AWAY, PERMISSION_DENIED),
        ("the server says: Authorization Violation", BROKER_AWAY, PERMISSION_DENIED),
        ("database: locked", DATABASE_BLOCKED, DATABASE_BLOCKED),
    ):
        worker.readiness.not_ready(problem, cause)
        worker.wait(1000)
        verdict = worker.progress.verdict()
        assert verdict == (expected, True, False, False, problem, 0.0)
    worker.progress.hold(1, worker.now)
    worker.wait(1000)
    verdict = worker.progress.verdict()
    assert (verdict.state, verdict.is_live, verdict.restart_helps) == (
        DATABASE_BLOCKED,
        False,
        False,
    )


def test_a_problem_that_comes_and_goes_is_still_the_cause_while_nothing_is_projected() -> None:
    worker = Worker()
    worker.progress.consumer(pending=1, ack_pending=0, floor=0)
    worker.now = time.monotonic() - 100
    worker.progress.projected()
    worker.readiness.not_ready("the server says: Permissions Violation", BROKER_AWAY)
    worker.readiness.ready()
    worker.now = time.monotonic() + 100
    worker.wait(0)
    assert (worker.state, worker.is_live, worker.restart_helps) == (
        PERMISSION_DENIED,
        False,
        False,
    )


def test_a_lock_is_told_of_while_it_lasts_and_not_when_it_is_only_met() -> None:
    worker = Worker()
    worker.progress.hold(1, worker.now)
    worker.progress.locked()
    assert worker.state == WORKING
    for _ in range(100):
        worker.wait(2, turns=False)
        worker.progress.locked()
        assert (worker.state, worker.restart_helps) == (DATABASE_BLOCKED, False)
    assert not worker.is_live
    worker.progress.committed()
    worker.progress.projected()
    worker.wait(0)
    assert worker.state == WORKING


def test_a_commit_that_hangs_is_the_databases_fault() -> None:
    worker = Worker()
    worker.progress.hold(1, worker.now)
    worker.progress.committing()
    worker.wait(PATIENCE)
    assert worker.state == WORKING
    worker.wait(PATIENCE)
    assert (worker.state, worker.is_live, worker.restart_helps) == (DATABASE_BLOCKED, False, False)
    worker.progress.committed()
    assert worker.state == STALLED


def test_before_it_runs_and_while_it_leaves_nothing_is_expected_of_it() -> None:
    readiness = Readiness()
    now = 0.0
    progress = Progress(readiness, patience=1, busy_timeout=1, clock=lambda: now)
    now = 100.0
    assert progress.verdict() == (STARTING, True, False, False, "", 0.0)
    progress.enter(RUNNING)
    assert progress.verdict().state == STARTING
    readiness.ready()
    progress.hold(5, now)
    progress.enter(DRAINING)
    now = 200.0
    assert progress.verdict() == (DRAINING, True, False, False, "", 0.0)


def test_a_replay_is_over_when_the_broker_counts_all_of_it_as_settled() -> None:
    progress = Worker().progress
    seen: list[bool | None] = [progress.is_caught_up]
    progress.compared(is_missing=True, replayed_until=10)
    progress.consumer(pending=5, ack_pending=2, floor=3)
    seen.append(progress.is_caught_up)
    progress.compared(is_missing=False, replayed_until=None)  # bound anew meanwhile
    seen.append(progress.is_caught_up)
    progress.consumer(pending=5, ack_pending=2, floor=10)
    seen.append(progress.is_caught_up)
    progress.compared(is_missing=True, replayed_until=None)  # --no-replay
    progress.consumer(pending=0, ack_pending=0, floor=20)
    seen.append(progress.is_caught_up)
    assert seen == [None, False, False, True, False]
    assert progress.replays == 1


def test_lag_is_the_age_of_the_oldest_and_never_negative() -> None:
    progress = Worker().progress
    assert progress.lag == 0
    progress.oldest = time.time_ns() - 3_500_000_000
    assert 3.5 <= progress.lag < 4
    progress.oldest = time.time_ns() + 3_500_000_000
    assert progress.lag == 0
