"""Before every pull: does the database hold every message that the broker counts as acked?

The consumer's position lives on the broker, the rows live in the database. Where the database is
new, or older than the consumer, the broker would go on from where it was, and history would be
missing. Then the consumer is recreated and history is replayed, which is safe at any time, since
every write is idempotent. Consumer thread only.
"""

import asyncio
import logging
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

import nats.errors

from repo.checkpoint import Checkpoint, StoredCheckpoint
from worker.codec.timestamps import present_second
from worker.errors import PullLost, no_response
from worker.jetstream.connection import API, Connection
from worker.jetstream.consumer import Binding, ConsumerPosition
from worker.processing.queues import WorkQueue
from worker.projections.base import Projection
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus

log = logging.getLogger(__name__)

_MOST_LOOKS = 500
_NO_MESSAGE_FOUND = 10037
_CONSUMER_NOT_FOUND = 10014


class Case(Enum):
    """What the figures look like; a missing message is confirmed by a look into the stream."""

    CAUGHT_UP = "caught up"
    NEW = "new"
    ADOPTED = "rows without a checkpoint"
    WIPED = "a new or wiped file"
    BEHIND = "an older file"


@dataclass(frozen=True, slots=True)
class Comparison:
    """A case, and the sequences that it is about.

    If the stream holds a message above `known`, up to `until`, it was acked and is not in the
    database: every message above `caught_up_to` has to be replayed then. `stream_recreated` is
    whether the checkpoint is of a stream that was deleted.
    """

    case: Case
    known: int
    caught_up_to: int
    until: int
    stream_recreated: bool = False

    @property
    def is_suspect(self) -> bool:
        """Whether a message may be missing; only the stream can show whether one is."""
        return self.until > self.known

    def is_missing(self, sequence: int | None) -> bool:
        """Return whether one is missing, from the sequence of the first one above `known`."""
        return sequence is not None and sequence <= self.until

    def needs_a_count(self, position: ConsumerPosition) -> bool:
        """Return whether messages may have been acked out of order, above a lagging ack floor.

        They were, if more of them were delivered above `known` than are ack pending.
        """
        return self.case is Case.CAUGHT_UP and self.known < position.delivered

    def found_behind(self, position: ConsumerPosition) -> "Comparison":
        """Return the comparison after a count that found missing messages."""
        return replace(self, case=Case.BEHIND, until=position.delivered)

    def gone(self, position: ConsumerPosition) -> int:
        """Return how many sequences of a replay the stream does not hold any more."""
        return max(0, position.first_sequence - 1 - self.caught_up_to)

    def checkpoint(self, position: ConsumerPosition, now: str, *, missing: bool) -> Checkpoint:
        """Return the checkpoint to begin with; `now` is stored text.

        With nothing missing, all that the broker counts as acked is in the database.
        """
        acked = 0 if missing else position.ack_floor
        highest = self.known if self.case is not Case.ADOPTED else acked
        return Checkpoint(position.stream_created_at, highest, max(self.caught_up_to, acked), now)


def compare(stored: StoredCheckpoint, position: ConsumerPosition) -> Comparison:
    """Compare what the database holds with where the broker was before that was read.

    In that order, a worker beside this one cannot make the broker look further than the database.
    """
    checkpoint = stored.checkpoint
    created, ours = stored.committed
    if created != position.stream_created_at:
        ours = 0
    if checkpoint is None:
        if ours:
            return Comparison(Case.WIPED, 0, 0, until=max(ours, position.acked))
        if stored.has_rows:
            return Comparison(Case.ADOPTED, 0, 0, until=0)
        # Every worker stores a checkpoint before its first pull: what is acked was committed to
        # another database.
        if position.has_delivered:
            return Comparison(Case.WIPED, 0, 0, until=position.acked)
        return Comparison(Case.NEW, 0, 0, until=0)
    if checkpoint.stream_created_at != position.stream_created_at:
        return _compared(0, 0, position, stream_recreated=True)
    known = max(checkpoint.highest_sequence, checkpoint.caught_up_to)
    return _compared(known, checkpoint.caught_up_to, position, ours)


def _compared(
    known: int,
    caught_up_to: int,
    position: ConsumerPosition,
    ours: int = 0,
    *,
    stream_recreated: bool = False,
) -> Comparison:
    until = max(position.ack_floor, ours)
    case = Case.BEHIND if until > known else Case.CAUGHT_UP
    return Comparison(case, known, caught_up_to, until, stream_recreated)


class Outcome(NamedTuple):
    """Whether the consumer was recreated, and how far the database is known to be complete."""

    is_recreated: bool
    committed: int


class Reconciler:
    """Compares database and broker, and recreates the consumer where messages are missing."""

    def __init__(
        self,
        settings: Settings,
        projection: Projection[Any, Any],
        work: WorkQueue,
        status: WorkerStatus,
    ) -> None:
        self._settings = settings
        self._filter = projection.filter_subject
        self._work = work
        self._status = status

    async def catch_up(self, connection: Connection, binding: Binding) -> Outcome:
        """Compare, replay where that is needed, and store the checkpoint.

        Afterwards batches may be written. Raises a RepositoryError where the database cannot be
        written to, and PullLost where the broker does not answer.
        """
        stored = await asyncio.wrap_future(self._work.ask(lambda repository: repository.recall()))
        position = binding.position
        comparison, missing = await find_missing(
            connection, self._settings.stream, self._filter, compare(stored, position), position
        )
        self._log(comparison, binding, missing=missing)
        replay = missing and not self._settings.no_replay
        if replay:
            await self._recreate_consumer(connection, comparison.caught_up_to)
        checkpoint = comparison.checkpoint(position, present_second(), missing=missing)
        await asyncio.wrap_future(
            self._work.ask(lambda repository: repository.begin(checkpoint, stored))
        )
        self._status.counters.add(replays=int(replay))
        self._status.health.record_comparison(
            is_missing=missing, replayed_until=comparison.until if replay else None
        )
        return Outcome(replay, comparison.known)

    async def _recreate_consumer(self, connection: Connection, caught_up_to: int) -> None:
        """Delete the consumer and create it with its own settings, to begin above a sequence."""
        stream, consumer = self._settings.stream, self._settings.consumer
        info = _checked(await request(connection, f"{API}.CONSUMER.INFO.{stream}.{consumer}"))
        config = {
            name: value
            for name, value in info["config"].items()
            if name not in ("opt_start_seq", "opt_start_time")
        }
        config["deliver_policy"] = "all"
        if caught_up_to:
            config["deliver_policy"] = "by_start_sequence"
            config["opt_start_seq"] = caught_up_to + 1
        # A stop in between would leave no consumer, and its own settings would be lost.
        await asyncio.shield(self._replace(connection, config))

    async def _replace(self, connection: Connection, config: dict[str, Any]) -> None:
        stream, consumer = self._settings.stream, self._settings.consumer
        gone = await request(connection, f"{API}.CONSUMER.DELETE.{stream}.{consumer}")
        if gone.get("error", {}).get("err_code") != _CONSUMER_NOT_FOUND:
            _checked(gone)
        body = {"stream_name": stream, "config": config}
        subject = f"{API}.CONSUMER.DURABLE.CREATE.{stream}.{consumer}"
        _checked(await request(connection, subject, body))

    def _log(self, comparison: Comparison, binding: Binding, *, missing: bool) -> None:
        """Log what was found, with its figures, where it is not the everyday case."""
        position = binding.position
        figures: dict[str, Any] = {
            "stream": self._settings.stream,
            "consumer": self._settings.consumer,
            "committed": comparison.known,
            "caught_up_to": comparison.caught_up_to,
            "ack_floor": position.ack_floor,
            "acked": position.acked,
            "first_sequence": position.first_sequence,
        }
        if comparison.stream_recreated:
            log.warning("stream.recreated", extra=figures)
        if comparison.case is Case.ADOPTED:
            log.warning("database.adopted", extra=figures)
        if not missing:
            return
        replayed = not self._settings.no_replay
        log.warning(
            "database.wiped" if comparison.case is Case.WIPED else "database.behind_stream",
            extra={
                **figures,
                "problem": f"{comparison.case.value}: messages acked on the broker are missing "
                "from the database",
                "replay_from": comparison.caught_up_to + 1 if replayed else None,
            },
        )
        if gone := comparison.gone(position):
            log.warning("replay.incomplete", extra={**figures, "sequences_gone": gone})


async def find_missing(
    connection: Connection,
    stream: str,
    filter_subject: str,
    comparison: Comparison,
    position: ConsumerPosition,
) -> tuple[Comparison, bool]:
    """Return whether the database lacks acked messages, with the comparison that shows it.

    Raises PullLost where the broker does not answer.
    """
    if comparison.is_suspect:
        message = await first_message(connection, stream, comparison.known + 1, filter_subject)
        if comparison.is_missing(None if message is None else int(message["seq"])):
            return comparison, True
    if await _acked_above(connection, stream, filter_subject, comparison, position):
        return comparison.found_behind(position), True
    return comparison, False


async def _acked_above(
    connection: Connection,
    stream: str,
    filter_subject: str,
    comparison: Comparison,
    position: ConsumerPosition,
) -> bool:
    """Return whether messages above `known` were acked, although the ack floor lags behind it.

    Looks only where few are ack pending: after a crash under load many are, for a good reason.
    """
    if position.ack_pending > _MOST_LOOKS or not comparison.needs_a_count(position):
        return False
    sequence = comparison.known
    for _ in range(position.ack_pending + 1):
        message = await first_message(connection, stream, sequence + 1, filter_subject)
        if message is None or int(message["seq"]) > position.delivered:
            return False
        sequence = int(message["seq"])
    return True


async def first_message(
    connection: Connection, stream: str, sequence: int, subjects: str
) -> dict[str, Any] | None:
    """Return the first message at or above a sequence on some subjects, or None.

    Its members are those of the API; raises PullLost where that does not answer.
    """
    body = {"seq": sequence, "next_by_subj": subjects}
    answer = await request(connection, f"{API}.STREAM.MSG.GET.{stream}", body)
    if answer.get("error", {}).get("err_code") == _NO_MESSAGE_FOUND:
        return None
    message: dict[str, Any] = _checked(answer)["message"]
    return message


async def request(
    connection: Connection, subject: str, body: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return what the JetStream API answers; raises PullLost where it does not."""
    try:
        return await connection.ask(subject, body)
    except (nats.errors.Error, TimeoutError, ValueError) as error:
        raise no_response(f"no reply to {subject}", error) from error


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        error = answer["error"]
        raise PullLost(
            f"the broker refused the request: {error.get('description')} ({error.get('err_code')})"
        )
    return answer
