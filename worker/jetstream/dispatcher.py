"""From a message's arrival to its ack: batches to the pool, acks back. Consumer thread only.

When a pool thread is free, everything that has arrived goes to it at once: batches grow with the
load, without a timer.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import nats.errors

from repo.errors import RepositoryError
from worker.codec.timestamps import NANOSECONDS
from worker.errors import PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding, Consumer
from worker.jetstream.outputs import Outputs
from worker.jetstream.outstanding import OutstandingMessages
from worker.jetstream.prerequisite import Prerequisite
from worker.messages import (
    ALWAYS,
    BatchResult,
    Fetch,
    Message,
    Nak,
    Output,
    StreamPosition,
)
from worker.processing.pool import ProjectionPool
from worker.processing.queues import ResultQueue
from worker.settings import Settings
from worker.status.worker_status import ProjectionStatus

# Unless the consumer was heard of this recently, it is looked at before anything is acked: if it
# was recreated meanwhile, a late ack would ack another message.
_FRESH_FOR = 1.0
_SIGNS_IN_ACK_WAIT = 3
_BINDING_CHECK = 0.1
_FETCHES = 2
_NEVER = float("-inf")


class Dispatcher:
    """Dispatches what has arrived, and acks what the pool has committed.

    `attach` and `detach` say over which connection. While it is detached nothing is acked: the
    broker delivers those messages again.

    When the database fails, `failure` is set and nothing is dispatched until `resume`, and then one
    message alone, on trial: it shows whether the database takes the rest.

    The public attributes are for reading. `binding` is the consumer as it was seen last, and `lost`
    why it is gone; while `is_bound`, reply subjects mean the outstanding messages. `last_sign` is
    when the consumer was last heard of (monotonic seconds). `is_dispatching` is whether arriving
    messages go to the pool: bound, and the database takes them. Every message at or below
    `caught_up_to` is in the database; each batch takes that into its checkpoint.
    """

    def __init__(
        self,
        settings: Settings,
        pool: ProjectionPool,
        results: ResultQueue,
        prerequisite: Prerequisite,
        status: ProjectionStatus,
        *,
        outputs: Outputs | None = None,
    ) -> None:
        self.outstanding = OutstandingMessages(settings.max_outstanding)
        self.failed = asyncio.Event()
        self.failure = ""
        self.binding: Binding | None = None
        self.lost: str | None = None
        self.last_sign = _NEVER
        self.is_bound = self.is_dispatching = self.on_trial = False
        self.caught_up_to = 0
        self._settings = settings
        self._pool = pool
        self._results = results
        self._prerequisite = prerequisite
        self._outputs = outputs
        self._fetching: set[asyncio.Task[None]] = set()
        self._bug: BaseException | None = None
        self._status = status
        self._connection: Connection | None = None
        self._consumer: Consumer | None = None
        self._times_bound = 0
        self._looked_at = _NEVER
        self._work = asyncio.Event()
        self._acking = asyncio.Lock()
        self._pool_idle = asyncio.Event()
        self._behind = asyncio.Event()
        self._synced_with = 0
        self._ready_until = 0
        self._must_wait = False

    # --- the connection and the consumer ---

    def attach(self, connection: Connection, consumer: Consumer) -> None:
        """Ack over this connection."""
        self._connection, self._consumer = connection, consumer

    def detach(self) -> None:
        """Ack nothing until the next connection is attached and bound."""
        self.unbind()
        self._connection = self._consumer = None

    def bind(self, binding: Binding, *, recreated: bool) -> int:
        """Ack from now on; what is outstanding only if the consumer was not `recreated`.

        Returns how many outstanding messages will not be acked.
        """
        self._times_bound += 1
        # The database may be another one, which lacks what was projected before.
        self._synced_with = self._ready_until = 0
        self.lost = None
        self.caught_up_to = 0
        self.update(binding)
        self.is_bound = True
        self._work.set()
        return self.outstanding.forget_replies() if recreated else 0

    def update(self, binding: Binding) -> None:
        """Take what the broker has just reported of the bound consumer."""
        self.binding = binding
        self._looked_at = asyncio.get_running_loop().time()
        self._status.health.record_consumer(binding.pending, binding.ack_pending)
        self._status.health.record_pause(binding.paused_until)

    def unbind(self) -> None:
        """Ack nothing until it is known which consumer exists."""
        self.is_bound = False
        self.is_dispatching = False
        self.last_sign = _NEVER
        self._status.health.forget_consumer()

    # --- the pull ---

    @property
    def capacity(self) -> int:
        """How many more messages may be asked for."""
        if self.on_trial:
            return max(0, 1 - len(self.outstanding))
        return self.outstanding.capacity

    def lose(self, problem: str) -> None:
        """End the pull, and ack nothing more: the consumer was found to be gone."""
        self.lost = problem
        self._wake_pull()

    def heard(self, now: float) -> None:
        """Note a sign of the consumer: a message or a status."""
        self.last_sign = now

    def messages_arrived(self) -> None:
        """Dispatch them now: a turn of the loop later, they would be visible later."""
        self._dispatch()

    def pull_answered(self) -> None:
        """Note that the server serves pull requests: only now a missing right would have shown."""
        if not self.on_trial:
            self._status.readiness.ready()

    def _wake_pull(self) -> None:
        if self._connection is not None:
            self._connection.disturbed.set()

    # --- the pool ---

    def resume(self) -> None:
        """Dispatch what arrives: the database takes it."""
        self.failed.clear()
        self.is_dispatching = True
        self._work.set()

    def stop_dispatching(self) -> None:
        """Dispatch no more batches; results of those in the pool are still acked."""
        self.is_dispatching = False

    async def pool_idle(self) -> None:
        """Return when the pool has no batch any more."""
        while self._in_pool():
            self._pool_idle.clear()
            await self._pool_idle.wait()

    def _in_pool(self) -> bool:
        return self.outstanding.batches > len(self._results)

    def wake(self) -> None:
        """Look for results; called in this thread after each of them."""
        self._work.set()
        if not self._in_pool():
            self._pool_idle.set()

    async def run(self) -> None:
        """Ack results and dispatch what has arrived, whenever there is something."""
        while True:
            await self._work.wait()
            self._work.clear()
            if self._bug is not None:
                raise self._bug
            await self.ack_results()
            self._fetch_objects()
            self._dispatch()

    def _dispatch(self) -> None:
        if not self.is_dispatching:
            return
        if self.outstanding.has_returned:
            if self.outstanding.batches:
                return  # what is behind them comes back as well
            self.outstanding.take_back()
            self._must_wait = True
        while (ready := self._ready()) and self.outstanding.batches < self._at_once(ready):
            self._submit(1 if self.on_trial else min(ready, self._settings.batch))
        if ready < min(self.outstanding.waiting, self._settings.batch):
            self._behind.set()

    def _ready(self) -> int:
        """Return how many messages may be written now: the first ones that wait."""
        if self._must_wait or not self._prerequisite.is_fresh:
            return 0
        if self._prerequisite.may_try:
            return self.outstanding.waiting
        too_new = self.outstanding.arrived - self._synced_with
        return max(0, self.outstanding.waiting - too_new)

    def _at_once(self, ready: int) -> int:
        # Few messages are committed sooner one batch after the other than side by side. With many,
        # one batch is queued before it is needed, so that no pool thread waits for this thread.
        few = ready < self._settings.batch // 2
        return 1 if self.on_trial or few else max(2, self._settings.threads)

    def _submit(self, most: int, ready_until: int | None = None) -> None:
        assert self.binding is not None
        position = StreamPosition(self.binding.stream.created_at, self.caught_up_to)
        if ready_until is None:
            ready_until = max(self._ready_until, self._prerequisite.reached)
        self._pool.submit(self.outstanding.next_batch(most, position, ready_until))

    async def keep_ready(self) -> None:
        """Await what has to be so before that which waits is written, beside other batches."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            arrived, newest = self.outstanding.arrived, self.outstanding.newest
            times_bound = self._times_bound
            await self._prerequisite.catch_up(newest)
            if times_bound == self._times_bound:
                self._synced_with = arrived
                self._ready_until = max(self._ready_until, newest)
                self._must_wait = False
            self._work.set()

    # --- acks ---

    async def ack_results(self) -> None:
        """Publish an ack or a nak for each message of every batch that has a result."""
        async with self._acking:
            acked = False
            while self._results and self.is_bound and await self._is_still_bound():
                result = self._results.get()
                acks, naks = self.outstanding.finish(result)
                acked = acked or bool(acks or naks)
                groups = [([one], _nak(delay)) for one, delay in naks]
                await self._publish([(acks, b"+ACK"), *groups])
                self._pause_or_resume(result)
        if acked:
            self._wake_pull()

    def _fetch_objects(self) -> None:
        """Begin to fetch what messages need that are no rows yet, as long as there is room."""
        while len(self._fetching) < _FETCHES and (next_ := self.outstanding.next_incomplete()):
            assert self._outputs is not None
            task = asyncio.create_task(self._fetch(*next_, self._outputs))
            self._fetching.add(task)
            task.add_done_callback(self._fetched)

    def _fetched(self, task: asyncio.Task[None]) -> None:
        """Go on, or have an unexpected error raised by `run`; the loop would only log it."""
        self._fetching.discard(task)
        if not task.cancelled() and (bug := task.exception()) is not None:
            self._bug = bug
        self._work.set()

    async def _fetch(
        self, number: int, message: Message, fetch: Fetch, follows: bool, outputs: Outputs
    ) -> None:
        """Have a message wait again with its output; nak it where the store does not answer.

        One that cannot be nak'd, since its consumer was recreated, is fetched again later.
        """
        found: Output | Nak = Output()
        if fetch.is_needed and not (follows and await self._has_ended(message)):
            found = await outputs.fetch(message, fetch)
        if not isinstance(found, Nak):
            self.outstanding.complete(number, found)
            return
        replies = self.outstanding.give_back(number)
        if not replies:
            loop = asyncio.get_running_loop()
            loop.call_later(found.delay, self._fetch_again, number, fetch)
            return
        self._status.counters.add(naks=len(replies))
        await self._publish([(replies, _nak(found.delay))])
        self._wake_pull()

    async def _has_ended(self, message: Message) -> bool:
        """Return whether the message's row is finished: then its output would change nothing."""
        with contextlib.suppress(RepositoryError):  # the write meets the error as well
            return not await asyncio.wrap_future(self._pool.missing_objects([message]))
        return False

    def _fetch_again(self, number: int, fetch: Fetch) -> None:
        self.outstanding.fetch_again(number, fetch)
        self._work.set()

    def advance(self, caught_up_to: int) -> None:
        """Take into the next checkpoints that everything up to a sequence is in the database."""
        self.caught_up_to = max(self.caught_up_to, caught_up_to)

    def fail(self, problem: str) -> None:
        """Pause: the database took no batch."""
        self.is_dispatching = False
        self.on_trial = True
        self.failure = problem
        self.failed.set()

    def _pause_or_resume(self, result: BatchResult) -> None:
        """Pause when the database failed; end the trial with a batch that it took."""
        if result.failure is not None:
            self.fail(result.failure)
        elif result.left < len(result.decisions):
            self.end_trial()

    def end_trial(self) -> None:
        """Go on as usual: the database takes writes."""
        if self.on_trial:
            self.on_trial = False
            self._status.readiness.ready()
            self._wake_pull()

    async def _is_still_bound(self) -> bool:
        """Return whether replies still mean the same messages; looks where that is in doubt."""
        if self.lost is not None:
            return False
        sign = max(self._looked_at, self.last_sign)
        if asyncio.get_running_loop().time() - sign <= _FRESH_FOR:
            return True
        times_bound = self._times_bound
        try:
            await self.look()
        except PullLost as error:
            if times_bound == self._times_bound:  # else it says nothing of what is bound now
                self.is_bound = False
                self.lose(str(error))
        return self.is_bound

    async def look(self) -> Binding | None:
        """Ask the broker for the bound consumer; raises PullLost where it is gone.

        Returns it as it is now, or the last known state while there is no connection.
        """
        if self._consumer is not None and self.binding is not None:
            times_bound = self._times_bound
            seen = await self._consumer.look(self.binding)
            if times_bound == self._times_bound:
                self.update(seen)
        return self.binding

    async def nak_waiting(self) -> None:
        """Nak everything that has arrived and is not in a batch, for another worker to take.

        What cannot be nak'd goes to the pool all the same: while nothing is bound, the stream may
        be deleted, and the message may exist nowhere else.
        """
        if not self.is_bound:
            self.outstanding.forget_replies()
        replies = self.outstanding.remove_waiting()
        self._status.counters.add(naks=len(replies))
        await self._publish([(replies, b"-NAK")])
        if self.outstanding.waiting:
            await self._prerequisite.be_fresh_or_empty()
        while self.outstanding.waiting:
            self._submit(self._settings.batch, ALWAYS)

    async def extend_ack_wait(self) -> None:
        """Report what is outstanding for long as in progress, so that it is not redelivered."""
        while True:
            if self.binding is None:
                await asyncio.sleep(_BINDING_CHECK)
                continue
            every = self._ack_wait() / _SIGNS_IN_ACK_WAIT
            await asyncio.sleep(every)
            if not self.is_bound or self._connection is None or not self._connection.is_connected:
                continue
            long_ago = asyncio.get_running_loop().time() - every
            replies = list(self.outstanding.arrived_before(long_ago))
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._connection.publish_all([(replies, b"+WPI")])

    def _ack_wait(self) -> float:
        if self.binding is None:
            return self._settings.ack_wait
        config = self.binding.config
        return min(config.backoff or [config.ack_wait or self._settings.ack_wait])

    async def _publish(self, groups: Sequence[tuple[Sequence[str | None], bytes]]) -> None:
        """Ack or nak messages; what cannot be sent is delivered again, which is harmless."""
        sendable = [([one for one in replies if one], verb) for replies, verb in groups]
        sent = 0
        with contextlib.suppress(nats.errors.Error, OSError):
            if self._connection is not None:
                await self._connection.publish_all(sendable)
                sent = sum(len(replies) for replies, _ in sendable)
        every = sum(len(replies) for replies, _ in groups)
        self._status.counters.add(acks_sent=sent, acks_dropped=every - sent)


def _nak(delay: float) -> bytes:
    """Return what is published to have a message redelivered after some seconds."""
    return b'-NAK {"delay": %d}' % int(delay * NANOSECONDS)
