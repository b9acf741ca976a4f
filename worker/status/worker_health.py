"""The health of the process: that of its projections, which share a connection and a database."""

from collections.abc import Callable, Mapping
from typing import TypeVar

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
    CATCHING_UP,
    CONSUMER_PAUSED,
    CONSUMER_SHARED,
    DRAINING,
    HUNG,
    IDLE,
    STALLED,
    STARVED,
    WORKING,
    Health,
    Verdict,
)

_Value = TypeVar("_Value")
_Combined = TypeVar("_Combined")

# The state of the process is the first of these that a projection is in.
_WORST_FIRST = (
    *(HUNG, DRAINING, DATABASE_BLOCKED, PERMISSION_DENIED, BROKER_UNREACHABLE, STARTING),
    *(STREAM_MISSING, PULL_LOST, CONSUMER_SHARED, CONSUMER_PAUSED, STALLED, STARVED),
    *(CATCHING_UP, WORKING, IDLE),
)


class WorkerHealth:
    """What is recorded here holds for every projection; what is read is the worst, or the sum."""

    def __init__(self, projections: Mapping[str, Health], broker_clock: BrokerClock) -> None:
        self.broker_clock = broker_clock
        self._projections = projections
        self._all = tuple(projections.values())

    # --- recorded ---

    def enter(self, phase: str) -> None:
        """Enter one of the phases starting, running, draining."""
        self._record(lambda health: health.enter(phase))

    def loop_alive(self) -> None:
        """Record that the loop of the consumer thread turns."""
        self._record(Health.loop_alive)

    def session_progressed(self) -> None:
        """Record that the connection was made, or tried to be."""
        self._record(Health.session_progressed)

    def broker_heard(self) -> None:
        """Record that the broker sent something; it does so once a second at least."""
        self._record(Health.broker_heard)

    def broker_lost(self) -> None:
        """Record that there is no connection to the broker, nor a clock to go by."""
        self.broker_clock.forget()
        self._record(Health.broker_lost)

    def writing(self) -> None:
        """Record that a transaction begins to write."""
        self._record(Health.writing)

    def written(self) -> None:
        """Record that the transaction ended."""
        self._record(Health.written)

    def committed(self) -> None:
        """Record that the database committed a transaction, of whatever kind."""
        self._record(Health.committed)

    def locked(self) -> None:
        """Record that an attempt met another process's lock."""
        self._record(Health.locked)

    def _record(self, fact: Callable[[Health], None]) -> None:
        for health in self._all:
            fact(health)

    # --- read by any thread ---

    @property
    def outstanding(self) -> int:
        """How many messages this worker has received and not acked."""
        return sum(health.outstanding for health in self._all)

    @property
    def pending(self) -> int | None:
        """How many messages the broker has not delivered; None where that is unknown."""
        return if_known(sum, [health.pending for health in self._all])

    @property
    def ack_pending(self) -> int | None:
        """How many messages any worker has not acked; None where that is unknown."""
        return if_known(sum, [health.ack_pending for health in self._all])

    @property
    def lag(self) -> float | None:
        """The age of the oldest message that is not projected, in seconds; None if unknown."""
        return if_known(max, [health.lag for health in self._all])

    @property
    def projected_up_to(self) -> int | None:
        """W: up to when everything that the broker stored is in the database, or None.

        An instant of the broker's clock. Unknown as well where only one kind is projected.
        """
        return if_known(min, [health.projected_up_to for health in self._all])

    @property
    def projected_up_to_age(self) -> float | None:
        """How long ago that was, in seconds by the broker's clock."""
        instant, now = self.projected_up_to, self.broker_clock.now
        if instant is None or now is None:
            return None
        return max(0.0, (now - instant) / NANOSECONDS)

    @property
    def last_commit(self) -> float | None:
        """When a batch was committed last, an instant in seconds."""
        commits = [health.last_commit for health in self._all]
        return max((commit for commit in commits if commit is not None), default=None)

    @property
    def is_caught_up(self) -> bool | None:
        """Whether the database holds all that the consumers have handed out; None if unknown."""
        return if_known(all, [health.is_caught_up for health in self._all])

    def verdict(self) -> Verdict:
        """Return the state of the process: the worst of its projections."""
        verdicts = {name: health.verdict() for name, health in self._projections.items()}
        name, worst = min(verdicts.items(), key=lambda named: _WORST_FIRST.index(named[1].state))
        reason = worst.reason
        if reason and sum(one.state == worst.state for one in verdicts.values()) < len(verdicts):
            reason = f"{name}: {reason}"
        return Verdict(
            worst.state,
            is_live=all(one.is_live for one in verdicts.values()),
            is_ready=all(one.is_ready for one in verdicts.values()),
            restart_helps=any(one.restart_helps for one in verdicts.values()),
            reason=reason,
            idle_for=max(one.idle_for for one in verdicts.values()),
        )


def if_known(
    combine: Callable[[list[_Value]], _Combined], values: list[_Value | None]
) -> _Combined | None:
    """Return what `combine` makes of the values, or None where one of them is unknown."""
    known = [value for value in values if value is not None]
    return combine(known) if len(known) == len(values) else None
