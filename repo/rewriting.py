"""Rejected events written after all: their runs in, their rows out, in one transaction."""

from collections.abc import Sequence
from dataclasses import dataclass

from repo import rejected as rejected_events
from repo.batch_writer import BatchWriter, Refusal, WriteResult
from repo.execution_results import Run
from repo.rejected import Key, RejectedEvent


@dataclass(frozen=True, slots=True)
class RetryResult:
    """What became of rejected events.

    `removed` are the messages whose run is written and whose row is gone, `refused` the reasons for
    which the others are refused again. A message in neither has no row any more. `written` counts
    rows as for any batch.
    """

    written: WriteResult
    removed: frozenset[Key]
    refused: dict[Key, str]


class RewriteWriter(BatchWriter):
    """Writes batches of events that are in rejected_events already."""

    def write_again(
        self, runs: Sequence[Run], rejected: Sequence[RejectedEvent], refusal: Refusal
    ) -> RetryResult:
        """Write a batch and return when it is committed; raises like `write`."""
        self._runs = [(refusal(index, "").key, run) for index, run in enumerate(runs)]
        self._removed: frozenset[Key] = frozenset()
        self._refused: dict[Key, str] = {}
        written = self.write(runs, rejected, refusal)
        return RetryResult(written, self._removed, self._refused)

    def _keep(self, rejected: Sequence[RejectedEvent]) -> list[RejectedEvent]:
        # A transaction may be begun several times: what counts is what the last one did. Nothing is
        # inserted: a row that somebody discards meanwhile must not come back.
        self._refused = {event.key: event.reason for event in rejected}
        for event in rejected:
            rejected_events.change_reason(self._connection, event)
        self._removed = frozenset(
            key
            for key, run in self._runs
            if key not in self._refused
            and rejected_events.delete_projected(self._connection, key, run.result_id)
        )
        return []
