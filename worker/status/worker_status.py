"""Everything that the worker knows of itself: written by the thread that knows, read by any."""

from collections.abc import Iterable

from prometheus_client import Histogram

from repo.observer import Observer
from worker.status.counters import Counters
from worker.status.health import Health
from worker.status.readiness import Readiness

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class WorkerStatus(Observer):
    """Counters, readiness, health and durations. It also observes the database.

    `is_observed` is whether metrics or systemd are on: without them the worker does not ask the
    broker for the age of its backlog.
    """

    def __init__(self, *, stalled_after: float, busy_timeout: float, is_observed: bool) -> None:
        self.is_observed = is_observed
        self.counters = Counters()
        self.readiness = Readiness()
        self.health = Health(self.readiness, patience=stalled_after, busy_timeout=busy_timeout)
        self.batch_messages = _histogram("batch_messages", "Messages of a batch.", _SIZES)
        self.batch_seconds = _histogram(
            "batch_duration_seconds", "From decoding a batch to its commit, its turn included."
        )
        self.commit_seconds = _histogram(
            "commit_duration_seconds", "COMMIT of one write transaction alone, sync included."
        )
        self.expected: int | None = None  # messages projected by this process once it is idle

    def expect(self, more: int) -> None:
        """Record how many messages are still to be projected."""
        self.expected = self.counters["messages"] + more

    def projected(self, messages: int, seconds: float) -> None:
        """Record a committed batch and how long it took."""
        self.health.projected()
        self.batch_messages.observe(messages)
        self.batch_seconds.observe(seconds)

    # --- the database ---

    def writing(self) -> None:
        self.health.writing()

    def written(self) -> None:
        self.health.written()

    def committed(self, seconds: float) -> None:
        self.health.committed()
        self.commit_seconds.observe(seconds)

    def locked(self) -> None:
        self.health.locked()
        self.counters.add(database_busy=1)

    def retrying(self) -> None:
        self.counters.add(database_retries=1)


def _histogram(name: str, text: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
    return Histogram(f"projector_{name}", text, registry=None, buckets=tuple(buckets))
