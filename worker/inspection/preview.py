"""Counts what messages would change if they were projected. Reads only."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from repo import queries
from repo.batch_writer import INSERTED
from repo.queries import FoundRun
from repo.reader import Reader
from repo.results import ENDED, LATE
from worker.messages import Message
from worker.processing.processor import BatchProcessor
from worker.status.counters import Counters

# About 100 MB. Beyond that, a run with two events is counted as changed twice.
_MOST_REMEMBERED = 1_000_000

# What a run's row is before a message; what a message makes of it, if its projection does that.
_ABSENT, _IN_FLIGHT, _REAPED, _FINISHED = "absent", "in flight", "reaped", "finished"
_CHANGES = {_ABSENT: INSERTED, _IN_FLIGHT: ENDED, _REAPED: LATE}


@dataclass(frozen=True, slots=True)
class Preview:
    """Counts what messages would change, by the names that a worker counts by.

    It remembers each run by a hash, so that a later message finds what an earlier one would have
    made of it.
    """

    reader: Reader
    counters: Counters
    _states: dict[int, str] = field(default_factory=dict)

    def count(self, processor: BatchProcessor, page: Sequence[Message]) -> None:
        """Count what a page would change; raises RepositoryError."""
        projection, prepared = processor.projection, processor.prepare(page)
        keys = [projection.key(row) for row in prepared.rows]
        keys += [fetch.run for fetch in prepared.incomplete.values()]
        afterwards = _FINISHED if ENDED in projection.outcomes else _IN_FLIGHT
        for key in keys:
            change = _CHANGES.get(self._state(key), "")
            is_new = change in projection.outcomes
            counter = projection.outcomes[change] if is_new else projection.duplicates
            self.counters.add(**{counter: 1})
            if is_new and len(self._states) < _MOST_REMEMBERED:
                self._states[hash(key)] = afterwards
        reasons = [
            self.reader.read(queries.rejection_reason, event.key) for event in prepared.rejected
        ]
        self.counters.add(
            messages=len(page),
            rejected=reasons.count(None),
            rejected_duplicate=len(reasons) - reasons.count(None),
            markers=len(prepared.markers),
        )

    def _state(self, result_id: str) -> str:
        remembered = self._states.get(hash(result_id))
        return remembered or _state_of(self.reader.read(queries.find, result_id))


def _state_of(found: FoundRun | None) -> str:
    if found is None:
        return _ABSENT
    if found.finished_at is None:
        return _IN_FLIGHT
    return _REAPED if found.reaped else _FINISHED
