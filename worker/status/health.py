"""What was done last, whether there is work, and why it is not done.

Written by the thread that knows, a plain value at a time; read by any. Times are in seconds of one
monotonic clock unless they are told to be instants.
"""

import time
from collections.abc import Callable
from typing import NamedTuple

from worker.codec.timestamps import NANOSECONDS
from worker.errors import (
    BROKER_AWAY,
    DATABASE_BLOCKED,
    PERMISSION_DENIED,
    PULL_LOST,
    STARTING,
    STREAM_MISSING,
)
from worker.status.readiness import Readiness

RUNNING = "running"
DRAINING = "draining"

# What the worker is doing, besides the phases above and the causes of `worker.readiness`.
IDLE = "idle"
WORKING = "working"
STARVED = "starved"
STALLED = "stalled"
HUNG = "hung"

STATES = (
    *(STARTING, IDLE, WORKING, DRAINING, STARVED, STALLED, HUNG),
    *(BROKER_AWAY, PERMISSION_DENIED, STREAM_MISSING, PULL_LOST, DATABASE_BLOCKED),
)

# The longest that one step of a session may take by its own bounds: reconnecting.
_SLOWEST_STEP = 45.0
# Between two attempts at a locked database, beside the wait for the lock itself.
_BETWEEN_ATTEMPTS = 5.0
# A lock that is met for no longer is everyday business with other writers.
_A_MOMENT = 1.0
# While it is asked for messages, the broker gives a sign twice a second.
_RECENT_SIGN = 10.0


class Verdict(NamedTuple):
    """How the worker is.

    `is_live` is False when there is work and nothing was projected for too long, or when a thread
    hangs; a restart helps only where `restart_helps`. `idle_for` is how long nothing was projected
    although there was work, in seconds.
    """

    state: str
    is_live: bool
    is_ready: bool
    restart_helps: bool
    reason: str
    idle_for: float


class Progress:
    """The signs of life of one worker, and what they mean.

    `patience` is for how long work may lie before that counts as no progress; `busy_timeout` for
    how long one attempt at the database may say nothing.
    """

    def __init__(
        self,
        readiness: Readiness,
        *,
        patience: float,
        busy_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = STARTING
        self.is_observed = False
        self.pending = 0
        self.ack_pending = 0
        self.outstanding = 0
        self.oldest: int | None = None  # an instant, of the oldest event that is not projected
        self.last_commit: float | None = None  # an instant, in seconds
        self.is_caught_up: bool | None = None
        self.replays = 0
        self._readiness = readiness
        self._patience = patience + busy_timeout
        self._busy_timeout = busy_timeout
        self._clock = clock
        now = clock()
        self._turned_at = self._stepped_at = now
        self._projected_at = self._work_since = now
        self._heard_at = self._locked_at = self._locked_since = float("-inf")
        self._replayed_until: int | None = None
        self._committing = False

    # --- said by the service ---

    def enter(self, phase: str) -> None:
        """Note one of the three phases."""
        self._turned_at = self._stepped_at = self._clock()
        self.phase = phase

    # --- said by the broker thread ---

    def turn(self) -> None:
        """Note that the loop turns."""
        self._turned_at = self._clock()

    def step(self) -> None:
        """Note that the session got something done, or has tried to."""
        self._stepped_at = self._clock()

    def hold(self, outstanding: int, heard_at: float) -> None:
        """Note how many messages are here, and when the broker last gave a sign of the consumer."""
        had_work = self.has_work
        self.outstanding = outstanding
        self._heard_at = heard_at
        self._note_work(had_work)

    def consumer(self, pending: int, ack_pending: int, floor: int) -> None:
        """Note what the broker tells of the consumer."""
        had_work = self.has_work
        self.pending, self.ack_pending = pending, ack_pending
        self._note_work(had_work)
        until = self._replayed_until
        if until is not None and (floor >= until or pending == ack_pending == 0):
            self._replayed_until = None
            self.is_caught_up = True

    def compared(self, *, is_missing: bool, replayed_until: int | None) -> None:
        """Note whether starts are missing from the database, and up to where they are replayed."""
        if is_missing:
            self.is_caught_up = False
            self._replayed_until = replayed_until
            self.replays += replayed_until is not None
        elif self._replayed_until is None:
            self.is_caught_up = True

    def _note_work(self, had_work: bool) -> None:
        if not had_work:
            self._work_since = self._clock()

    # --- said by the pool ---

    def projected(self) -> None:
        """Note that a batch was committed."""
        self._projected_at = self._clock()
        self.last_commit = time.time()

    def committing(self) -> None:
        """Note that a commit begins."""
        self._committing = True

    def committed(self) -> None:
        """Note that the database took a transaction, of whatever kind."""
        self._committing = False
        self._locked_at = float("-inf")

    def locked(self) -> None:
        """Note that an attempt met somebody else's lock."""
        self._committing = False
        now = self._clock()
        if not self._meets_locks(now):
            self._locked_since = now
        self._locked_at = now

    # --- read by anybody ---

    @property
    def has_work(self) -> bool:
        """Tell whether anything is here or waits on the broker, as far as is known.

        What is ack pending and not here is another worker's, as long as this one is ready;
        otherwise it may be what this one has given back.
        """
        theirs = self._readiness.is_ready
        return self.pending > 0 or self.outstanding > 0 or (self.ack_pending > 0 and not theirs)

    @property
    def lag(self) -> float:
        """Return the age of the oldest event that is not projected, in seconds; 0 if there is none.

        A message that is committed counts until the broker has its ack.
        """
        oldest = self.oldest
        return 0.0 if oldest is None else max(0.0, time.time() - oldest / NANOSECONDS)

    def verdict(self) -> Verdict:
        """Tell how the worker is."""
        now = self._clock()
        since = max(self._projected_at, self._work_since)
        idle_for = now - since if self.has_work and self.phase == RUNNING else 0.0
        state, reason = self._state(now, since, idle_for)
        return Verdict(
            state,
            is_live=state != HUNG and idle_for <= self._patience,
            is_ready=self._readiness.is_ready and state in (IDLE, WORKING),
            restart_helps=state in (HUNG, STALLED),
            reason=reason,
            idle_for=idle_for,
        )

    def _state(self, now: float, since: float, idle_for: float) -> tuple[str, str]:
        readiness = self._readiness
        if self._meets_locks(now) and now - self._locked_since > _A_MOMENT:
            return DATABASE_BLOCKED, readiness.problem or "somebody else has the lock"
        if self.phase != RUNNING:
            return self.phase, ""
        if now - self._turned_at > self._patience:
            return HUNG, "the loop of the broker thread does not turn"
        if now - self._stepped_at > self._patience + _SLOWEST_STEP:
            return HUNG, "the session with the broker gets nothing done"
        if readiness.problem:
            return readiness.cause, readiness.problem
        return self._work_state(now, since, idle_for)

    def _work_state(self, now: float, since: float, idle_for: float) -> tuple[str, str]:
        readiness = self._readiness
        if not self.has_work:
            return IDLE, ""
        if idle_for <= self._patience:
            return WORKING, ""
        if readiness.last_problem_at > since:
            return readiness.cause, readiness.last_problem
        if self._committing:
            return DATABASE_BLOCKED, "a commit does not end"
        if self.outstanding == 0 and now - self._heard_at < _RECENT_SIGN:
            return STARVED, "the broker delivers nothing of what is pending"
        return STALLED, f"there is work, and nothing was projected for {idle_for:.0f} s"

    def _meets_locks(self, now: float) -> bool:
        return now - self._locked_at <= self._busy_timeout + _BETWEEN_ATTEMPTS
