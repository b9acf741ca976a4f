"""Upkeep: what no message triggers. Consumer thread only; the pool does it, page by page.

One tick is the sweep, the reaper and retention, in this order; each fails by itself. Then
executions and runs in flight are counted for metrics.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from repo import execution_results, executions, queries
from repo.errors import CorruptDatabaseError, RepositoryError
from repo.reaper import Overdue, Reaping, count_unreadable
from repo.repository import Delete, Sweep
from worker.codec.timestamps import NANOSECONDS, format_instant
from worker.errors import describe
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.session import Session
from worker.logs import Repeats
from worker.processing.pool import ProjectionPool
from worker.processing.processor import log_promotion_failures
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.worker_health import if_known
from worker.status.worker_status import WorkerStatus

log = logging.getLogger(__name__)

_Result = TypeVar("_Result")

_USABLE_CHECK = 0.1
_KNOWN_CHECK = 1.0
_WARN_AGAIN_AFTER = 3600.0
HOUR = 3600 * NANOSECONDS
# The contract's: an execution without runs expires after an hour, a run without deadline is
# overdue after a day.
EXPIRES_AFTER = HOUR
OVERDUE_AFTER = 24 * HOUR
MOST_DELETIONS = 10
# More say no more to an alert; counting so many takes about ten milliseconds.
_MOST_WITHOUT_DEADLINE = 20_000

# Executions before their runs: a run without its execution is less odd than the reverse.
OLD_ROWS: tuple[tuple[str, Delete], ...] = (
    ("executions", executions.delete_old),
    ("runs", execution_results.delete_old),
)


class Limits(NamedTuple):
    """What a tick goes by, instants of the broker's clock: its own time, and min(now, W)."""

    now: int
    known: int


class Upkeep:
    """Repeats a tick: at the start, when W becomes known, and then at every `--upkeep-every`.

    Waits while the database is not caught up or takes no batch; without a broker the sweep goes on.
    `is_done` is whether a tick was tried at least once.
    """

    def __init__(
        self,
        settings: Settings,
        sessions: Sequence[Session],
        pool: ProjectionPool,
        manifests: ManifestCache,
        status: WorkerStatus,
    ) -> None:
        self.is_done = False
        self._every = settings.upkeep_every
        self._retention = settings.retention
        self._sessions = sessions
        self._pool = pool
        self._manifests = manifests
        self._status = status
        self._counters = status.counters
        self._was_caught_up = False
        self._repeats = Repeats(_WARN_AGAIN_AFTER)

    async def run(self) -> None:
        """Repeat the upkeep until cancelled; raises CorruptDatabaseError."""
        while True:
            if not self._is_usable():
                self._status.forget_counts()
                await asyncio.sleep(_USABLE_CHECK)
                continue
            limits = self._limits()
            await self._tick(limits)
            self.is_done = True
            next_at = time.monotonic() + self._every
            while (rest := next_at - time.monotonic()) > 0:
                await asyncio.sleep(min(rest, _KNOWN_CHECK))
                if limits is None and self._limits() is not None:
                    break

    @property
    def _dispatcher(self) -> Dispatcher:
        return self._sessions[0].dispatcher

    def _is_usable(self) -> bool:
        """Return whether the database was caught up once, and took what came last."""
        dispatcher = self._dispatcher
        self._was_caught_up = self._was_caught_up or dispatcher.is_dispatching
        return self._was_caught_up and not dispatcher.failed.is_set() and not dispatcher.on_trial

    def _limits(self) -> Limits | None:
        """Return what this tick goes by; None where W or the broker's time is unknown."""
        now = self._sessions[0].broker_time
        up_to = if_known(min, [session.projected_up_to for session in self._sessions])
        return None if now is None or up_to is None else Limits(now, min(now, up_to))

    async def _tick(self, limits: Limits | None) -> None:
        for part in (self._sweep, self._reap, self._delete_old, self._count):
            try:
                await part(limits)
            except CorruptDatabaseError:
                raise
            except RepositoryError as error:
                extra = {"part": part.__name__.strip("_"), "error": describe(error)}
                log.warning("upkeep.failed", extra=extra)

    async def _sweep(self, limits: Limits | None) -> None:
        sweep = Sweep(limits and expires_before(limits))
        try:
            while sweep.after is not None:
                # Each page waits for its turn behind the batches that are queued.
                page = self._pool.ask(lambda repository: repository.sweep(sweep))
                await asyncio.wrap_future(page)
        finally:
            failed = [*sweep.failures, *sweep.expiry_failures]
            self._counters.add(
                executions_promoted_late=sweep.promoted,
                executions_expired=sweep.expired,
                promotions_failed=len(failed),
            )
            if sweep.promoted:
                log.info("executions.promoted", extra={"executions": sweep.promoted})
            if sweep.expired:
                log.info("executions.expired", extra={"executions": sweep.expired})
            log_promotion_failures(failed)

    async def _reap(self, limits: Limits | None) -> None:
        if limits is None:
            return
        reaping = reaping_of(limits)
        runs = 0
        try:
            while not reaping.is_complete:
                page = self._pool.ask(lambda repository: repository.reap(reaping))
                reaped = await asyncio.wrap_future(page)
                runs += len(reaped)
                _log_reaped(reaped)
        finally:
            self._counters.add(runs_reaped=runs, reaps_failed=len(reaping.failures))
            if runs:
                log.info("runs.reaped", extra={"runs": runs})
            for result_id, reason in reaping.failures.items():
                if self._repeats.due(("reap", reason)):
                    extra = {"result_id": result_id, "error": reason}
                    log.warning("run.not_reaped", extra=extra)
        await self._warn_of_unreadable(reaping)

    async def _warn_of_unreadable(self, reaping: Reaping) -> None:
        """Warn of runs that are never given up, since their time is no time in stored form."""
        times = reaping.expires_before, reaping.recorded_before
        runs = await self._read(count_unreadable, *times)
        if runs and self._repeats.due("unreadable"):
            problem = "another program wrote their deadline, which is not in the stored form"
            log.warning("deadline.unreadable", extra={"runs": runs, "error": problem})

    async def _delete_old(self, _: Limits | None) -> None:
        """Delete what is older than the retention, executions before their runs."""
        present = self._sessions[0].broker_time
        if present is None or self._retention is None or not self._may_delete():
            return
        before = old_before(present, self._retention)
        for name, delete in OLD_ROWS:
            deleted = 0
            for _page in range(MOST_DELETIONS):
                page = self._pool.ask(lambda repository: repository.delete_old(delete, before))  # noqa: B023
                more = await asyncio.wrap_future(page)
                deleted += more
                if not more:
                    break
            if deleted:
                self._counters.add(**{f"{name}_deleted": deleted})
                log.info("retention.deleted", extra={"table": name, "rows": deleted})

    async def _count(self, limits: Limits | None) -> None:
        """Count for the metrics, if anybody reads them; what cannot be counted is unknown."""
        status = self._status
        if not status.is_observed:
            return
        try:
            # Each replaces what was known at once: a gap would reset alerts that wait for hours.
            status.executions = await self._read(executions.count_by_status)
            by_job = await self._read(queries.count_without_deadline, _MOST_WITHOUT_DEADLINE)
            status.without_deadline = self._manifests.count_reasons(by_job)
            status.runs = await self._count_runs(limits)
        except RepositoryError:
            status.forget_counts()
            raise

    async def _count_runs(self, limits: Limits | None) -> dict[str, int] | None:
        if limits is None:  # without the broker's time nobody knows what is overdue
            return None
        found = await self._read(queries.count, format_instant(limits.now), 1)
        return {
            "in_time": found.in_flight - found.overdue - found.without_deadline,
            "overdue": found.overdue,
            "without_deadline": found.without_deadline,
        }

    async def _read(self, query: Callable[..., _Result], *arguments: Any) -> _Result:
        read = self._pool.ask(lambda repository: repository.read(query, *arguments))
        return await asyncio.wrap_future(read)

    def _may_delete(self) -> bool:
        """Return whether no stream would bring back what is deleted."""
        for session in self._sessions:
            if session.max_age is None:
                return False
            problem = retention_problem(session.stream, session.max_age, self._retention or 0)
            if problem is not None:
                if self._repeats.due(("retention", session.stream)):
                    log.warning("retention.refused", extra={"error": problem})
                return False
        return True


def retention_problem(stream: str, max_age: float, retention: float) -> str | None:
    """Return why nothing may be deleted, or None; `max_age` and `retention` are in seconds."""
    if 0 < max_age <= retention:
        return None
    kept = f"{max_age / 86_400:g} days" if max_age else "for ever"
    return (
        f"nothing is deleted: stream {stream} keeps messages {kept}, longer than --retention, and "
        "would bring the rows back"
    )


def old_before(now: int, retention: float) -> str:
    """Return the time before which rows are too old, stored text; `retention` is in seconds."""
    return format_instant(max(0, now - round(retention * NANOSECONDS)))


def expires_before(limits: Limits) -> str:
    """Return the time before which a pending execution without runs is too old, stored text."""
    return format_instant(limits.known - EXPIRES_AFTER)


def reaping_of(limits: Limits) -> Reaping:
    """Return the pass of the reaper at these limits."""
    return Reaping(
        format_instant(limits.now),
        format_instant(limits.known),
        format_instant(limits.known - OVERDUE_AFTER),
    )


def _log_reaped(reaped: Sequence[Overdue]) -> None:
    for run in reaped:
        log.debug("run.reaped", extra=run._asdict())
