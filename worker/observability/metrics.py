"""Metrics for Prometheus: what the worker has counted already, read when somebody asks.

Only durations and sizes are observed as they happen, a few times a batch. Nothing here is labelled
by PC, run, execution or manifest: the number of series is fixed.
"""

from collections.abc import Iterable, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from repo.observer import Observer
from repo.sqlite.database import Database
from repo.sqlite.sizes import free_bytes, log_bytes
from worker.projections.manifests import REASONS, ManifestCache
from worker.status.counters import Counters
from worker.status.health import STATES, Progress, Verdict
from worker.status.readiness import Readiness

_SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)

# Label values, and the count that each of them shows.
_OUTCOMES = {
    "run_inserted": "runs_inserted",
    "run_duplicate": "runs_duplicate",
    "rejected": "rejected",
    "rejected_duplicate": "rejected_duplicate",
    "naks": "naks",
}
_SETTLEMENTS = {"sent": "settled", "dropped": "acks_dropped"}
_REASONS = {reason: f"deadline_missing_{reason}" for reason in REASONS}

_COUNTERS = {
    "redelivered": "Projected messages that were delivered more than once.",
    "promotions_failed": "Executions that could not be turned from pending to running.",
    "database_busy": "Attempts that met another process's lock on the database.",
    "database_retries": "Attempts that were made again after a lock.",
    "database_faults": "Batches that the database did not take, and that were given back.",
}


class MetricsObserver(Observer):
    """Takes sizes and durations from the pool and the database, in whichever thread they happen."""

    def __init__(self, progress: Progress, counters: Counters) -> None:
        self._progress = progress
        self._counters = counters
        self._batch_messages = _histogram("batch_messages", "Messages of a batch.", _SIZES)
        self._batch_seconds = _histogram(
            "batch_duration_seconds", "From decoding a batch to its commit, its turn included."
        )
        self._commit_seconds = _histogram(
            "commit_duration_seconds", "COMMIT of one write transaction alone, sync included."
        )

    def projected(self, messages: int, seconds: float) -> None:
        """Take a batch that is committed."""
        self._progress.projected()
        self._batch_messages.observe(messages)
        self._batch_seconds.observe(seconds)

    def committing(self) -> None:
        """Note that a commit begins."""
        self._progress.committing()

    def committed(self, seconds: float) -> None:
        """Take how long the commit of a write transaction took."""
        self._progress.committed()
        self._commit_seconds.observe(seconds)

    def locked(self) -> None:
        """Note that an attempt met somebody else's lock."""
        self._progress.locked()
        self._counters.add(database_busy=1)

    def retrying(self) -> None:
        """Note that it is tried again."""
        self._counters.add(database_retries=1)

    def collect(self) -> Iterator[Metric]:
        """Yield the histograms."""
        for histogram in (self._batch_messages, self._batch_seconds, self._commit_seconds):
            for metric in histogram.collect():
                # The library adds a series with the time of its making, which tells nothing.
                kept = [one for one in metric.samples if not one.name.endswith("_created")]
                metric.samples = kept
                yield metric


def _histogram(name: str, text: str, buckets: Iterable[float] = _SECONDS) -> Histogram:
    return Histogram(f"projector_{name}", text, registry=None, buckets=tuple(buckets))


class Metrics(Collector):
    """All metrics of one worker, in a registry of its own."""

    def __init__(
        self,
        measures: MetricsObserver,
        *,
        counters: Counters,
        progress: Progress,
        readiness: Readiness,
        manifests: ManifestCache,
        database: Database,
        versions: Mapping[str, str],
    ) -> None:
        self.registry = CollectorRegistry()
        self._measures = measures
        self._counters = counters
        self._progress = progress
        self._readiness = readiness
        self._manifests = manifests
        self._database = database
        labels = {name.replace("-", "_"): text for name, text in versions.items()}
        self._versions = {"version": labels.pop("worker"), **labels}
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        """Yield every metric, as it is now."""
        verdict = self._progress.verdict()
        yield from self._counts(self._counters.as_dict())
        yield from self._measures.collect()
        yield from self._work(verdict)
        yield from self._files()
        build = GaugeMetricFamily(
            "projector_build_info", "Versions; always 1.", labels=list(self._versions)
        )
        build.add_metric(list(self._versions.values()), 1)
        yield build

    def _counts(self, counts: Mapping[str, int]) -> Iterator[Metric]:
        for name, label, text, values in (
            ("messages", "outcome", "Messages, by what became of them.", _OUTCOMES),
            ("acks", "outcome", "Acks and naks, sent or not.", _SETTLEMENTS),
            ("deadlines_missing", "reason", "Runs without a deadline, by reason.", _REASONS),
        ):
            family = CounterMetricFamily(f"projector_{name}", text, labels=[label])
            for value, total in values.items():
                family.add_metric([value], counts[total])
            yield family
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"projector_{name}", text, value=counts[name])
        yield CounterMetricFamily(
            "projector_reconnects",
            "Connections to the broker that were made anew.",
            value=self._readiness.reconnections,
        )
        yield CounterMetricFamily(
            "projector_replays",
            "Replays of history that were begun.",
            value=self._progress.replays,
        )

    def _work(self, verdict: Verdict) -> Iterator[Metric]:
        progress = self._progress
        yield _gauge("pending", "Messages that the broker has not delivered yet.", progress.pending)
        yield _gauge(
            "ack_pending", "Messages delivered to any worker and not settled.", progress.ack_pending
        )
        yield _gauge("outstanding", "Messages here and not settled.", progress.outstanding)
        yield _gauge("lag_seconds", "Age of the oldest event not projected.", progress.lag)
        yield _gauge(
            "last_commit_timestamp_seconds",
            "When a batch was committed last.",
            progress.last_commit,
        )
        yield _gauge(
            "without_progress_seconds",
            "For how long there has been work and nothing was projected.",
            verdict.idle_for,
        )
        caught_up = progress.is_caught_up
        yield _gauge(
            "caught_up",
            "Whether the database holds every start that the broker counts as settled.",
            None if caught_up is None else float(caught_up),
        )
        yield _gauge("live", "What /livez says.", verdict.is_live)
        yield _gauge("ready", "What /readyz says.", verdict.is_ready)
        state = GaugeMetricFamily(
            "projector_state", "1 for the state that it is in.", labels=["state"]
        )
        for name in STATES:
            state.add_metric([name], name == verdict.state)
        yield state

    def _files(self) -> Iterator[Metric]:
        yield _gauge("manifests", "Manifests in memory.", len(self._manifests))
        yield _gauge(
            "manifests_snapshot_age_seconds",
            "For how long the manifests have been followed from their last snapshot.",
            self._manifests.age,
        )
        yield _gauge("wal_bytes", "Size of the write-ahead log.", log_bytes(self._database))
        yield _gauge(
            "disk_free_bytes", "Room in the database's file system.", free_bytes(self._database)
        )


def _gauge(name: str, text: str, value: float | None) -> Metric:
    """Return a gauge, without a sample where the value is not known."""
    return GaugeMetricFamily(f"projector_{name}", text, value=value)
