"""The projection of one batch: decode, compute deadlines, write, decide. Runs in a pool thread."""

import logging
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from repo.batch_writer import WriteResult
from repo.checkpoint import Checkpoint
from repo.errors import CorruptDatabaseError, RepositoryError
from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.repository import Repository
from repo.rewriting import RetryResult
from worker.codec.timestamps import format_instant, present_second
from worker.decisions import Ack, Decision, Nak, nak_delay
from worker.errors import describe
from worker.logs import Repeats
from worker.messages import Batch, Decisions, Message
from worker.projections.deadline import deadline
from worker.projections.manifests import ManifestCache, NoTimeout
from worker.projections.starts import EventStarted, MalformedEvent, decode_start
from worker.status.counters import Counters

log = logging.getLogger(__name__)

_REPEAT_WARNING_AFTER = 60.0


@dataclass(slots=True)
class Prepared:
    """A batch as rows; `sources[i]` is the message that `runs[i]` was made of."""

    runs: list[Run]
    sources: list[Message]
    rejected: list[RejectedEvent]


class Projection:
    """Turns batches into results. Pool threads share it; each brings its own repository."""

    def __init__(self, stream: str, manifests: ManifestCache, counters: Counters) -> None:
        self._stream = stream
        self._manifests = manifests
        self._counters = counters
        self._lock = threading.Lock()
        self._in_fault = False
        self._repeats = Repeats(_REPEAT_WARNING_AFTER)

    def project(
        self, batch: Batch, repository: Repository, wait_for_turn: Callable[[], None]
    ) -> Decisions:
        """Write a batch when it is its turn and return a decision for each message, in order.

        Acks stand for rows that are committed. On a fault of the database every message is nak'd,
        and none is rejected. Raises CorruptDatabaseError, with nothing written.
        """
        prepared = self.prepare(batch)
        wait_for_turn()
        return self._write(batch, prepared, repository)

    def project_again(self, messages: Sequence[Message], repository: Repository) -> RetryResult:
        """Write messages that are rejected events, and tell what became of each.

        As any batch, in one transaction, with nobody to ack to. Raises RepositoryError, with
        nothing changed.
        """
        batch = Batch(1, tuple(messages))
        prepared = self.prepare(batch)
        started = time.monotonic()
        rewritten = repository.write_again(
            prepared.runs,
            prepared.rejected,
            lambda index, reason: self.rejected(prepared.sources[index], reason),
        )
        self._account(batch, prepared, rewritten.written, time.monotonic() - started)
        return rewritten

    def replay(self, messages: Sequence[Message], repository: Repository) -> WriteResult:
        """Write messages of the past, and return what that did.

        As any batch, in one transaction, with nobody to ack to. Raises RepositoryError.
        """
        batch = Batch(1, tuple(messages))
        return self._commit(batch, self.prepare(batch), repository)

    def _write(self, batch: Batch, prepared: Prepared, repository: Repository) -> Decisions:
        try:
            self._commit(batch, prepared, repository)
        except CorruptDatabaseError:
            raise
        except RepositoryError as error:
            return self._give_back(batch, error)
        return Decisions(batch, (Ack(),) * len(batch.messages))

    def _commit(self, batch: Batch, prepared: Prepared, repository: Repository) -> WriteResult:
        started = time.monotonic()
        written = repository.write(
            prepared.runs,
            prepared.rejected,
            lambda index, reason: self.rejected(prepared.sources[index], reason),
            _reached(batch),
        )
        self._account(batch, prepared, written, time.monotonic() - started)
        return written

    def prepare(self, batch: Batch) -> Prepared:
        """Return the rows that a batch comes to; nothing is written."""
        prepared = Prepared([], [], [])
        missing: Counter[tuple[str, NoTimeout]] = Counter()
        for message in batch.messages:
            try:
                start = decode_start(message.payload)
            except MalformedEvent as error:
                prepared.rejected.append(self.rejected(message, str(error)))
                continue
            prepared.runs.append(self._run(start, message, missing))
            prepared.sources.append(message)
        for (manifest_id, no_timeout), runs in missing.items():
            self._missing_deadline(manifest_id, no_timeout, runs)
        return prepared

    def _run(
        self, start: EventStarted, message: Message, missing: Counter[tuple[str, NoTimeout]]
    ) -> Run:
        timeout = self._manifests.timeout(start.manifest_id)
        expires_at: str | None = None
        if isinstance(timeout, NoTimeout):
            missing[start.manifest_id, timeout] += 1
        else:
            expires_at = format_instant(deadline(message.recorded_at, timeout.nanoseconds))
        return Run(
            start.result_id,
            start.request_id,
            start.exec_id,
            start.pc_id,
            format_instant(start.started_at),
            start.version,
            start.manifest_id,
            format_instant(message.recorded_at),
            expires_at,
        )

    def rejected(self, message: Message, reason: str) -> RejectedEvent:
        """Return a message as a rejected event."""
        return RejectedEvent(
            stream=self._stream,
            stream_sequence=message.stream_sequence,
            recorded_at=format_instant(message.recorded_at),
            subject=message.subject,
            payload=message.payload,
            reason=reason,
            rejected_at=present_second(),
        )

    def _account(
        self, batch: Batch, prepared: Prepared, written: WriteResult, seconds: float
    ) -> None:
        with self._lock:
            recovered, self._in_fault = self._in_fault, False
        if recovered:
            log.info("database.recovered")
        self._counters.add(
            batches=1,
            messages=len(batch.messages),
            redelivered=sum(message.delivery > 1 for message in batch.messages),
            runs_inserted=written.inserted,
            runs_duplicate=len(prepared.runs) - written.refused - written.inserted,
            rejected=len(written.rejected),
            rejected_duplicate=(len(prepared.rejected) + written.refused - len(written.rejected)),
            promotions_failed=len(written.promotion_failures),
        )
        self._warn(batch, written)
        self._tell(batch, prepared, written, seconds)

    def _warn(self, batch: Batch, written: WriteResult) -> None:
        """Say what a person has to look at; a replay, which is no news, is not told again."""
        if not written.rejected and not written.promotion_failures:
            return
        deliveries = {message.stream_sequence: message.delivery for message in batch.messages}
        for event in written.rejected:
            log.warning(
                "event.rejected",
                extra={
                    "stream_sequence": event.stream_sequence,
                    "delivery": deliveries[event.stream_sequence],
                    "subject": event.subject,
                    "payload_bytes": len(event.payload),
                    "error": event.reason,
                },
            )
        # One line a reason: with the table gone, every execution of every batch fails alike.
        by_reason: dict[str, list[str]] = {}
        for failure in written.promotion_failures:
            by_reason.setdefault(failure.reason, []).append(failure.exec_id)
        for reason, exec_ids in by_reason.items():
            log.warning(
                "execution.not_promoted",
                extra={"exec_id": exec_ids[0], "executions": len(exec_ids), "error": reason},
            )

    def _tell(self, batch: Batch, prepared: Prepared, written: WriteResult, seconds: float) -> None:
        if not log.isEnabledFor(logging.DEBUG):
            return
        for run, message in zip(prepared.runs, prepared.sources, strict=True):
            log.debug(
                "run.projected",
                extra={
                    "stream_sequence": message.stream_sequence,
                    "delivery": message.delivery,
                    "result_id": run.result_id,
                    "exec_id": run.exec_id,
                    "pc_id": run.pc_id,
                    "manifest_id": run.job_id,
                },
            )
        log.debug(
            "batch.projected",
            extra={
                "batch_size": len(batch.messages),
                "runs_inserted": written.inserted,
                "seconds": round(seconds, 6),
            },
        )

    def _missing_deadline(self, manifest_id: str, no_timeout: NoTimeout, runs: int) -> None:
        """Count runs that have no deadline, and say so once a minute for each manifest."""
        self._counters.add(**{f"deadline_missing_{no_timeout.reason}": runs})
        due = self._repeats.due((manifest_id, no_timeout.reason))
        log.log(
            logging.WARNING if due else logging.DEBUG,
            "deadline.missing",
            extra={
                "manifest_id": manifest_id,
                "reason": no_timeout.reason,
                "runs": runs,
                **({"error": no_timeout.problem} if no_timeout.problem else {}),
            },
        )

    def _give_back(self, batch: Batch, error: RepositoryError) -> Decisions:
        with self._lock:
            self._in_fault = True
        decisions: list[Decision] = [
            Nak(nak_delay(message.delivery, random.random()))  # noqa: S311 (jitter, no secret)
            for message in batch.messages
        ]
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
        return Decisions(batch, tuple(decisions), fault=describe(error))


def _reached(batch: Batch) -> Checkpoint | None:
    """Return the checkpoint that a batch reaches once it is committed."""
    if batch.position is None:
        return None
    return Checkpoint(
        stream_created_at=batch.position.stream_created_at,
        highest_sequence=max(message.stream_sequence for message in batch.messages),
        caught_up_to=batch.position.floor,
        committed_at=present_second(),
    )
