"""Metrics for Prometheus: what the worker's status holds, read at each scrape.

No metric is labelled by PC, run, execution or manifest: the number of series is fixed.
"""

from collections.abc import Iterator, Mapping

from prometheus_client import CollectorRegistry, Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from repo import Database
from worker.projections.manifests import REASONS, ManifestCache
from worker.status.health import STATES, Verdict
from worker.status.worker_status import WorkerStatus

# Label values, and the counter that each of them shows.
_OUTCOMES = {
    "run_inserted": "runs_inserted",
    "run_duplicate": "runs_duplicate",
    "result_ended": "runs_ended",
    "result_unseen": "runs_ended_unseen",
    "result_late": "results_late",
    "result_duplicate": "results_duplicate",
    "rejected": "rejected",
    "rejected_duplicate": "rejected_duplicate",
    "marker": "markers",
    "nak": "naks",
}
_ENDS = {
    "success": "runs_succeeded",
    "failure": "runs_failed",
    "skipped": "runs_skipped",
    "reaped": "runs_reaped",
}
_ACKS = {"sent": "acks_sent", "dropped": "acks_dropped"}
_OBJECTS = {
    "fetched": "objects_fetched",
    "missing": "objects_missing",
    "unavailable": "objects_unavailable",
    "cut": "outputs_cut",
}
_WITHOUT = "Runs in flight without a deadline, by why they would have none today."
_REASONS = {reason: f"deadline_missing_{reason}" for reason in REASONS}

_COUNTERS = {
    "redelivered": "Projected messages that were delivered more than once.",
    "promotions_failed": "Executions that could not be promoted from pending to running.",
    "reaps_failed": "Overdue runs whose update a constraint or trigger rejected.",
    "runs_deleted": "Ended runs that were older than the retention.",
    "executions_deleted": "Executions that were older than the retention.",
    "executions_expired": "Executions that were pending for an hour without a run.",
    "executions_promoted_late": "Executions that the sweep found pending with runs.",
    "database_busy": "Attempts that met another process's lock on the database.",
    "database_retries": "Attempts that were repeated after a lock.",
    "database_faults": "Batches that the database did not take; their messages were nak'd.",
    "reconnects": "Connections to the broker after the first one.",
    "catch_up_messages": "Messages that were read again from the stream and committed.",
    "lost_sequences": "Sequences that the stream lost before they were read.",
    "foreign_deliveries": "Deliveries to others that no announced worker explains.",
    "log_lines_dropped": "Lines of the log that were dropped, because standard error was not read.",
}

_STREAM_GAUGES = {
    "bytes": "Size of the stream.",
    "max_bytes": "Size at which the stream drops its oldest messages.",
    "unprojected_bytes": "About the size of the stream from the oldest message not projected on.",
    "lag_seconds": "Age of the oldest message not projected.",
    "oldest_age_seconds": "Age of the oldest message in the stream.",
    "max_age_seconds": "Age at which the stream drops a message.",
}


class Metrics(Collector):
    """All metrics of one worker, in its own registry: two workers in a process do not clash."""

    def __init__(
        self,
        status: WorkerStatus,
        manifests: ManifestCache,
        database: Database,
        versions: Mapping[str, str],
    ) -> None:
        self.registry = CollectorRegistry()
        self._status = status
        self._manifests = manifests
        self._database = database
        labels = {name.replace("-", "_"): text for name, text in versions.items()}
        self._versions = {"version": labels.pop("worker"), **labels}
        self.registry.register(self)

    def collect(self) -> Iterator[Metric]:
        status, counts = self._status, self._status.counters.as_dict()
        for name, label, text, values in (
            ("messages", "outcome", "Messages, by outcome.", _OUTCOMES),
            ("runs_ended", "outcome", "Runs that have ended, by how.", _ENDS),
            ("objects", "outcome", "Output in the object store, by outcome.", _OBJECTS),
            ("acks", "outcome", "Acks and naks, sent or dropped.", _ACKS),
            ("deadlines_missing", "reason", "Runs without a deadline, by reason.", _REASONS),
        ):
            family = CounterMetricFamily(f"projector_{name}", text, labels=[label])
            for value, counter in values.items():
                family.add_metric([value], counts[counter])
            yield family
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"projector_{name}", text, value=counts[name])
        for histogram in (status.batch_messages, status.batch_seconds, status.commit_seconds):
            for metric in histogram.collect():
                # The library adds a series with the time of its own creation.
                kept = [one for one in metric.samples if not one.name.endswith("_created")]
                metric.samples = kept
                yield metric
        verdict = status.health.verdict()
        for name, text, number in self._gauges(verdict):
            yield GaugeMetricFamily(f"projector_{name}", text, value=number)
        text = "1 for the present state, else 0."
        state = GaugeMetricFamily("projector_state", text, labels=["state"])
        for name in STATES:
            state.add_metric([name], name == verdict.state)
        for name, label, text, numbers in (
            ("executions", "status", "Executions at the last look, by status.", status.executions),
            ("runs_in_flight", "deadline", "Runs in flight, by their deadline.", status.runs),
            ("runs_without_deadline", "reason", _WITHOUT, status.without_deadline),
        ):
            gauge = GaugeMetricFamily(f"projector_{name}", text, labels=[label])
            for value, number in (numbers or {}).items():
                gauge.add_metric([value], number)
            yield gauge
        yield from self._stream_gauges()
        text = "Versions; always 1."
        build = GaugeMetricFamily("projector_build_info", text, labels=list(self._versions))
        build.add_metric(list(self._versions.values()), 1)
        yield from (state, build)

    def _gauges(self, verdict: Verdict) -> Iterator[tuple[str, str, float | None]]:
        """Yield name, help and value of each gauge; one without a value has no sample."""
        health, manifests = self._status.health, self._manifests
        yield "pending", "Messages that the broker has not delivered.", health.pending
        yield "ack_pending", "Messages delivered to any worker and not acked.", health.ack_pending
        yield "outstanding", "Messages received by this worker and not acked.", health.outstanding
        yield "lag_seconds", "Age of the oldest message not projected.", health.lag
        text = "Age of the time up to which everything that the broker stored is in the database."
        yield "projected_up_to_age_seconds", text, health.projected_up_to_age
        text = "Time of the last committed batch."
        yield "last_commit_timestamp_seconds", text, health.last_commit
        text = "For how long messages have been waiting and none was projected."
        yield "without_progress_seconds", text, verdict.idle_for
        text = "Whether the database holds every message that the consumer has handed out."
        yield "caught_up", text, health.is_caught_up
        yield "live", "The answer of /livez.", verdict.is_live
        yield "ready", "The answer of /readyz.", verdict.is_ready
        yield "manifests", "Manifests in memory.", len(manifests)
        text = "Time since the manifests in memory were last found equal to the bucket."
        yield "manifests_snapshot_age_seconds", text, manifests.age
        yield from self._database.usage()

    def _stream_gauges(self) -> Iterator[Metric]:
        """Yield what each projection's stream holds; what is unknown or unlimited has no sample."""
        gauges = {
            name: GaugeMetricFamily(f"projector_stream_{name}", text, labels=["projection"])
            for name, text in _STREAM_GAUGES.items()
        }
        for projection, one in self._status.projections.items():
            health = one.health
            numbers: dict[str, float | None] = {
                "lag_seconds": health.lag,
                "oldest_age_seconds": health.oldest_age,
            }
            if (stream := health.stream) is not None:
                numbers["bytes"] = stream.bytes
                numbers["unprojected_bytes"] = stream.unprojected_bytes
                numbers["max_bytes"] = stream.max_bytes
                numbers["max_age_seconds"] = stream.max_age
            for name, number in numbers.items():
                if number is not None:
                    gauges[name].add_metric([projection], number)
        yield from gauges.values()
