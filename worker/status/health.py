"""What the worker did last, whether work is waiting, and why it is not done.

Written by the thread that knows, one plain value at a time; read by any. Times are seconds of one
monotonic clock unless a name says that it is an instant.
"""

import logging
import math
import time
from collections.abc import Callable
from typing import NamedTuple

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
from worker.status.readiness import Readiness

log = logging.getLogger(__name__)

RUNNING = "running"
DRAINING = "draining"

# What the worker is doing, besides the phases above and the causes in `worker.errors`.
IDLE = "idle"
WORKING = "working"
STARVED = "starved"
STALLED = "stalled"
CONSUMER_PAUSED = "consumer_paused"
CATCHING_UP = "catching_up"
CONSUMER_SHARED = "consumer_shared"
HUNG = "hung"

STATES = (
    *(
        STARTING,
        IDLE,
        WORKING,
        CATCHING_UP,
        CONSUMER_SHARED,
        CONSUMER_PAUSED,
        DRAINING,
        STARVED,
        STALLED,
        HUNG,
    ),
    *(BROKER_UNREACHABLE, PERMISSION_DENIED, STREAM_MISSING, PULL_LOST, DATABASE_BLOCKED),
)

# With these there is no connection yet, and they say why.
_BEFORE_A_CONNECTION = (STARTING, PERMISSION_DENIED)

# The broker answers a ping a second, also while it has nothing to deliver.
_LONGEST_SILENCE = 3.0
# The longest that one step of a session may take by its own bounds: reconnecting.
_SLOWEST_STEP = 45.0
# Between two attempts at a locked database, on top of the wait for the lock itself.
_BETWEEN_ATTEMPTS = 5.0
# Shorter locks are everyday business with other writers.
_LONG_LOCK = 1.0
# A large checkpoint on a slow disk takes a second or two.
_LONG_WRITE = 4.0
# While a pull request is open, the broker sends a message or a heartbeat twice a second.
_RECENT_SIGN = 10.0


class CatchUp(NamedTuple):
    """How far a catch-up is, in messages; `began` is in monotonic seconds."""

    began: float
    expected: int = 0
    messages: int = 0
    inserted: int = 0

    def expecting(self, messages: int) -> "CatchUp":
        """Return the same with how many messages there are to read."""
        return self._replace(expected=messages)

    def after(self, messages: int, inserted: int) -> "CatchUp":
        """Return the progress after some more messages, of which so many made a new row."""
        read = self.messages + messages
        expected = max(self.expected, read)
        return CatchUp(self.began, expected, read, self.inserted + inserted)

    def figures(self) -> dict[str, int | float]:
        """Return progress, rate (messages a second) and estimate (seconds that are left)."""
        seconds = max(time.monotonic() - self.began, 0.001)
        rate = self.messages / seconds
        left = self.expected - self.messages
        return {
            "messages": self.messages,
            "messages_left": left,
            "runs_inserted": self.inserted,
            "per_second": round(rate, 1),
            "seconds_left": round(left / rate, 1) if rate else 0.0,
        }

    def text(self) -> str:
        """Return the figures as one phrase."""
        if not self.messages:
            return "reading the stream again"
        figures = self.figures()
        return (
            f"reading the stream again: {self.messages} of {self.expected} messages, "
            f"{figures['per_second']:.0f} a second, about {figures['seconds_left']:.0f} s left"
        )


class StreamUse(NamedTuple):
    """How much a stream holds and how much it may: bytes, seconds; None for no limit.

    The stream drops its oldest messages at its limits. `unprojected_bytes` is about how many bytes
    there are from the oldest message that is not projected on, and `oldest` when the oldest message
    of all was stored, an instant, or None without any.
    """

    bytes: int
    unprojected_bytes: int
    max_bytes: int | None
    max_age: float | None
    oldest: int | None


class Verdict(NamedTuple):
    """The state of the worker.

    `is_live` is False when work was waiting and nothing was projected for too long, or when a
    thread hangs; a restart helps only where `restart_helps`. `idle_for` is for how many seconds
    nothing was projected although work was waiting.
    """

    state: str
    is_live: bool
    is_ready: bool
    restart_helps: bool
    reason: str
    idle_for: float


class Health:
    """The signs of life of one worker, and what they mean.

    `patience` is how long work may wait before that counts as no progress, `busy_timeout` how long
    one attempt may wait for a lock of the database.
    """

    def __init__(
        self,
        readiness: Readiness,
        broker_clock: BrokerClock,
        *,
        patience: float,
        busy_timeout: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.phase = STARTING
        self.outstanding = 0
        self.last_commit: float | None = None  # an instant, in seconds
        self.is_caught_up: bool | None = None
        # What the broker reported last, and whether that still holds.
        self._pending = self._ack_pending = 0
        self._is_consumer_known = self._is_oldest_known = False
        self._oldest: int | None = None  # an instant of the broker's clock
        self._stream: StreamUse | None = None
        self.broker_clock = broker_clock
        self._readiness = readiness
        self._patience = patience + busy_timeout
        self._busy_timeout = busy_timeout
        self._clock = clock
        now = clock()
        self._turned_at = self._stepped_at = now
        self._projected_at = self._work_since = now
        never = float("-inf")
        self._broker_heard_at = self._heard_at = self._locked_at = self._locked_since = never
        self.projected_up_to: int | None = None  # an instant
        self._shared: str | None = None
        self._paused_until: str | None = None
        self.catch_up: CatchUp | None = None
        self._writing_since: float | None = None

    # --- recorded by the service ---

    def enter(self, phase: str) -> None:
        """Enter one of the phases starting, running, draining."""
        self._turned_at = self._stepped_at = self._clock()
        self.phase = phase

    # --- recorded by the consumer thread ---

    def loop_alive(self) -> None:
        """Record that the loop of the consumer thread turns."""
        self._turned_at = self._clock()

    def session_progressed(self) -> None:
        """Record that the session finished one of its bounded steps, or tried to."""
        self._stepped_at = self._clock()

    def broker_heard(self) -> None:
        """Record that the broker sent something; it does so once a second at least."""
        self._broker_heard_at = self._clock()

    def broker_lost(self) -> None:
        """Record that there is no connection to the broker."""
        self._broker_heard_at = float("-inf")

    def record_outstanding(self, outstanding: int, heard_at: float) -> None:
        """Record how many messages are outstanding, and when the consumer was last heard of."""
        had_work = self.has_work
        self.outstanding = outstanding
        self._heard_at = heard_at
        self._note_work(had_work)

    def record_waiting(self) -> None:
        """Record that what is outstanding rightly waits for other messages, which are projected."""
        self._work_since = self._clock()

    def record_consumer(self, pending: int, ack_pending: int) -> None:
        """Record what the broker reports of the consumer."""
        had_work = self.has_work
        self._pending, self._ack_pending = pending, ack_pending
        self._is_consumer_known = True
        self._note_work(had_work)

    def forget_consumer(self) -> None:
        """Record that what the broker reported of the consumer may no longer hold."""
        self._is_consumer_known = self._is_oldest_known = False
        self.projected_up_to = self._stream = None

    def record_pause(self, until: str | None) -> None:
        """Record until when the consumer is paused, as RFC 3339 text; logged when it changes."""
        if until != self._paused_until:
            self._paused_until = until
            if until is not None:
                log.warning("consumer.paused", extra={"until": until})
            else:
                log.info("consumer.resumed")

    def record_oldest(self, stored_at: int | None, *, is_known: bool = True) -> None:
        """Record when the oldest message that is not projected was stored, as an instant."""
        self._oldest = stored_at
        self._is_oldest_known = is_known

    def record_stream(self, use: StreamUse) -> None:
        """Record how much the stream holds."""
        self._stream = use

    def record_projected_up_to(self, instant: int | None) -> None:
        """Record up to when everything that the broker stored is in the database, or None."""
        self.projected_up_to = instant

    def record_catch_up(self, catch_up: CatchUp | None, *, is_complete: bool = False) -> None:
        """Record how far a catch-up is, or None at its end, and whether nothing is left to read."""
        self.catch_up = catch_up
        self.is_caught_up = is_complete

    def record_shared(self, problem: str | None) -> None:
        """Record who else receives the consumer's messages, for another database."""
        self._shared = problem

    def _note_work(self, had_work: bool) -> None:
        if not had_work:
            self._work_since = self._clock()

    # --- recorded by the pool ---

    def projected(self) -> None:
        """Record that a batch was committed."""
        self._projected_at = self._clock()
        self.last_commit = time.time()

    def writing(self) -> None:
        """Record that a transaction begins to write."""
        self._writing_since = self._clock()

    def written(self) -> None:
        """Record that the transaction ended."""
        self._writing_since = None

    def committed(self) -> None:
        """Record that the database committed a transaction, of whatever kind."""
        self._locked_at = float("-inf")

    def locked(self) -> None:
        """Record that an attempt met another process's lock."""
        now = self._clock()
        if not self._meets_locks(now):
            self._locked_since = now
        self._locked_at = now

    # --- read by any thread ---

    @property
    def has_work(self) -> bool:
        """Whether messages are outstanding or wait on the broker, as far as is known.

        What is ack pending but not outstanding here belongs to another worker while this one is
        ready; otherwise this worker may have nak'd it.
        """
        theirs = self._readiness.is_ready
        return self._pending > 0 or self.outstanding > 0 or (self._ack_pending > 0 and not theirs)

    @property
    def pending(self) -> int | None:
        """How many messages the broker has not delivered; None where that is unknown."""
        return self._pending if self._is_known else None

    @property
    def ack_pending(self) -> int | None:
        """How many messages any worker has not acked; None where that is unknown."""
        return self._ack_pending if self._is_known else None

    @property
    def lag(self) -> float | None:
        """The age of the oldest message that is not projected, in seconds; 0 if there is none.

        By the broker's clock alone. A committed message counts until the broker has its ack. None
        where it is unknown.
        """
        if not (self._is_known and self._is_oldest_known):
            return None
        return 0.0 if self._oldest is None else self._age(self._oldest)

    @property
    def stream(self) -> StreamUse | None:
        """How much the stream holds; None where it is unknown."""
        return self._stream if self._is_known else None

    @property
    def oldest_age(self) -> float | None:
        """The age of the oldest message in the stream, in seconds; None without, or if unknown."""
        stream = self.stream
        return None if stream is None or stream.oldest is None else self._age(stream.oldest)

    def _age(self, instant: int) -> float | None:
        now = self.broker_clock.now
        return None if now is None else max(0.0, (now - instant) / NANOSECONDS)

    @property
    def _is_known(self) -> bool:
        return self._is_consumer_known and self._clock() - self._broker_heard_at <= _LONGEST_SILENCE

    def verdict(self) -> Verdict:
        """Return the state of the worker, from everything that was recorded."""
        now = self._clock()
        since = max(self._projected_at, self._work_since)
        idle_for = now - since if self.has_work and self.phase == RUNNING else 0.0
        state, reason = self._state(now, since, idle_for)
        is_outdated = state == PERMISSION_DENIED and self._readiness.secret_is_outdated
        return Verdict(
            state,
            is_live=state != HUNG and idle_for <= self._patience,
            is_ready=self._readiness.is_ready and state in (IDLE, WORKING),
            restart_helps=state in (HUNG, STALLED) or is_outdated,
            reason=reason,
            idle_for=idle_for,
        )

    def _state(self, now: float, since: float, idle_for: float) -> tuple[str, str]:
        if self._meets_locks(now) and now - self._locked_since > _LONG_LOCK:
            return DATABASE_BLOCKED, self._readiness.problem or "another process has the lock"
        if self.phase != RUNNING:
            return self.phase, ""
        return self._obstacle(now) or self._work_state(now, since, idle_for)

    def _obstacle(self, now: float) -> tuple[str, str] | None:
        """Return what prevents projection now, or None if nothing is known to."""
        readiness = self._readiness
        if now - self._turned_at > self._patience:
            return HUNG, "the event loop of the consumer thread is blocked"
        # The session waits for the commit as well, so this comes before a session that hangs.
        if self._writing_since is not None:
            waited = now - self._writing_since
            if waited > _LONG_WRITE + self._busy_timeout:
                return (
                    DATABASE_BLOCKED,
                    f"a commit has been waiting for the disk for {waited:.0f} s",
                )
        if now - self._stepped_at > self._patience + _SLOWEST_STEP:
            return HUNG, "the session with the broker makes no progress"
        explained = readiness.problem is not None and readiness.cause in _BEFORE_A_CONNECTION
        silent = self._turned_at - self._broker_heard_at
        # Other problems with the broker are consequences of this one.
        if silent > _LONGEST_SILENCE and not explained:
            return BROKER_UNREACHABLE, self._unreachable(silent)
        if readiness.problem is not None:
            return readiness.cause, readiness.problem
        return self._recovery_state()

    def _recovery_state(self) -> tuple[str, str] | None:
        if self._shared is not None:
            return CONSUMER_SHARED, self._shared
        if self._paused_until is not None:
            return CONSUMER_PAUSED, f"the consumer is paused until {self._paused_until}"
        return None if self.catch_up is None else (CATCHING_UP, self.catch_up.text())

    def _unreachable(self, silent: float) -> str:
        readiness = self._readiness
        if readiness.problem is not None and readiness.cause == BROKER_UNREACHABLE:
            return readiness.problem
        if math.isinf(silent):
            return "there is no connection to the broker"
        return f"the broker has sent nothing for {silent:.0f} s"

    def _work_state(self, now: float, since: float, idle_for: float) -> tuple[str, str]:
        readiness = self._readiness
        if not self.has_work:
            return IDLE, ""
        if idle_for <= self._patience:
            return WORKING, ""
        if readiness.last_problem_at > since:
            return readiness.cause, readiness.last_problem
        if self.outstanding == 0 and now - self._heard_at < _RECENT_SIGN:
            return STARVED, "the broker delivers none of the pending messages"
        return STALLED, f"messages are waiting, but none was projected for {idle_for:.0f} s"

    def _meets_locks(self, now: float) -> bool:
        return now - self._locked_at <= self._busy_timeout + _BETWEEN_ATTEMPTS
