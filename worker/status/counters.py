"""What the process has done since its start: counts that any thread may add to."""

import threading
from collections import Counter

from worker.projections.manifests import REASONS

# All of them are in the log's stop line, also the ones that are 0.
NAMES = (
    "batches",
    "messages",  # committed, redelivered ones included
    "redelivered",  # of the messages: delivered more than once
    "runs_inserted",
    "runs_ended",  # by their result, while they were in flight
    "runs_ended_unseen",  # by a result whose start is not in the table
    "results_late",  # of runs that were given up
    "runs_succeeded",  # how those runs ended
    "runs_failed",
    "runs_skipped",
    "objects_fetched",  # output of runs that came from the object store
    "objects_missing",  # output that was not there, or not whole: the result's own text counts
    "objects_unavailable",  # attempts at an object store that did not answer
    "outputs_cut",  # objects of which only the beginning is stored
    "results_duplicate",  # of runs that have their result: left unchanged
    "runs_duplicate",  # the row existed and was left unchanged
    "rejected",
    "rejected_duplicate",  # rejected before, and still kept
    "markers",  # the server's notes of expired messages: acked, nothing written
    "promotions_failed",
    "executions_expired",  # pending for an hour without a run
    "runs_reaped",  # given up at their deadline
    "reaps_failed",  # overdue runs whose update a constraint or trigger rejected
    "executions_deleted",  # older than the retention
    "runs_deleted",
    "executions_promoted_late",  # by the sweep: their rows came after their starts
    "database_faults",  # batches that the database did not take
    "database_busy",  # attempts that met another process's lock
    "database_retries",  # of those, the ones that were made again
    "naks",  # messages nak'd: after a database fault, or not begun at the stop
    "acks_sent",  # acks and naks
    "acks_dropped",  # of those, not sent: no connection, or they would ack another message
    "reconnects",
    "catch_up_messages",  # read again from the stream and committed; not among `messages`
    "lost_sequences",  # taken from the stream by limits or a purge before they were read
    "foreign_deliveries",  # handed to others, which no announced worker explains
    "log_lines_dropped",  # standard error was not read, or could not be written
    *(f"deadline_missing_{reason}" for reason in REASONS),
)


class Counters:
    """Named counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counter(dict.fromkeys(NAMES, 0))

    def add(self, **counts: int) -> None:
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)
