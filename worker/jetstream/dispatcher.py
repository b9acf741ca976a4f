"""Hands what has arrived to the pool, and settles what the pool has decided. Broker thread only.

Only `decide` may be called by other threads.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable

import nats.errors

from worker.codec.timestamps import NANOSECONDS
from worker.decisions import Ack, Decision
from worker.errors import PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding
from worker.jetstream.outstanding import OutstandingMessages
from worker.jetstream.pull import Puller
from worker.messages import Batch, Decisions, Position
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.readiness import Readiness

# Unless the broker has given a sign this recently, the consumer is looked at before anything is
# settled: a late ack would settle another message of one that was made anew meanwhile.
_FRESH_FOR = 1.0
_SIGNS_IN_ACK_WAIT = 3
_BINDING_CHECK = 0.1


class Dispatcher:
    """Everything between a message's arrival and its settlement.

    `catch_up` returns when the manifests are as new as the messages that have arrived.
    `connection`, `puller` and `look`, which asks the broker for the consumer that is bound, are the
    present session's, or None; what is settled while there is no connection is dropped, since the
    broker delivers it again.

    After a fault of the database, told by `fault` and `problem`, nothing is handed on until
    `resume`, and then one message alone, on trial: it is known after that whether the database
    takes the rest.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        readiness: Readiness,
        submit: Callable[[Batch], None],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.outstanding = OutstandingMessages(settings.max_outstanding)
        self.work = asyncio.Event()
        self.connection: Connection | None = None
        self.puller: Puller | None = None
        self.look: Callable[[], Awaitable[Binding]] | None = None
        self.binding: Binding | None = None
        self.on_trial = False
        self.fault = asyncio.Event()
        self.problem = ""
        self._settings = settings
        self._counters = counters
        self._readiness = readiness
        self._submit = submit
        self._catch_up = catch_up
        self._decided: deque[Decisions] = deque()
        self._settling = asyncio.Lock()
        self._bound = False
        self._times_bound = 0
        self._dispatching = False
        self._behind = asyncio.Event()
        self._caught_up_with = 0
        self._looked_at = 0.0
        self._pool_is_idle = asyncio.Event()

    # --- the binding ---

    def bind(self, binding: Binding) -> int:
        """Settle from now on; what is in hand only if the consumer is the same as before.

        Returns how many messages in hand will not be settled.
        """
        anew = self.binding is not None and not binding.same_messages(self.binding)
        self._times_bound += 1
        self.note(binding)
        self._bound = True
        self.work.set()
        return self.outstanding.forget_replies() if anew else 0

    def note(self, binding: Binding) -> None:
        """Take what the broker has just told of the consumer that is bound."""
        self.binding = binding
        self._looked_at = asyncio.get_running_loop().time()

    def unbind(self) -> None:
        """Hold all decisions back until it is known which consumer is there."""
        self._bound = False
        self._dispatching = False

    def resume(self) -> None:
        """Hand on what arrives: database and broker are in step."""
        self.fault.clear()
        self._dispatching = True
        self.work.set()

    async def pool_idle(self) -> None:
        """Return when the pool has no batch any more."""
        while self._in_pool():
            self._pool_is_idle.clear()
            await self._pool_is_idle.wait()

    def _in_pool(self) -> bool:
        return self.outstanding.batches > len(self._decided)

    # --- decisions ---

    def decide(self, decisions: Decisions) -> None:
        """Take the decisions of a batch; `attend` has to be woken in the broker thread then."""
        self._decided.append(decisions)

    def wake(self) -> None:
        """Wake `attend`, since something was decided."""
        self.work.set()
        if not self._in_pool():
            self._pool_is_idle.set()

    async def attend(self) -> None:
        """Settle what was decided and hand on what arrived, whenever there is something."""
        while True:
            await self.work.wait()
            self.work.clear()
            await self.settle_decided()
            self._dispatch()

    async def settle_decided(self) -> None:
        """Publish an ack or a nak for each message of every batch that was decided."""
        async with self._settling:
            published = 0
            while self._decided and self._bound and await self._is_still_bound():
                decisions = self._decided.popleft()
                settled = self.outstanding.settle(decisions)
                published += len(settled)
                await self._publish_all((reply, _verb(decision)) for reply, decision in settled)
                self._weigh(decisions)
        if published and self.puller is not None:
            self.puller.changed.set()

    def _weigh(self, decisions: Decisions) -> None:
        """Pause at a fault of the database, and end the trial with a batch that it took."""
        if decisions.fault:
            self._dispatching = False
            self.on_trial = True
            self.problem = decisions.fault
            self.fault.set()
        elif self.on_trial:
            self.on_trial = False
            self._readiness.ready()

    async def _is_still_bound(self) -> bool:
        """Tell whether replies still mean the same messages; looks where that is in doubt."""
        puller = self.puller
        if puller is not None and puller.is_lost:
            return False
        sign = max(self._looked_at, puller.last_sign if puller is not None else 0.0)
        if asyncio.get_running_loop().time() - sign <= _FRESH_FOR or self.look is None:
            return True
        times_bound = self._times_bound
        try:
            seen = await self.look()
        except PullLost as error:
            if times_bound == self._times_bound:  # else it says nothing of what is bound now
                self._bound = False
                if self.puller is not None:
                    self.puller.lose(str(error))
        else:
            if times_bound == self._times_bound:
                self.note(seen)
        return self._bound

    @property
    def is_bound(self) -> bool:
        """Tell whether replies are known to mean the messages in hand."""
        return self._bound

    # --- messages ---

    @property
    def room(self) -> int:
        """How many more messages may be asked for."""
        if self.on_trial:
            return max(0, 1 - len(self.outstanding))
        return self.outstanding.room

    def stop_dispatching(self) -> None:
        """Begin no more batches; those that have begun are still settled."""
        self._dispatching = False

    async def give_back_waiting(self) -> None:
        """Nak everything that has arrived and not begun, for another worker to take at once.

        What can be given back to nobody goes to the pool all the same: while nothing is bound, the
        stream may be gone, and the message be here and nowhere else.
        """
        if not self._bound:
            self.outstanding.forget_replies()
        replies = self.outstanding.give_up_waiting()
        self._counters.add(naks=len(replies))
        await self._publish_all((reply, b"-NAK") for reply in replies)
        while self.outstanding.waiting:
            self._begin(self._settings.batch)

    async def keep_in_hand(self) -> None:
        """Tell the broker of all that is in hand for long that it is, so that it stays there."""
        while True:
            if self.binding is None:
                await asyncio.sleep(_BINDING_CHECK)
                continue
            every = self._ack_wait() / _SIGNS_IN_ACK_WAIT
            await asyncio.sleep(every)
            if not self._bound or self.connection is None or not self.connection.is_connected:
                continue
            long_ago = asyncio.get_running_loop().time() - every
            signs = [(reply, b"+WPI") for reply in self.outstanding.arrived_before(long_ago)]
            with contextlib.suppress(nats.errors.Error, OSError):
                await self.connection.publish_all(signs)

    def _ack_wait(self) -> float:
        if self.binding is None:
            return self._settings.ack_wait
        config = self.binding.config
        return min(config.backoff or [config.ack_wait or self._settings.ack_wait])

    async def keep_caught_up(self) -> None:
        """Have the manifests catch up with what arrives, while other batches are written."""
        while True:
            await self._behind.wait()
            self._behind.clear()
            arrived = self.outstanding.arrived
            if arrived > self._caught_up_with:
                await self._catch_up()
                self._caught_up_with = arrived
                self.work.set()

    def _dispatch(self) -> None:
        """Give all that may be projected to the threads that are free: batches grow by load."""
        if not self._dispatching:
            return
        while (ready := self._ready()) and self.outstanding.batches < self._at_once(ready):
            self._begin(1 if self.on_trial else min(ready, self._settings.batch))
        if ready < min(self.outstanding.waiting, self._settings.batch):
            self._behind.set()

    def _ready(self) -> int:
        """Return how many messages the manifests have caught up with: the first ones that wait."""
        too_new = self.outstanding.arrived - self._caught_up_with
        return max(0, self.outstanding.waiting - too_new)

    def _at_once(self, ready: int) -> int:
        # Few messages are there sooner one batch after the other than each in a batch of its own.
        # With many, one is in the pool before it is needed, so that no thread waits for this one.
        few = ready < self._settings.batch // 2
        return 1 if self.on_trial or few else max(2, self._settings.threads)

    def _begin(self, most: int) -> None:
        assert self.binding is not None
        footing = self.binding.footing
        position = Position(footing.stream_created_at, footing.floor)
        self._submit(self.outstanding.begin(most, position))

    async def _publish_all(self, acks: Iterable[tuple[str, bytes]]) -> None:
        """Settle messages; what cannot be sent is delivered again, which is harmless."""
        batch = list(acks)
        try:
            if self.connection is None:
                raise nats.errors.ConnectionClosedError
            await self.connection.publish_all(batch)
            self._counters.add(settled=len(batch))
        except (nats.errors.Error, OSError):
            self._counters.add(acks_dropped=len(batch))


def _verb(decision: Decision) -> bytes:
    if isinstance(decision, Ack):
        return b"+ACK"
    return b'-NAK {"delay": %d}' % int(decision.delay * NANOSECONDS)
