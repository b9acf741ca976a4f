"""Compares every message of a stream with the database. Reads only."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from repo import queries
from repo.queries import FoundRun
from repo.reader import Reader
from repo.rejected import RejectedEvent
from worker.codec.timestamps import format_instant
from worker.messages import NOT_FETCHED, Fetch, Message, Output
from worker.processing.processor import BatchProcessor, Prepared
from worker.projections.base import DIFFERENT, EQUAL, EXISTING, NOT_WRITTEN, Differences
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.projections.starts import DEADLINE_CHANGED, DEADLINE_MISSING

# A row's own outcomes are the projection's; these are of messages that are in no row.
REJECTED = "rejected"  # kept in rejected_events
PENDING = "pending"  # not in the database: not acked yet, or above a message that is not
DISCARDED = "discarded"  # malformed, acked, and not in rejected_events any more
MARKER = "marker"  # the server's note of an expired message, which has no row of any kind
MISSING = "missing"
OUTCOMES = (
    *(EQUAL, REJECTED, PENDING, EXISTING, DEADLINE_CHANGED, DEADLINE_MISSING, DISCARDED),
    *(MARKER, DIFFERENT, MISSING),
)
WRONG = (DIFFERENT, MISSING)

# About 100 MB. Beyond that, a run with two results may count as different.
_MOST_REMEMBERED = 1_000_000


class Verdict(NamedTuple):
    """One message: its outcome, its row's id, and each column that differs, expected and found."""

    outcome: str
    stream: str
    stream_sequence: int
    result_id: str | None
    columns: Differences


@dataclass(slots=True)
class ReadResults:
    """The runs whose results a stream holds, to find rows that ended without one.

    `is_whole` is whether every result was read that the stream ever had, `created_at` when it was
    created, as stored text. `has_later` returns whether a result of a request was stored since.
    """

    is_whole: bool
    created_at: str
    has_later: Callable[[str], bool]
    _seen: set[int] = field(default_factory=set)

    def note(self, result_id: str) -> None:
        """Note that the stream holds a result of a run."""
        self._seen.add(hash(result_id))
        self.is_whole = self.is_whole and len(self._seen) < _MOST_REMEMBERED

    def explain(self, found: FoundRun, started_at: int) -> bool:
        """Return whether a result ended a row, if it has ended and that is known.

        `started_at` is when the start was stored, an instant: an earlier stream may have had the
        results of earlier runs.
        """
        has_ended = found.finished_at is not None and not found.reaped
        if not has_ended or not self.is_whole or format_instant(started_at) < self.created_at:
            return True
        return hash(found.run.result_id) in self._seen or self.has_later(found.run.request_id)


@dataclass(slots=True)
class Verification:
    """Compares pages of a stream with the database, and then what was left open: `rest`.

    `ack_floor` is the stream sequence up to which everything was acked before the first read.
    `is_whole` is whether every message that the stream ever had is read. `results` are those that
    were read before, which explain the rows of starts.
    """

    reader: Reader
    processor: BatchProcessor
    manifests: ManifestCache
    ack_floor: int
    is_whole: bool
    deadlines: bool
    results: ReadResults | None = None
    _reaches_back: str | None = None
    _explained: set[int] = field(default_factory=set)
    _open: list[tuple[Verdict, str]] = field(default_factory=list)

    def verify(self, page: Sequence[Message]) -> Iterator[Verdict]:
        """Yield a verdict for each message of a page but those that are left open.

        Raises RepositoryError.
        """
        self._reaches_back = self._reaches_back or format_instant(page[0].stored_at)
        prepared = self._prepare(page)
        for message in prepared.markers:
            yield self._verdict(MARKER, message.stream_sequence)
        for event in prepared.rejected:
            yield self._verdict(self._without_row(event, DISCARDED), event.stream_sequence)
        for row, message in zip(prepared.rows, prepared.sources, strict=True):
            if (verdict := self._verify_row(row, message)) is not None:
                yield verdict

    def rest(self) -> Iterator[Verdict]:
        """Yield the verdicts that were left open, once every page was read.

        A row that holds another message of its run is right, if that message is in the stream, or
        may have been there before the first message that was read.
        """
        for verdict, since in self._open:
            may_be_gone = not self.is_whole and since < (self._reaches_back or "")
            if hash(verdict.result_id) in self._explained or may_be_gone:
                yield verdict._replace(outcome=EXISTING, columns={})
            else:
                yield verdict
        self._open.clear()

    def _prepare(self, page: Sequence[Message]) -> Prepared:
        """Return the rows of a page, without output that is in the object store."""
        prepared = self.processor.prepare(page)
        if not prepared.incomplete:
            return prepared
        fetches = prepared.incomplete
        return self.processor.prepare(
            [
                message._replace(output=_not_fetched(fetches[message]))
                if message in fetches
                else message
                for message in page
            ]
        )

    def _verify_row(self, row: Any, message: Message) -> Verdict | None:
        projection, sequence = self.processor.projection, message.stream_sequence
        key = projection.key(row)
        if projection is RESULTS and self.results is not None:
            self.results.note(key)
        found = self.reader.read(projection.find, key)
        comparison = found and projection.compare(row, found, self.manifests, self.deadlines)
        if comparison is None or comparison.outcome == NOT_WRITTEN:
            outcome = self._without_row(self.processor.rejected(message, ""), MISSING)
            return self._verdict(outcome, sequence, key)
        if not self._is_explained(found, message):
            columns = {**comparison.columns, "finished_at": (None, found.finished_at)}
            return self._verdict(DIFFERENT, sequence, key, columns)
        verdict = self._verdict(comparison.outcome, sequence, key, comparison.columns)
        if comparison.since is None or len(self._explained) >= _MOST_REMEMBERED:
            return verdict
        if comparison.outcome == EQUAL:
            self._explained.add(hash(key))
            return verdict
        self._open.append((verdict, comparison.since))
        return None

    def _is_explained(self, found: Any, message: Message) -> bool:
        """Return whether the row of a start has ended by a result, as far as that is known."""
        if self.results is None or not isinstance(found, FoundRun):
            return True
        return self.results.explain(found, message.stored_at)

    def _verdict(
        self,
        outcome: str,
        sequence: int,
        key: str | None = None,
        columns: Differences | None = None,
    ) -> Verdict:
        return Verdict(outcome, self.processor.stream, sequence, key, columns or {})

    def _without_row(self, event: RejectedEvent, otherwise: str) -> str:
        """Return the outcome of a message that is in no row."""
        if self.reader.read(queries.rejection_reason, event.key) is not None:
            return REJECTED
        return PENDING if event.stream_sequence > self.ack_floor else otherwise


def _not_fetched(fetch: Fetch) -> Output:
    return Output(
        None if fetch.stdout is None else NOT_FETCHED,
        None if fetch.stderr is None else NOT_FETCHED,
    )
