"""Compare the events in the stream with the tables. Reads, and writes nothing."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from repo import queries as runs
from repo.execution_results import Run
from repo.queries import FoundRun
from repo.reader import Reader
from repo.rejected import RejectedEvent
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_stored
from worker.messages import Batch, Message
from worker.processing.processor import Projection
from worker.projections.deadline import deadline
from worker.projections.manifests import ManifestCache
from worker.status.counters import Counters

# Outcomes.
EQUAL = "equal"
REJECTED = "rejected"  # the event is among the rejected events
PENDING = "pending"  # no row, and the event may not have been acked
EXISTING = "existing"  # an earlier event of the run, or another program, wrote the row
DEADLINE_CHANGED = "deadline_changed"  # the manifest changed later; the row keeps its deadline
DEADLINE_MISSING = "deadline_missing"  # the manifest was unknown at the time
DISCARDED = "discarded"  # cannot be decoded, was acked, and is not among the rejected events
DIFFERENT = "different"
MISSING = "missing"
OUTCOMES = (
    *(EQUAL, REJECTED, PENDING, EXISTING, DEADLINE_CHANGED, DEADLINE_MISSING, DISCARDED),
    *(DIFFERENT, MISSING),
)
WRONG = (DIFFERENT, MISSING)

Differences = dict[str, tuple[str | None, str | None]]


class Verdict(NamedTuple):
    """The outcome of one event, and the expected and found value of each column that differs."""

    outcome: str
    stream_sequence: int
    result_id: str | None
    columns: Differences


class Verification:
    """Compares pages of a stream with the tables.

    `ack_floor` is the consumer's ack floor before the first read.
    """

    def __init__(
        self,
        reader: Reader,
        stream: str,
        ack_floor: int,
        manifests: ManifestCache,
        *,
        deadlines: bool = True,
    ) -> None:
        self._reader = reader
        self._ack_floor = ack_floor
        self._manifests = manifests
        self._deadlines = deadlines
        self._projection = Projection(stream, manifests, Counters())

    def verify(self, page: Sequence[Message]) -> Iterator[Verdict]:
        """Yield a verdict for each message of a page; raises RepositoryError."""
        prepared = self._projection.prepare(Batch(1, tuple(page)))
        for event in prepared.rejected:
            yield self._rejected(event)
        for run, message in zip(prepared.runs, prepared.sources, strict=True):
            yield self._start(run, message)

    def _rejected(self, event: RejectedEvent) -> Verdict:
        sequence = event.stream_sequence
        if self._reader.read(runs.rejection_reason, event.key) is not None:
            return Verdict(REJECTED, sequence, None, {})
        outcome = PENDING if sequence > self._ack_floor else DISCARDED
        return Verdict(outcome, sequence, None, {})

    def _start(self, run: Run, message: Message) -> Verdict:
        sequence = message.stream_sequence
        found = self._reader.read(runs.find, run.result_id)
        if found is not None:
            columns = differences(run, found.run)
            return Verdict(self._compared(run, found, columns), sequence, run.result_id, columns)
        event = self._projection.rejected(message, "")
        if self._reader.read(runs.rejection_reason, event.key) is not None:
            return Verdict(REJECTED, sequence, run.result_id, {})
        outcome = PENDING if sequence > self._ack_floor else MISSING
        return Verdict(outcome, sequence, run.result_id, {})

    def _compared(self, run: Run, found: FoundRun, columns: Differences) -> str:
        if not self._deadlines:
            columns.pop("expires_at", None)
        if not columns:
            return EQUAL
        if "recorded_at" in columns:
            # The first event of a run wins, and another program may insert a finished run's row.
            is_earlier = found.run.recorded_at < run.recorded_at
            return EXISTING if is_earlier or found.finished_at is not None else DIFFERENT
        return self._of_deadline(run, found.run) if set(columns) == {"expires_at"} else DIFFERENT

    def _of_deadline(self, expected: Run, found: Run) -> str:
        """Distinguish a deadline from another timeout from one that no timeout can produce."""
        if found.expires_at is None:
            return DEADLINE_MISSING
        if found.expires_at < _earliest_deadline(found):
            return DIFFERENT
        manifest = self._manifests.find(expected.job_id)
        changed_at = manifest.put_at if manifest is not None else 0.0
        is_gone = expected.expires_at is None
        put_after = format_instant(int(changed_at * NANOSECONDS)) > expected.recorded_at
        return DEADLINE_CHANGED if is_gone or put_after else DIFFERENT


def differences(expected: Run, found: Run) -> Differences:
    """Return the expected and found value of each column in which two rows differ."""
    return {
        name: (ours, theirs)
        for name, ours, theirs in zip(Run._fields, expected, found, strict=True)
        if ours != theirs
    }


def _earliest_deadline(run: Run) -> str:
    return format_instant(deadline(parse_stored(run.recorded_at), 0))
