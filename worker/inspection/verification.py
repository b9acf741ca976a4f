"""Does each event of the stream stand in the tables as it should? Reads, and writes nothing."""

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

EQUAL = "equal"
REJECTED = "rejected"  # it stands among the rejected events
ACK_PENDING = "ack_pending"  # not in the tables: not settled, or above one that is not
EXISTING = "existing"  # the row is of an earlier event of the run, or another program's
DEADLINE_CHANGED = "deadline_changed"  # the manifest was changed since: the row keeps its own
DEADLINE_MISSING = "deadline_missing"  # the manifest was not known then
DISCARDED = "discarded"  # no start, settled, and not among the rejected events (any more)
DIFFERENT = "different"
MISSING = "missing"
OUTCOMES = (
    *(EQUAL, REJECTED, ACK_PENDING, EXISTING, DEADLINE_CHANGED, DEADLINE_MISSING, DISCARDED),
    *(DIFFERENT, MISSING),
)
WRONG = (DIFFERENT, MISSING)

Differences = dict[str, tuple[str | None, str | None]]


class Verdict(NamedTuple):
    """One event: its outcome, and each column that differs, as expected and as found."""

    outcome: str
    stream_sequence: int
    result_id: str | None
    columns: Differences


class Verification:
    """Compares pages of a stream with the tables.

    `settled` is the stream sequence up to which everything was settled before the first read.
    """

    def __init__(
        self,
        reader: Reader,
        stream: str,
        settled: int,
        manifests: ManifestCache,
        *,
        deadlines: bool = True,
    ) -> None:
        self._reader = reader
        self._settled = settled
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
        outcome = ACK_PENDING if sequence > self._settled else DISCARDED
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
        outcome = ACK_PENDING if sequence > self._settled else MISSING
        return Verdict(outcome, sequence, run.result_id, {})

    def _compared(self, run: Run, found: FoundRun, columns: Differences) -> str:
        if not self._deadlines:
            columns.pop("expires_at", None)
        if not columns:
            return EQUAL
        if "recorded_at" in columns:
            # The first to come wins, and another program may write a whole row at a run's end.
            is_earlier = found.run.recorded_at < run.recorded_at
            return EXISTING if is_earlier or found.finished_at is not None else DIFFERENT
        return self._of_deadline(run, found.run) if set(columns) == {"expires_at"} else DIFFERENT

    def _of_deadline(self, expected: Run, found: Run) -> str:
        """Tell a deadline of another timeout from one that no timeout can have made."""
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
    """Return the columns in which two rows differ."""
    return {
        name: (ours, theirs)
        for name, ours, theirs in zip(Run._fields, expected, found, strict=True)
        if ours != theirs
    }


def _earliest_deadline(run: Run) -> str:
    return format_instant(deadline(parse_stored(run.recorded_at), 0))
