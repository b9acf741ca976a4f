"""Turns a batch into rows, writes them, and decides for each message. Runs in a pool thread."""

import logging
import random
import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any

from repo.batch_writer import ALWAYS, PromotionFailure, WriteResult
from repo.checkpoint import NO_CHECKPOINT, Checkpoint
from repo.errors import CorruptDatabaseError, MustWait, RepositoryError, RowsHeld
from repo.reader import Reader
from repo.rejected import RejectedEvent, kind_of_reason
from repo.repository import Repository
from worker.codec.timestamps import format_instant, is_representable, present_second
from worker.errors import describe
from worker.logs import Grouped, Repeats
from worker.messages import Ack, Batch, BatchResult, Decision, Fetch, Message, Nak, Wait, nak_delay
from worker.projections.base import MalformedEvent, Projection, rejected_event
from worker.projections.manifests import Deadlines, ManifestCache, NoTimeout
from worker.status.counters import Counters

log = logging.getLogger(__name__)

_REPEAT_WARNING_AFTER = 60.0


@dataclass(slots=True)
class Prepared:
    """A batch as rows; `sources[i]` is the message that `rows[i]` was made of.

    `markers` are the messages that mean nothing: the server's notes of expired ones. `incomplete`
    are those that cannot become rows yet, each with the objects that it needs. `without_deadline`
    counts rows by manifest and by why it gives no deadline.
    """

    rows: list[Any]
    sources: list[Message]
    rejected: list[RejectedEvent]
    markers: list[Message]
    incomplete: dict[Message, Fetch]
    without_deadline: Mapping[tuple[str, NoTimeout], int]

    def leave_out(self, indexes: Collection[int]) -> list[Message]:
        """Remove rows; return the messages that they were made of."""
        left_out = [self.sources[index] for index in sorted(indexes)]
        for index in sorted(indexes, reverse=True):
            del self.rows[index], self.sources[index]
        return left_out


class BatchProcessor:
    """Processes batches of one projection. Pool threads share it; each brings its repository.

    `stream` is the name that rejected events are kept under.
    """

    def __init__(
        self,
        projection: Projection[Any, Any],
        stream: str,
        manifests: ManifestCache,
        counters: Counters,
    ) -> None:
        self.projection = projection
        self.stream = stream
        self._manifests = manifests
        self._counters = counters
        self._lock = threading.Lock()
        self._database_failed = False
        self._waits_since = 0
        # By batch: the runs whose output has to be fetched, until a later batch lists them.
        self._fetches: dict[int, set[str]] = {}
        self._repeats = Repeats(_REPEAT_WARNING_AFTER)
        self._rejected = Grouped(_REPEAT_WARNING_AFTER)
        self._missing_deadlines = Grouped(_REPEAT_WARNING_AFTER)

    def process(
        self, batch: Batch, repository: Repository[Any], wait_for_turn: Callable[[], None]
    ) -> BatchResult:
        """Write a batch when it is its turn; returns a decision for each message, in order.

        Acks stand for committed rows. When the database fails, every message is nak'd and none is
        rejected. Raises CorruptDatabaseError, with nothing written.
        """
        ready, prepared = batch, self.prepare(batch.messages, batch.fetching)
        wait_for_turn()
        held = self._held(batch)
        if held > batch.fetching:
            prepared = self.prepare(batch.messages, held)
        if batch.after < self._waits_since:
            # Made before it was known that messages of an earlier batch wait. So the first of two
            # messages for one row stays the first, also across batches.
            ready, prepared = replace(batch, messages=()), self.prepare(())
        naks: dict[Message, Nak] = {}
        try:
            while ready.messages:
                try:
                    self._complete_ended(ready, prepared, repository)
                    self._commit(ready, prepared, repository, left_out=len(naks))
                    break
                except MustWait as error:
                    self._waits_since = batch.number
                    ready = replace(ready, messages=ready.messages[: error.index])
                    prepared, naks = self.prepare(ready.messages, held), {}
                except RowsHeld as error:
                    naks |= self._nak_held(prepared.leave_out(error.indexes), error)
        except CorruptDatabaseError:
            raise
        except RepositoryError as error:
            return self._nak_all(batch, error)
        if prepared.incomplete:
            self._fetches[batch.number] = {fetch.run for fetch in prepared.incomplete.values()}
        return self._decided(batch, ready, prepared, naks)

    def _nak_held(self, messages: Sequence[Message], error: RowsHeld) -> dict[Message, Nak]:
        """Return naks for messages whose executions another program holds."""
        self._counters.add(naks=len(messages))
        if self._repeats.due(RowsHeld):
            log.warning("executions.held", extra={"runs": len(messages), "error": str(error)})
        return {message: _nak(message) for message in messages}

    def _held(self, batch: Batch) -> set[str]:
        """Return the runs that earlier messages are fetched for, whichever batch they came in."""
        self._fetches = {n: runs for n, runs in self._fetches.items() if n > batch.after}
        return set(batch.fetching).union(*self._fetches.values())

    def _decided(
        self, batch: Batch, ready: Batch, prepared: Prepared, naks: Mapping[Message, Nak]
    ) -> BatchResult:
        """Return the decisions for a batch, of which the messages of `ready` are processed."""
        decisions: tuple[Decision, ...] = (Ack(),) * len(ready.messages)
        others: dict[Message, Decision] = {**prepared.incomplete, **naks}
        if others:
            decisions = tuple(others.get(message, Ack()) for message in ready.messages)
        waiting = (Wait(),) * (len(batch.messages) - len(ready.messages))
        left = len(others) + len(waiting)
        return BatchResult(batch, decisions + waiting, left=left)

    def missing_objects(
        self, messages: Sequence[Message], repository: Repository[Any] | Reader
    ) -> dict[Message, Fetch]:
        """Return what has to be fetched before these messages are rows. Raises RepositoryError."""
        prepared = self.prepare(messages)
        self._complete_ended(Batch(0, tuple(messages)), prepared, repository)
        return prepared.incomplete

    def _complete_ended(
        self, batch: Batch, prepared: Prepared, repository: Repository[Any] | Reader
    ) -> None:
        """Take out what needs no object, since its row has ended and will not be changed.

        Raises MustWait with the index of the first message that has to wait, if one does.
        """
        if not prepared.incomplete:
            return
        runs = [fetch.run for fetch in prepared.incomplete.values()]
        states = repository.read(self.projection.states, runs)
        for message, fetch in list(prepared.incomplete.items()):
            if states.get(fetch.run):
                del prepared.incomplete[message]
            elif fetch.run not in states and message.stored_at > batch.ready_until:
                raise MustWait(batch.messages.index(message))

    def catch_up(self, batch: Batch, repository: Repository[Any]) -> WriteResult:
        """Write messages that were read again; nothing is acked. Raises RepositoryError."""
        return self._commit(batch, self.prepare(batch.messages), repository, "catch_up_messages")

    def replay(self, messages: Sequence[Message], repository: Repository[Any]) -> WriteResult:
        """Write messages that were read from the stream, in one transaction; nothing is acked.

        Raises RepositoryError.
        """
        batch = Batch(1, tuple(messages))
        return self._commit(batch, self.prepare(messages), repository)

    def retry(self, messages: Sequence[Message], repository: Repository[Any]) -> WriteResult:
        """Write messages that are rejected events, in one transaction.

        Returns what became of each. Raises RepositoryError, with nothing changed.
        """
        prepared = self.prepare(messages)
        started = time.monotonic()
        result = repository.write_again(
            prepared.rows,
            prepared.rejected,
            lambda index, reason: self.rejected(prepared.sources[index], reason),
        )
        batch = Batch(1, tuple(messages))
        self._record(batch, prepared, result, time.monotonic() - started)
        return result

    def prepare(self, messages: Sequence[Message], held: Iterable[str] | None = None) -> Prepared:
        """Return the rows that messages become; nothing is written.

        `held` are runs whose messages are incomplete, and so are those that come after an
        incomplete one: the first of two results of one run stays the first. None holds nothing.
        """
        held = None if held is None else set(held)
        decode, build_row = self.projection.decode, self.projection.build_row
        objects, key = self.projection.objects, self.projection.key
        deadlines = Deadlines(self._manifests)
        prepared = Prepared([], [], [], [], {}, deadlines.missing)
        rows, sources = prepared.rows, prepared.sources
        for message in messages:
            if message.is_marker:
                prepared.markers.append(message)
                continue
            try:
                event = decode(message.payload)
            except MalformedEvent as error:
                prepared.rejected.append(self.rejected(message, str(error)))
                continue
            row = build_row(event, message, deadlines)
            fetch = objects(event) if message.output is None else None
            if fetch is None and held and message.output is None and key(row) in held:
                fetch = Fetch(None, None)
            if fetch is not None:
                prepared.incomplete[message] = fetch = replace(fetch, run=key(row))
                if held is not None:
                    held.add(fetch.run)
                continue
            rows.append(row)
            sources.append(message)
        return prepared

    def rejected(self, message: Message, reason: str) -> RejectedEvent:
        """Return a message as a rejected event."""
        return rejected_event(self.stream, message, reason)

    def _commit(
        self,
        batch: Batch,
        prepared: Prepared,
        repository: Repository[Any],
        counter: str = "messages",
        *,
        left_out: int = 0,
    ) -> WriteResult:
        started = time.monotonic()
        try:
            written = repository.write(
                prepared.rows,
                prepared.rejected,
                lambda index, reason: self.rejected(prepared.sources[index], reason),
                _checkpoint(batch),
                _as_text(batch.ready_until),
            )
        except MustWait as error:
            raise MustWait(batch.messages.index(prepared.sources[error.index])) from None
        seconds = time.monotonic() - started
        self._record(batch, prepared, written, seconds, counter, left_out=left_out)
        return written

    def _record(
        self,
        batch: Batch,
        prepared: Prepared,
        written: WriteResult,
        seconds: float,
        counter: str = "messages",
        *,
        left_out: int = 0,
    ) -> None:
        """Count and log what a committed batch did; `counter` counts its messages."""
        outcomes = self.projection.outcomes
        changed = sum(written.outcomes[name] for name in outcomes)
        counted = {**outcomes, **self.projection.details}
        with self._lock:
            recovered, self._database_failed = self._database_failed, False
        if recovered:
            log.info("database.recovered")
        self._counters.add(
            batches=1,
            **{counter: len(batch.messages) - len(prepared.incomplete) - left_out},
            redelivered=sum(message.delivery > 1 for message in batch.messages),
            **{counter: written.outcomes[name] for name, counter in counted.items()},
            **{self.projection.duplicates: len(prepared.rows) - written.rows_rejected - changed},
            rejected=len(written.rejected),
            rejected_duplicate=len(prepared.rejected)
            + written.rows_rejected
            - len(written.rejected),
            markers=len(prepared.markers),
            promotions_failed=len(written.promotion_failures),
        )
        for (manifest_id, no_timeout), count in prepared.without_deadline.items():
            self._count_missing_deadline(manifest_id, no_timeout, count)
        self._log_rejected(batch, written)
        self.report()
        log_promotion_failures(written.promotion_failures)
        if log.isEnabledFor(logging.DEBUG):
            self._log_rows(batch, prepared, written, seconds)

    def _log_rejected(self, batch: Batch, written: WriteResult) -> None:
        if not written.rejected:
            return
        deliveries = {message.stream_sequence: message.delivery for message in batch.messages}
        for event in written.rejected:
            fields = {
                "stream": self.stream,
                "stream_sequence": event.stream_sequence,
                "delivery": deliveries[event.stream_sequence],
                "subject": event.subject,
                "payload_bytes": len(event.payload),
                "error": event.reason,
            }
            log.debug("event.rejected", extra=fields)
            self._rejected.add(kind_of_reason(event.reason), 1, fields)

    def report(self, *, at_end: bool = False) -> None:
        """Warn of rejected events and missing deadlines: each cause once a minute, and at the end.

        The first of a cause is logged at once, with how many there were since the last warning.
        """
        for count, fields in self._rejected.due(at_end=at_end):
            log.warning("event.rejected", extra={**fields, "events": count})
        for count, fields in self._missing_deadlines.due(at_end=at_end):
            log.warning("deadline.missing", extra={**fields, "runs": count})

    def _log_rows(
        self, batch: Batch, prepared: Prepared, written: WriteResult, seconds: float
    ) -> None:
        for row, message in zip(prepared.rows, prepared.sources, strict=True):
            log.debug(
                "run.projected",
                extra={
                    "stream_sequence": message.stream_sequence,
                    "delivery": message.delivery,
                    **self.projection.log_fields(row),
                },
            )
        log.debug(
            "batch.projected",
            extra={
                "batch_size": len(batch.messages),
                **dict(written.outcomes),
                "seconds": round(seconds, 6),
            },
        )

    def _count_missing_deadline(self, manifest_id: str, no_timeout: NoTimeout, runs: int) -> None:
        self._counters.add(**{f"deadline_missing_{no_timeout.reason}": runs})
        fields = {"manifest_id": manifest_id, "reason": no_timeout.reason}
        if no_timeout.problem:
            fields["error"] = no_timeout.problem
        self._missing_deadlines.add((manifest_id, no_timeout.reason), runs, fields)

    def _nak_all(self, batch: Batch, error: RepositoryError) -> BatchResult:
        with self._lock:
            self._database_failed = True
        decisions: list[Decision] = [_nak(message) for message in batch.messages]
        self._counters.add(database_faults=1, naks=len(decisions))
        log.warning(
            "batch.failed",
            extra={
                "error": describe(error),
                "batch_size": len(batch.messages),
                "stream_sequence": batch.messages[0].stream_sequence,
                "delivery": max(message.delivery for message in batch.messages),
            },
        )
        return BatchResult(batch, tuple(decisions), describe(error))


def log_promotion_failures(failures: Iterable[PromotionFailure]) -> None:
    """Log one line for each reason: without the table, all executions fail alike."""
    by_reason: dict[str, list[str]] = {}
    for failure in failures:
        by_reason.setdefault(failure.reason, []).append(failure.execution)
    for reason, failed in by_reason.items():
        log.warning(
            "execution.not_promoted",
            extra={"execution": failed[0], "executions": len(failed), "error": reason},
        )


def _as_text(ready_until: int) -> str:
    return format_instant(ready_until) if is_representable(ready_until) else ALWAYS


def _nak(message: Message) -> Nak:
    return Nak(nak_delay(message.delivery, random.random()))  # noqa: S311 (jitter, no secret)


def _checkpoint(batch: Batch) -> Checkpoint:
    """Return the checkpoint that a batch reaches once it is committed."""
    if batch.position is None:
        return NO_CHECKPOINT
    last = max(batch.messages, key=attrgetter("stream_sequence"))
    return Checkpoint(
        stream_created_at=batch.position.stream_created_at,
        caught_up_to=batch.position.caught_up_to,
        last_sequence=last.stream_sequence,
        last_stored_at=format_instant(last.stored_at),
        committed_at=present_second(),
    )
