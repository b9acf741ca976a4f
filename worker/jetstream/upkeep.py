"""Upkeep: what no message triggers. Consumer thread only; the pool does it, page by page.

Today the sweep; whatever else is due at an interval belongs here as well.
"""

import asyncio
import logging

from repo.errors import CorruptDatabaseError, RepositoryError
from repo.repository import Sweep
from worker.errors import describe
from worker.jetstream.dispatcher import Dispatcher
from worker.processing.pool import ProjectionPool
from worker.processing.processor import log_promotion_failures
from worker.status.counters import Counters

log = logging.getLogger(__name__)

_USABLE_CHECK = 0.1


class Upkeep:
    """Promotes executions whose rows came after their starts: at the start, then every few seconds.

    Waits while the database is not caught up or takes no batch; without a broker it goes on.
    `is_done` is whether it was tried at least once.
    """

    def __init__(
        self, every: float, dispatcher: Dispatcher, pool: ProjectionPool, counters: Counters
    ) -> None:
        self.is_done = False
        self._every = every
        self._dispatcher = dispatcher
        self._pool = pool
        self._counters = counters
        self._was_caught_up = False

    async def run(self) -> None:
        """Repeat the upkeep until cancelled; raises CorruptDatabaseError."""
        while True:
            if not self._is_usable():
                await asyncio.sleep(_USABLE_CHECK)
                continue
            try:
                await self._sweep()
            except CorruptDatabaseError:
                raise
            except RepositoryError as error:
                log.warning("upkeep.failed", extra={"error": describe(error)})
            self.is_done = True
            await asyncio.sleep(self._every)

    def _is_usable(self) -> bool:
        """Return whether the database was caught up once, and took what came last."""
        dispatcher = self._dispatcher
        self._was_caught_up = self._was_caught_up or dispatcher.is_dispatching
        return self._was_caught_up and not dispatcher.failed.is_set() and not dispatcher.on_trial

    async def _sweep(self) -> None:
        sweep = Sweep()
        try:
            while sweep.after is not None:
                # Each page waits for its turn behind the batches that are queued.
                page = self._pool.ask(lambda repository: repository.sweep(sweep))
                await asyncio.wrap_future(page)
        finally:
            self._counters.add(
                executions_promoted_late=sweep.promoted, promotions_failed=len(sweep.failures)
            )
            if sweep.promoted:
                log.info("executions.promoted", extra={"executions": sweep.promoted})
            log_promotion_failures(sweep.failures)
