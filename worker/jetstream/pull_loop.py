"""Binding and pulling, over and over, as long as one connection lasts. Broker thread only."""

import asyncio
import logging
import time

from nats.js import JetStreamContext

from worker.errors import (
    BrokerError,
    ConnectionLost,
    DatabaseBroken,
    DatabaseUnavailable,
    NoResponse,
    PullLost,
    describe,
)
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import (
    Binding,
    bind,
    differences,
    look,
    tell_differences,
    wanted_consumer,
)
from worker.jetstream.context import Shared
from worker.jetstream.pull import Puller
from worker.jetstream.tasks import FIRST_BACKOFF, cancel

log = logging.getLogger(__name__)

_LOOK_AFTER = 2.0
_DEAF_AFTER = 3
_BROKEN_AFTER = 3
# To try the database costs little, and whoever has mended it is looking.
_LONGEST_DATABASE_BACKOFF = 3.0


class Pulling:
    """Pulls over one connection; what is lost is made anew with fresh credit."""

    def __init__(self, shared: Shared, connection: Connection, js: JetStreamContext) -> None:
        self._shared = shared
        self._settings = shared.settings
        self._dispatcher = shared.dispatcher
        self._stop = shared.stop
        self._connection = connection
        self._js = js
        self._unanswered = 0
        self._broken = 0

    async def run(self) -> None:
        """Bind and pull until the stop; raises BrokerError if the connection is of no use."""
        backoff = FIRST_BACKOFF
        while not self._stop.is_set():
            began = time.monotonic()
            self._shared.progress.step()
            try:
                await self._stop.interrupts(self._connection.usable())
                self._shared.progress.step()
                puller = await self._stop.interrupts(self._bound_while_connected())
                if not self._dispatcher.on_trial:
                    backoff = FIRST_BACKOFF
                await self._pull(puller)
            except DatabaseUnavailable as error:
                self._shared.readiness.not_ready(f"database: {error}", error.cause)
                log.warning("database.unavailable", extra={"error": str(error)})
                await self._give_back_for_others(error)
                backoff = await self._stop.rest(backoff, _LONGEST_DATABASE_BACKOFF)
            except PullLost as error:
                self._dispatcher.unbind()
                self._tell_lost(error, began)
                self._connection.check()
                self._weigh(error)
                self._shared.watch.refresh()
                if isinstance(error, ConnectionLost):
                    backoff = FIRST_BACKOFF  # what was tried before says nothing of the new one
                backoff = await self._stop.rest(backoff)

    async def _give_back_for_others(self, error: DatabaseUnavailable) -> None:
        """Give back what waits if it is this worker's own way to the file that is broken.

        A locked database is locked for all; there it stays in hand.
        """
        self._broken = self._broken + 1 if isinstance(error, DatabaseBroken) else 0
        if self._broken >= _BROKEN_AFTER and self._dispatcher.is_bound:
            await self._dispatcher.give_back_waiting()

    async def _bound_while_connected(self) -> Puller:
        bound = asyncio.create_task(self._bound())
        lost = asyncio.create_task(self._connection.lost())
        try:
            await asyncio.wait({bound, lost}, return_when=asyncio.FIRST_COMPLETED)
            if bound.done():
                return bound.result()
            raise ConnectionLost("the connection was lost while the consumer was bound")
        finally:
            await cancel(bound, lost)

    def _weigh(self, error: PullLost) -> None:
        """Give the connection up after a few requests in a row that nothing came back to.

        A right to subscribe that was missing, and is granted by now, is used by a new one only.
        """
        self._unanswered = self._unanswered + 1 if isinstance(error, NoResponse) else 0
        if self._unanswered >= _DEAF_AFTER:
            raise BrokerError("nothing is answered on this connection")

    def _tell_lost(self, error: PullLost, began: float) -> None:
        cause = self._connection.problem_since(began)
        problem = f"{describe(error)} <- {cause}" if cause else describe(error)
        self._shared.readiness.not_ready(problem, error.cause)
        log.warning("pull.lost", extra={"error": problem})

    async def _bound(self) -> Puller:
        """Return a puller for the consumer, once the database is in step with it."""
        settings, dispatcher, progress = self._settings, self._dispatcher, self._shared.progress
        binding = await self._bind()
        await dispatcher.pool_idle()
        progress.step()
        outcome = await self._shared.caught_up.come_in_step(self._connection, binding)
        progress.step()
        if outcome.is_recreated:
            created_at, binding = binding.footing.stream_created_at, await self._bind()
            if created_at != binding.footing.stream_created_at:
                raise PullLost("the stream was made anew while it was compared")
        self._tell_differences(binding, outcome.committed)
        await self._shared.watch.first_attempt()
        log.info(
            "pull.started",
            extra={
                "stream": settings.stream,
                "consumer": settings.consumer,
                "pending": binding.pending,
                "ack_pending": binding.ack_pending,
            },
        )
        dispatcher.resume()
        return self._puller()

    def _puller(self) -> Puller:
        settings, dispatcher = self._settings, self._dispatcher
        subject = f"$JS.API.CONSUMER.MSG.NEXT.{settings.stream}.{settings.consumer}"
        return Puller(
            self._connection,
            subject,
            dispatcher.outstanding,
            room=lambda: dispatcher.room,
            arrived=dispatcher.work.set,
            answered=self._note_answered,
        )

    def _note_answered(self) -> None:
        self._unanswered = 0
        # A right that is missing shows only now: the request for messages gets no answer then.
        if not self._dispatcher.on_trial:
            self._shared.readiness.ready()

    async def _bind(self) -> Binding:
        binding = await bind(self._js, self._settings)
        is_first = self._dispatcher.binding is None
        same = is_first or binding.same_messages(self._dispatcher.binding)
        ack_pending = self._dispatcher.bind(binding)
        if not same:
            log.warning("consumer.recreated", extra={"messages_not_settled": ack_pending})
        self._shared.expect(binding.pending + binding.ack_pending)
        self._shared.progress.step()
        return binding

    def _tell_differences(self, binding: Binding, committed: int) -> None:
        wanted = wanted_consumer(self._settings)
        differing = differences(wanted, binding.config, committed)
        if differing != self._shared.differing:
            self._shared.differing = differing
            tell_differences(self._settings, differing)

    async def _pull(self, puller: Puller) -> None:
        """Pull until the stop; raises DatabaseUnavailable at a fault of the database."""
        dispatcher = self._dispatcher
        dispatcher.puller = puller
        stop = asyncio.create_task(self._stop.wait())
        stop.add_done_callback(lambda _: puller.stop(idle=self._shared.is_idle))
        fault = asyncio.create_task(dispatcher.fault.wait())
        fault.add_done_callback(lambda _: puller.stop())
        watch = asyncio.create_task(self._watch_consumer(puller))
        watch.add_done_callback(self._shared.helper_done)
        try:
            await puller.run()
        finally:
            dispatcher.puller = None
            watch.remove_done_callback(self._shared.helper_done)
            await cancel(stop, fault, watch)
        if dispatcher.fault.is_set():
            raise DatabaseUnavailable(dispatcher.problem)

    async def _watch_consumer(self, puller: Puller) -> None:
        """Look at the consumer now and then, also while nothing is asked of it."""
        while True:
            await asyncio.sleep(_LOOK_AFTER)
            try:
                binding = await self.look()
            except PullLost as error:
                puller.lose(describe(error))
                return
            if not self._dispatcher.is_bound:
                puller.lose("the binding is in doubt")
                return
            self._dispatcher.note(binding)
            self._shared.progress.step()
            # On trial, with nothing to try: the checkpoint was written, so the database is there.
            tried = not self._dispatcher.on_trial or binding.pending == binding.ack_pending == 0
            if tried and puller.is_answered and len(self._dispatcher.outstanding) == 0:
                self._shared.readiness.ready()

    async def look(self) -> Binding:
        """Return the consumer that is bound as it is now; raises PullLost if it is gone."""
        assert self._dispatcher.binding is not None
        return await look(self._js, self._settings, self._dispatcher.binding)
