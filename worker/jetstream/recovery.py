"""Keeps the database complete: reads the stream again from the checkpoint on, and moves it forward.

The consumer's position lives on the broker, the rows live in the database; after a wipe, a restore
or a failover they differ, and another program may have acked. The checkpoint says how far the
database is complete. At each connect, and whenever others may have received messages, the stream
is read from there. Only what this worker received itself moves the checkpoint without that.
Consumer thread only.
"""

import asyncio
import logging
import time
from typing import Any

from repo.batch_writer import WriteResult
from repo.checkpoint import Checkpoint, Lost, Recalled
from repo.errors import TransientError, UnavailableError
from worker.codec.timestamps import format_instant, parse_stored, present_second
from worker.errors import ConfigurationError, PullLost, describe
from worker.jetstream.catch_up import CatchUpReader
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding, Consumer
from worker.jetstream.deliveries import Deliveries
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.link import rest_after
from worker.jetstream.outputs import Outputs, completed
from worker.jetstream.prerequisite import Prerequisite
from worker.jetstream.presence import Peer, Presence, elsewhere
from worker.jetstream.stream import has_gone_back
from worker.logs import Repeats
from worker.messages import Batch, Message, StreamPosition
from worker.processing.pool import ProjectionPool
from worker.projections.base import Projection
from worker.settings import Settings
from worker.status.health import CatchUp
from worker.status.worker_status import ProjectionStatus

log = logging.getLogger(__name__)

# A predecessor's last pull requests are served for a second after it is gone.
_PREDECESSOR = 5.0
_WATCH_FOR = 3.0
_WATCH_EVERY = 0.1
_QUIET = 0.7
_GLANCE = 0.2
# A worker whose database was just replaced announces the new place within one look.
_FOREIGN_AFTER = 3.0
_SHARED_FOR = 60.0
_REPEAT_ERROR_AFTER = 60.0
_PROGRESS_EVERY = 10.0
_RETRY_AFTER = 3.0


class Recovery:
    """Recovery of one consumer. `is_complete` is whether nothing is left to catch up with."""

    def __init__(
        self,
        *,
        settings: Settings,
        projection: Projection[Any, Any],
        pool: ProjectionPool,
        prerequisite: Prerequisite,
        outputs: Outputs | None,
        dispatcher: Dispatcher,
        presence: Presence,
        status: ProjectionStatus,
    ) -> None:
        self.deliveries = Deliveries()
        self.is_complete = False
        self._settings = settings
        self._filter = projection.read_filter
        self._pool = pool
        self._prerequisite = prerequisite
        self._outputs = outputs
        self._dispatcher = dispatcher
        self._presence = presence
        self._status = status
        self._connection: Connection | None = None
        self._checkpoint = Checkpoint("")
        self._place = ""
        self._began = False
        self._bound_at = self._compare_again_at = 0.0
        self._reached = 0
        self._knows_ahead = False
        self._shared_until = 0.0
        self._had_peers = False
        self._wanted: Binding | None = None
        self._wake = asyncio.Event()
        self._errors = Repeats(_REPEAT_ERROR_AFTER)

    @property
    def caught_up_to(self) -> int:
        """The sequence up to which everything is in the database."""
        return self._checkpoint.caught_up_to

    @property
    def caught_up_to_instant(self) -> int | None:
        """When the message at `caught_up_to` was stored; None where another one is known."""
        checkpoint = self._checkpoint
        if checkpoint.caught_up_to != checkpoint.last_sequence or not checkpoint.last_stored_at:
            return None
        return parse_stored(checkpoint.last_stored_at)

    def proves(self, binding: Binding) -> bool:
        """Return whether the consumer's position says how far this database is."""
        floor = binding.ack_floor.consumer_seq
        return self.is_complete and not self._shared_until and self.deliveries.are_ours(floor)

    # --- at each bind ---

    async def begin(self, connection: Connection, consumer: Consumer, binding: Binding) -> None:
        """Accept writes to the database, and find out from where the stream is to be read again.

        Raises a RepositoryError where the database cannot be written to, PullLost where the broker
        does not answer, and ConfigurationError for an empty database beside a running worker.
        """
        self._connection, self.is_complete = connection, False
        self._bound_at = time.monotonic()
        self.deliveries.reset(binding.delivered.consumer_seq)
        recalled = await self._ask(lambda repository: repository.recall())
        if recalled.stored is None and not self._began:
            await self._check_alone(consumer, binding, recalled.place)
        self._place = recalled.place
        await self._presence.announce(recalled.place)
        stored = recalled.stored
        went_back = stored is not None and await self._contradicts(stored.checkpoint, binding)
        self._log_stream(binding, recalled, went_back=went_back)
        created_at = binding.stream.created_at
        self._checkpoint = await self._ask(
            lambda repository: repository.begin(
                recalled, created_at, present_second(), start_over=went_back
            )
        )
        self._began = True
        await self._note_lost_before(binding, recalled)
        self._request(binding)

    async def _check_alone(self, consumer: Consumer, binding: Binding, place: str) -> None:
        """Raise ConfigurationError if others already project this consumer into another database.

        An empty database that joins them is a mistake: it would take their messages.
        """
        if binding.is_new:  # nobody can have received anything yet
            return
        await self._presence.answered()
        began = quiet_since = time.monotonic()
        enough = _GLANCE
        while True:
            now, peers = time.monotonic(), self._presence.peers()
            if foreign := elsewhere(peers, place):
                raise ConfigurationError(self._mistake(f"a worker on {foreign[0]}"))
            if peers:
                return
            # One look is not enough: a program that fetches in a loop has no pull request between
            # two of them.
            if binding.pull_requests:
                quiet_since, enough = now, _QUIET
            elif now - quiet_since >= enough:
                return
            if now - began > _WATCH_FOR:
                # Without the permission to announce, only the row shows the worker beside this one.
                recalled = await self._ask(lambda repository: repository.recall())
                if recalled.stored is not None:
                    return
                raise ConfigurationError(self._mistake("another program (its pull requests wait)"))
            # A worker on this database may have begun at the same moment.
            await self._presence.ask()
            await asyncio.sleep(_WATCH_EVERY)
            binding = await consumer.look(binding)

    def _mistake(self, who: str) -> str:
        settings = self._settings
        return (
            f"this database has no checkpoint of consumer {settings.consumer}, and {who} already "
            "receives its messages; stop that one first, or give this database a consumer of its "
            "own with --consumer NAME"
        )

    async def _contradicts(self, checkpoint: Checkpoint, binding: Binding) -> bool:
        """Return whether the stream went back since a checkpoint was written."""
        assert self._connection is not None
        place = self._connection, self._settings.stream
        began = time.monotonic()
        went_back = await has_gone_back(*place, checkpoint, binding.stream)
        now = time.monotonic()
        self._compare_again_at = now + rest_after(now - began)
        return went_back

    def _log_stream(self, binding: Binding, recalled: Recalled, *, went_back: bool) -> None:
        stored, stream = recalled.stored, binding.stream
        figures = {
            "stream": self._settings.stream,
            "consumer": self._settings.consumer,
            "last_sequence": stream.last_sequence,
            "delivered": binding.delivered.stream_seq,
            "caught_up_to": stored.checkpoint.caught_up_to if stored else 0,
        }
        if stored is not None and stored.checkpoint.stream_created_at != stream.created_at:
            log.warning("stream.recreated", extra=figures)
        elif went_back or (binding.is_ahead and not self._knows_ahead):
            log.warning("stream.rewound", extra=figures)
            self._dispatcher.outstanding.forget_replies()
        self._knows_ahead = binding.is_ahead

    # --- at each look ---

    async def look(self, binding: Binding) -> None:
        """Take what the broker reports of the consumer now.

        Raises PullLost where the stream went back, and RepositoryError.
        """
        await self._presence.ask()
        self._presence.show(*self._status.announcement())
        is_due = time.monotonic() >= self._compare_again_at
        if is_due and await self._contradicts(self._checkpoint, binding):
            raise PullLost("the stream went back to an older state")
        is_ours = self._follow_deliveries(binding)
        await self._note_lost_while_running(binding)
        is_shared = self._is_shared()
        if binding.is_ahead or self._knows_ahead or is_shared or not is_ours:
            self._knows_ahead = binding.is_ahead
            self._request(binding)
        elif self.is_complete:
            await self._advance(binding)

    def _follow_deliveries(self, binding: Binding) -> bool:
        """Return whether acks of this consumer prove that a message is in this database."""
        deliveries, delivered = self.deliveries, binding.delivered.consumer_seq
        deliveries.looked(delivered, binding.ack_floor.consumer_seq)
        had_peers, peers = self._had_peers, self._presence.peers()
        foreign = elsewhere(peers, self._place)
        self._had_peers = bool(peers) and not foreign
        if self._had_peers or (had_peers and not foreign):
            # What went to them is in this database as well.
            deliveries.account_for(delivered)
            return True
        lasting = self._presence.peers(present_for=_FOREIGN_AFTER)
        if others := elsewhere(lasting, self._place):
            self._note_shared(others)
        if deliveries.foreign and not foreign:
            self._status.counters.add(foreign_deliveries=deliveries.foreign)
            if time.monotonic() - self._bound_at > _PREDECESSOR:
                self._note_shared([])
        return not foreign and deliveries.are_ours(binding.ack_floor.consumer_seq)

    def _note_shared(self, others: list[Peer]) -> None:
        self._shared_until = time.monotonic() + _SHARED_FOR
        who = "; ".join(f"a worker on {other}" for other in others[:3]) or "an unknown program"
        problem = (
            f"{who} also receives messages of consumer {self._settings.consumer}, for another "
            "database; give one of them a consumer of its own with --consumer NAME"
        )
        self._status.health.record_shared(problem)
        if self._errors.due(problem):
            extra = {"consumer": self._settings.consumer, "error": problem}
            log.error("consumer.shared", extra=extra)

    def _is_shared(self) -> bool:
        if self._shared_until and time.monotonic() > self._shared_until:
            self._shared_until = 0.0
            self._status.health.record_shared(None)
            log.info("consumer.not_shared", extra={"consumer": self._settings.consumer})
        return self._shared_until > 0.0

    async def _advance(self, binding: Binding) -> None:
        """Move the checkpoint forward: this worker received, committed and acked all of it."""
        # Where the number of deliveries is limited, the ack floor passes what nobody received.
        if (binding.config.max_deliver or -1) > 0:
            return
        self._dispatcher.advance(min(binding.ack_floor.stream_seq, binding.handed_out))
        if binding.has_work or len(self._dispatcher.outstanding) > 0:
            return
        stream = binding.stream
        if stream.last_sequence > self._checkpoint.caught_up_to:
            # Nothing was pending, so whatever the stream held when it was asked is in the database.
            await self._write(
                Checkpoint(
                    stream.created_at,
                    stream.last_sequence,
                    stream.last_sequence if stream.last_stored_at else 0,
                    stream.last_stored_at,
                    present_second(),
                )
            )

    async def _write(self, reached: Checkpoint, lost: Lost | None = None) -> None:
        await self._ask(lambda repository: repository.advance(reached, lost))
        self._know(reached)

    def _know(self, reached: Checkpoint) -> None:
        """Take what was just written."""
        known = self._checkpoint
        if reached.last_sequence <= known.last_sequence:
            caught_up_to = max(known.caught_up_to, reached.caught_up_to)
            reached = known._replace(caught_up_to=caught_up_to)
        self._checkpoint = reached
        self._dispatcher.advance(reached.caught_up_to)

    async def _ask(self, question: Any) -> Any:
        return await asyncio.wrap_future(self._pool.ask(question))

    # --- what the stream lost ---

    async def _note_lost_before(self, binding: Binding, recalled: Recalled) -> None:
        """Report what the stream lost since the checkpoint was written."""
        stream, stored = binding.stream, recalled.stored
        first, last = self._checkpoint.caught_up_to + 1, stream.first_sequence - 1
        if not stream.keeps_acked:
            log.warning(
                "catch_up.impossible",
                extra={
                    "stream": self._settings.stream,
                    "error": "the stream forgets acked messages, so rows that the database loses "
                    "cannot be read again",
                },
            )
            first = max(first, self._checkpoint.last_sequence + 1)
            last = binding.ack_floor.stream_seq
        is_new = stored is None and binding.delivered.consumer_seq == 0
        starts_over = stored is not None and not self._checkpoint.last_sequence
        if last >= first and not is_new and not starts_over:
            await self._note_lost(binding, first, last)
        self._reached = max(last, self._checkpoint.caught_up_to)

    async def _note_lost_while_running(self, binding: Binding) -> None:
        """Report what the stream lost since the last look, before it was read."""
        stream = binding.stream
        if not stream.keeps_acked:
            return
        last, lowest = stream.first_sequence - 1, self.deliveries.lowest_new
        self.deliveries.lowest_new = None
        # What is above a lost range may have arrived since the last look, so the highest sequence
        # proves nothing. What went to peers did not arrive here.
        if self._had_peers or lowest is None or lowest <= last:
            self._reached = max(self._reached, self.deliveries.highest)
        first = 1 + (self._reached if self.is_complete else self._checkpoint.caught_up_to)
        if last >= first:
            await self._note_lost(binding, first, last)
        self._reached = max(self._reached, last, binding.handed_out, self.deliveries.highest)
        if not binding.has_work:  # nothing of the projection is in the rest
            self._reached = max(self._reached, stream.last_sequence)

    async def _note_lost(self, binding: Binding, first: int, last: int) -> None:
        """Log, count and keep the range; it is not reported again, since it counts as read."""
        lost = Lost(last - first + 1, last, present_second())
        log.warning(
            "messages.lost_to_limits",
            extra={
                "stream": self._settings.stream,
                "first": first,
                "last": last,
                "sequences": lost.sequences,
                "error": "the stream no longer holds these sequences, and they were not read; how "
                "many of them were messages of this projection is unknown",
            },
        )
        self._status.counters.add(lost_sequences=lost.sequences)
        is_next = first <= self._checkpoint.caught_up_to + 1
        reached = Checkpoint(
            binding.stream.created_at, last if is_next else 0, committed_at=lost.at or ""
        )
        await self._write(reached, lost)

    # --- the catch-up ---

    def _request(self, binding: Binding) -> None:
        """Have everything read again that the consumer has handed out by now."""
        if self.is_complete or self._wanted is None:
            # Until it is known that nothing is missing, the worker is not idle.
            self._status.health.record_catch_up(CatchUp(time.monotonic()))
        self.is_complete = False
        self._wanted = binding
        self._wake.set()

    async def run(self) -> None:
        """Catch up whenever that is wanted, beside the live messages, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            binding, self._wanted = self._wanted, None
            if binding is None:
                continue
            began = time.monotonic()
            try:
                await self._catch_up(binding)
            except (TransientError, UnavailableError) as error:
                self._status.health.record_catch_up(None)
                self._dispatcher.fail(describe(error))
                return
            except PullLost as error:
                self._log_failed(error, began)
                await asyncio.sleep(_RETRY_AFTER)
                self._request(self._wanted or binding)

    def _log_failed(self, error: PullLost, began: float) -> None:
        assert self._connection is not None
        problem = self._connection.explained(error, began)
        level = logging.WARNING if self._errors.due("catch-up") else logging.DEBUG
        log.log(level, "catch_up.failed", extra={"error": problem})

    async def _catch_up(self, binding: Binding) -> None:
        # What is handed out later is followed by its number.
        self.deliveries.account_for(binding.delivered.consumer_seq)
        first, last = self._checkpoint.caught_up_to + 1, binding.passed
        if first <= last and binding.stream.keeps_acked:
            await self._read(first, last, binding.pending)
        if self._checkpoint.caught_up_to < last:
            created_at = binding.stream.created_at
            await self._write(Checkpoint(created_at, last, committed_at=present_second()))
        self.is_complete = self._wanted is None
        self._status.health.record_catch_up(None, is_complete=self.is_complete)

    async def _read(self, first: int, last: int, later: int) -> None:
        """Read a range; `later` is how many messages are known to come after it."""
        settings, connection = self._settings, self._connection
        created_at = self._checkpoint.stream_created_at
        assert connection is not None
        progress = CatchUp(began=time.monotonic())
        logged = progress.began
        reader = CatchUpReader(connection, settings.stream, self._filter, settings.batch)
        async with reader:
            async for page in reader.pages(first, last):
                if progress.messages == 0:
                    progress = progress.expecting(max(len(page), reader.expected - later))
                    log.info(
                        "catch_up.started",
                        extra={"first": first, "last": last, "messages": progress.expected},
                    )
                await self._prerequisite.catch_up(page[-1].stored_at)
                async for messages in completed(page, self._outputs, self._pool):
                    written = await self._write_again(messages, created_at)
                    progress = progress.after(len(messages), written.inserted)
                    self._status.health.record_catch_up(progress)
                    self._status.health.session_progressed()
                if time.monotonic() - logged > _PROGRESS_EVERY:
                    logged = time.monotonic()
                    log.info("catch_up.progress", extra=progress.figures())
        if progress.messages:
            progress = progress.expecting(progress.messages)
            log.info("catch_up.finished", extra=progress.figures())

    async def _write_again(self, messages: list[Message], created_at: str) -> WriteResult:
        """Write messages that were read again, and move the checkpoint to the last of them."""
        last = messages[-1]
        reached = last.stream_sequence
        batch = Batch(0, tuple(messages), StreamPosition(created_at, reached))
        written = await asyncio.wrap_future(self._pool.catch_up(batch))
        self._know(Checkpoint(created_at, reached, reached, format_instant(last.stored_at)))
        return written
