"""What the process has done since its start: counts that any thread may add to."""

import threading
from collections import Counter


class Totals:
    """Named counts. The names appear in the stop line of the log."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

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
            return dict(sorted(self._counts.items()))
