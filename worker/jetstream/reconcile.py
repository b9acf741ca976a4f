"""Before every pull: do the database and the broker belong together? Broker thread only.

Where starts are missing from the database that the consumer would not deliver again, the consumer
is recreated, and history is replayed. That is safe at any time, since every write is idempotent.
"""

import asyncio
import logging
from typing import Any, NamedTuple

import nats.errors

from worker.codec.timestamps import present_second
from worker.errors import PullLost, unanswered
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import FILTER, Binding
from worker.jetstream.permissions import API
from worker.jetstream.reconciliation import Case, Comparison, Footing, Records, compare
from worker.settings import Settings
from worker.status.health import Progress

log = logging.getLogger(__name__)

_MOST_LOOKS = 500
_NO_MESSAGE_FOUND = 10037
_CONSUMER_NOT_FOUND = 10014


class Outcome(NamedTuple):
    """Whether the consumer was made anew, and up to which sequence the database is known to go."""

    is_recreated: bool
    committed: int


class InStep:
    """Compares database and broker, and makes the consumer anew where that is needed."""

    def __init__(self, settings: Settings, records: Records, progress: Progress) -> None:
        self._settings = settings
        self._records = records
        self._progress = progress

    async def come_in_step(self, connection: Connection, binding: Binding) -> Outcome:
        """Compare, replay where that is needed, and put the checkpoint into the file.

        Afterwards batches may be written there. Raises DatabaseUnavailable where it cannot
        be written to, and PullLost where the broker does not answer.
        """
        recalled = await asyncio.wrap_future(self._records.recall())
        footing = binding.footing
        comparison, missing = await look_for_missing(
            connection, self._settings.stream, compare(recalled, footing), footing
        )
        self._tell(comparison, binding, missing=missing)
        replay = missing and not self._settings.no_replay
        if replay:
            await self._recreate_consumer(connection, comparison.caught_up_to)
        checkpoint = comparison.checkpoint(footing, present_second(), missing=missing)
        await asyncio.wrap_future(self._records.begin(checkpoint, recalled))
        self._progress.compared(
            is_missing=missing, replayed_until=comparison.until if replay else None
        )
        return Outcome(replay, comparison.known)

    async def _recreate_consumer(self, connection: Connection, caught_up_to: int) -> None:
        """Delete the consumer and create it with its own settings, to begin above the mark."""
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
        # A stop in between would leave no consumer, and its settings to nobody.
        await asyncio.shield(self._replace(connection, config))

    async def _replace(self, connection: Connection, config: dict[str, Any]) -> None:
        stream, consumer = self._settings.stream, self._settings.consumer
        gone = await request(connection, f"{API}.CONSUMER.DELETE.{stream}.{consumer}")
        if gone.get("error", {}).get("err_code") != _CONSUMER_NOT_FOUND:
            _checked(gone)
        body = {"stream_name": stream, "config": config}
        subject = f"{API}.CONSUMER.DURABLE.CREATE.{stream}.{consumer}"
        _checked(await request(connection, subject, body))

    def _tell(self, comparison: Comparison, binding: Binding, *, missing: bool) -> None:
        """Say what was found, with its figures, where it is no everyday matter."""
        footing = binding.footing
        figures: dict[str, Any] = {
            "stream": self._settings.stream,
            "consumer": self._settings.consumer,
            "committed": comparison.known,
            "caught_up_to": comparison.caught_up_to,
            "ack_floor": footing.floor,
            "settled": footing.settled,
            "first_sequence": footing.first_sequence,
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
                "problem": f"{comparison.case.value}: starts that the broker counts as settled "
                "are not in it",
                "replay_from": comparison.caught_up_to + 1 if replayed else None,
            },
        )
        if gone := comparison.gone(footing):
            log.warning("replay.incomplete", extra={**figures, "sequences_gone": gone})


async def look_for_missing(
    connection: Connection, stream: str, comparison: Comparison, footing: Footing
) -> tuple[Comparison, bool]:
    """Tell whether the database lacks starts that were settled, with the comparison that says so.

    Raises PullLost where the broker does not answer.
    """
    if comparison.is_suspect:
        first = await _next_start(connection, stream, comparison.known + 1)
        if comparison.is_missing(first):
            return comparison, True
    if await _settled_above(connection, stream, comparison, footing):
        return comparison.found_older(footing), True
    return comparison, False


async def _settled_above(
    connection: Connection, stream: str, comparison: Comparison, footing: Footing
) -> bool:
    """Tell whether starts above what is known were settled, though the floor lags behind it.

    Looks only where few are ack_pending: after a crash under load many are, for a good reason.
    """
    if footing.ack_pending > _MOST_LOOKS or not comparison.needs_a_count(footing):
        return False
    sequence: int | None = comparison.known
    for _ in range(footing.ack_pending + 1):
        sequence = await _next_start(connection, stream, (sequence or 0) + 1)
        if sequence is None or sequence > footing.delivered:
            return False
    return True


async def _next_start(connection: Connection, stream: str, sequence: int) -> int | None:
    """Return the sequence of the first start at or above one; None if there is none."""
    message = await first_message(connection, stream, sequence, FILTER)
    return None if message is None else int(message["seq"])


async def first_message(
    connection: Connection, stream: str, sequence: int, subjects: str
) -> dict[str, Any] | None:
    """Return the first message at or above a sequence on some subjects; None if there is none.

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
        raise unanswered(f"{subject} is not answered", error) from error


def _checked(answer: dict[str, Any]) -> dict[str, Any]:
    if "error" in answer:
        error = answer["error"]
        raise PullLost(f"the broker refuses: {error.get('description')} ({error.get('err_code')})")
    return answer
