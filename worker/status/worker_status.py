"""Everything that the worker knows of itself: written by the thread that knows, read by any."""

import logging
import time
from collections import deque
from collections.abc import Iterable, Sequence

from prometheus_client import Histogram

from repo.observer import Observer
from worker.logs import Problem, RecentProblems
from worker.status.broker_clock import BrokerClock
from worker.status.counters import Counters
from worker.status.health import Health, Verdict
from worker.status.history import History
from worker.status.peers import Worker, merged
from worker.status.readiness import Readiness
from worker.status.worker_health import WorkerHealth, if_known

log = logging.getLogger(__name__)

_MOST_RATES = 11
_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class WorkerStatus(Observer):
    """Counters, health and durations of the process, and the status of each projection.

    It also observes the database. `is_observed` is whether metrics or systemd are on: without them
    the worker does not ask the broker for the age of its backlog. `executions` is how many there
    were at the last look, by status, `runs` how many were in flight, by their deadline, and
    `without_deadline` how many of these have none, by reason; None while that is unknown.
    """

    def __init__(
        self,
        projections: Sequence[str],
        *,
        stalled_after: float,
        busy_timeout: float,
        is_observed: bool,
    ) -> None:
        self.is_observed = is_observed
        self.executions: dict[str, int] | None = None
        self.runs: dict[str, int] | None = None
        self.without_deadline: dict[str, int] | None = None
        self.counters = Counters()
        self.history = History()
        self.recent = RecentProblems()
        self.broker_clock = BrokerClock()
        self._reported: str | None = None
        self.projections = {
            name: ProjectionStatus(self, patience=stalled_after, busy_timeout=busy_timeout)
            for name in projections
        }
        self.health = WorkerHealth(
            {name: one.health for name, one in self.projections.items()}, self.broker_clock
        )
        self.batch_messages = _histogram("batch_messages", "Messages of a batch.", _SIZES)
        self.batch_seconds = _histogram(
            "batch_duration_seconds", "From decoding a batch to its commit, its turn included."
        )
        self.commit_seconds = _histogram(
            "commit_duration_seconds", "COMMIT of one write transaction alone, sync included."
        )

    def forget_counts(self) -> None:
        """Record that it is unknown what the tables hold."""
        self.executions = self.runs = self.without_deadline = None

    @property
    def expected(self) -> int | None:
        """How many messages this process has projected once it is idle; None while unknown."""
        return if_known(sum, [one.expected for one in self.projections.values()])

    @property
    def other_workers(self) -> tuple[Worker, ...] | None:
        """The other workers of the consumers; None while that is unknown."""
        known = if_known(list, [one.other_workers for one in self.projections.values()])
        if known is None or self.health.pending is None:  # the broker is silent
            return None
        return merged(worker for some in known for worker in some)

    def sample(self) -> None:
        """Take a sample of lag and rate if one is due; called often, by one thread."""
        counts = self.counters
        messages = counts["messages"] + counts["catch_up_messages"]
        self.history.record(self.health.lag, messages)

    def report_ready(self) -> None:
        """Log that the worker is ready, once every projection is."""
        if all(one.readiness.is_ready for one in self.projections.values()):
            self._reported = None
            log.info("worker.ready")

    def report_problem(self, problem: str) -> None:
        """Log why the worker is not ready; once, where it is the same for every projection."""
        if problem != self._reported:
            self._reported = problem
            log.warning("worker.not_ready", extra={"error": problem})

    # --- the connection ---

    def disconnected(self) -> None:
        """Record that the connection to the broker was lost."""
        self.health.broker_lost()
        for one in self.projections.values():
            one.readiness.not_ready("the broker is disconnected")

    def logged_in(self) -> None:
        """Record that the broker accepts the secrets."""
        for one in self.projections.values():
            one.readiness.logged_in()

    def secret_refused(self) -> None:
        """Record that the broker refuses a secret that this process cannot read again."""
        for one in self.projections.values():
            one.readiness.secret_refused()

    def not_ready(self, problem: str, cause: str) -> None:
        """Record what prevents every projection."""
        for one in self.projections.values():
            one.readiness.not_ready(problem, cause)

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


class ProjectionStatus:
    """Readiness and health of one projection.

    `expected` is how many messages this process has projected of it once it is idle,
    `other_workers` who else announces itself for its consumer; None while that is unknown.
    """

    def __init__(self, worker: WorkerStatus, *, patience: float, busy_timeout: float) -> None:
        self.counters = worker.counters
        self.is_observed = worker.is_observed
        self.readiness = Readiness(worker.report_ready, worker.report_problem)
        self.health = Health(
            self.readiness,
            worker.broker_clock,
            patience=patience,
            busy_timeout=busy_timeout,
        )
        self.expected: int | None = None
        self._rates: deque[tuple[float, int]] = deque(maxlen=_MOST_RATES)
        self.other_workers: tuple[Worker, ...] | None = None
        self._messages = 0
        self._worker = worker

    def expect(self, more: int) -> None:
        """Record how many messages are still to be projected."""
        self.expected = self._messages + more

    def announcement(self) -> tuple[Verdict, float | None, tuple[Problem, ...]]:
        """Return state, messages a second, and the last warnings and errors of the process."""
        return self.health.verdict(), self._per_second(), self._worker.recent.problems

    def _per_second(self) -> float | None:
        """Return how many messages a second were projected since up to ten earlier calls, if any.

        Called about once a second, by one thread.
        """
        now, messages = time.monotonic(), self._messages
        self._rates.append((now, messages))
        since, before = self._rates[0]
        return round((messages - before) / (now - since), 1) if now > since else None

    def record_other_workers(self, workers: tuple[Worker, ...] | None) -> None:
        """Record who else announces itself for the consumer; None where that is unknown."""
        self.other_workers = workers

    def projected(self, messages: int, seconds: float) -> None:
        """Record a committed batch and how long it took; called in commit order."""
        self._messages += messages
        self.health.projected()
        self._worker.batch_messages.observe(messages)
        self._worker.batch_seconds.observe(seconds)


def _histogram(name: str, text: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
    return Histogram(f"projector_{name}", text, registry=None, buckets=tuple(buckets))
