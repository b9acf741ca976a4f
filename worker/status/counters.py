"""What the process has done since its start: counts that any thread may add to."""

import threading
from collections import Counter

from worker.projections.manifests import REASONS

# The names in the stop line of the log, there even when nothing happened.
NAMES = (
    "batches",
    "messages",  # committed, redelivered ones included
    "redelivered",  # of the messages: delivered more than once
    "runs_inserted",
    "runs_duplicate",
    "rejected",
    "rejected_duplicate",
    "promotions_failed",
    "database_faults",  # batches that the database did not take
    "database_busy",  # attempts that met another process's lock
    "database_retries",  # of those, the ones that were made again
    "naks",  # messages nak'd: after a fault, or not begun at the stop
    "settled",  # acks and naks sent
    "acks_dropped",  # could not be sent; the broker delivers the message again
    *(f"deadline_missing_{reason}" for reason in REASONS),
)


class Counters:
    """Named counts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts = Counter(dict.fromkeys(NAMES, 0))

    def add(self, **counts: int) -> None:
        """Add to one or more counts."""
        with self._lock:
            for name, count in counts.items():
                self._counts[name] += count

    def __getitem__(self, name: str) -> int:
        with self._lock:
            return self._counts[name]

    def as_dict(self) -> dict[str, int]:
        """Return a copy of all counts, by name."""
        with self._lock:
            return dict(self._counts)
