"""Hands what has arrived to the pool, and settles what the pool has decided. Broker thread only.

Only `decide` may be called by other threads.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

import nats.errors

from worker.connection import Connection
from worker.decisions import Ack, Decision
from worker.in_flight import InFlight
from worker.instants import NANOSECONDS
from worker.messages import Batch, Decisions
from worker.puller import Puller
from worker.settings import Settings
from worker.totals import Totals

_YIELD_AFTER = 500


class Handover:
    """Everything between a message's arrival and its settlement.

    `catch_up` returns when the manifests are as new as the messages that have arrived.
    `connection` and `puller` are the present ones, or None; what is settled while there is no
    connection is dropped, since the broker delivers it again.
    """

    def __init__(
        self,
        settings: Settings,
        totals: Totals,
        submit: Callable[[Batch], None],
        catch_up: Callable[[], Awaitable[None]],
    ) -> None:
        self.in_flight = InFlight(settings.in_flight)
        self.work = asyncio.Event()
        self.connection: Connection | None = None
        self.puller: Puller | None = None
        self._settings = settings
        self._totals = totals
        self._submit = submit
        self._catch_up = catch_up
        self._decided: deque[Decisions] = deque()
        self._settling = asyncio.Lock()
        self._bound = False
        self._dispatching = True
        self._paused_until = 0.0

    def decide(self, decisions: Decisions) -> None:
        """Take the decisions of a batch; `work` has to be set in the broker thread afterwards."""
        self._decided.append(decisions)

    async def attend(self) -> None:
        """Settle what was decided and hand on what arrived, whenever there is something."""
        while True:
            await self.work.wait()
            self.work.clear()
            await self.settle_decided()
            await self._dispatch()

    def stop_dispatching(self) -> None:
        """Begin no more batches; those that have begun are still settled."""
        self._dispatching = False

    async def give_back_waiting(self) -> None:
        """Nak everything that has arrived and not begun, for another worker to take at once."""
        for reply in self.in_flight.give_up_waiting():
            await self._publish(reply, b"-NAK")
            self._totals.add(given_back=1)

    def bind(self, *, anew: bool) -> int:
        """Settle from now on; what is in hand only if the durable is the same as before.

        Returns how many messages in hand will not be settled.
        """
        self._bound = True
        self.work.set()
        return self.in_flight.forget_replies() if anew else 0

    def unbind(self) -> None:
        """Hold all decisions back until it is known which durable is there."""
        self._bound = False

    async def settle_decided(self) -> None:
        """Publish an ack or a nak for each message of every batch that was decided."""
        async with self._settling:
            published = 0
            while self._decided and self._bound:
                decisions = self._decided.popleft()
                for reply, decision in self.in_flight.settle(decisions):
                    await self._publish(reply, _verb(decision))
                    published += 1
                    # A publish that only fills a buffer never yields to the loop by itself.
                    if published % _YIELD_AFTER == 0:
                        await asyncio.sleep(0)
                if decisions.pause:
                    self._pause(decisions.pause)
        if published and self.puller is not None:
            self.puller.changed.set()

    async def _dispatch(self) -> None:
        """Give all that has arrived to the threads that are free, so that batches grow by load."""
        while self._may_begin():
            arrived = self.in_flight.waiting
            await self._catch_up()
            if self._may_begin():
                self._submit(self.in_flight.begin(min(arrived, self._settings.batch)))

    def _may_begin(self) -> bool:
        return (
            self._dispatching
            and self.in_flight.waiting > 0
            and self.in_flight.batches < self._settings.threads
            and asyncio.get_running_loop().time() >= self._paused_until
        )

    def _pause(self, seconds: float) -> None:
        loop = asyncio.get_running_loop()
        self._paused_until = max(self._paused_until, loop.time() + seconds)
        loop.call_later(seconds, self.work.set)
        if self.puller is not None:
            self.puller.pause(seconds)

    async def _publish(self, reply: str, verb: bytes) -> None:
        """Settle one message; what cannot be sent is delivered again, which is harmless."""
        try:
            if self.connection is None:
                raise nats.errors.ConnectionClosedError
            await self.connection.publish(reply, verb)
            self._totals.add(settled=1)
        except (nats.errors.Error, OSError):
            self._totals.add(settlements_dropped=1)


def _verb(decision: Decision) -> bytes:
    if isinstance(decision, Ack):
        return b"+ACK"
    return b'-NAK {"delay": %d}' % int(decision.delay * NANOSECONDS)
