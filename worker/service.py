"""The process: check, start, wait, drain. The main thread, which owns signals and the exit code."""

import asyncio
import gc
import logging
import os
import platform
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any, NamedTuple

from repo import Database, open_database
from repo.checkpoint import Position
from repo.errors import RepositoryError
from worker import __version__
from worker.errors import EXIT_OK, ConfigurationError, describe, exit_code
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.outputs import Outputs
from worker.jetstream.prerequisite import Prerequisite
from worker.jetstream.session import Session, Shared
from worker.jetstream.sessions import Sessions
from worker.jetstream.starts_first import StartsFirst
from worker.jetstream.tasks import Helpers, Stop
from worker.jetstream.thread import ConsumerThread
from worker.jetstream.upkeep import Upkeep
from worker.logs import log_in_background
from worker.observability.exporter import Exporter
from worker.processing.pool import ProjectionPool, RepositoryPool
from worker.processing.processor import BatchProcessor
from worker.processing.queues import ResultQueue
from worker.projections.base import Projection
from worker.projections.manifests import ManifestCache
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.schema import PASSING, check_schema
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

log = logging.getLogger(__name__)

# Messages and rows come by the thousand and refer to each other in no circle. With Python's own
# thresholds a tenth of the time went into looking through them again and again.
_COLLECT_AFTER = (50_000, 20, 100)

_LEAVE_TIMEOUT = 1.0


class _Line(NamedTuple):
    """What one projection needs: its session, and its view of the pool."""

    session: Session
    pool: ProjectionPool


class Service:
    """One run of the worker, from the schema check to the exit code.

    `stop` may be called more than once, from any thread, and before `run`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._supervisor = Supervisor()
        self._status = status = WorkerStatus(
            settings.projections,
            stalled_after=settings.stalled_after,
            busy_timeout=settings.busy_timeout,
            is_observed=Exporter.is_wanted(settings),
        )
        self._database = open_database(
            settings.database, busy_timeout=settings.busy_timeout, observer=status
        )
        self._versions = _versions(self._database)
        self._manifests = ManifestCache()
        self._exporter = Exporter(settings, status, self._supervisor)
        self._pool = RepositoryPool(settings, self._database, self._supervisor)
        self._pools: list[ProjectionPool] = []
        self._is_started = False
        self._consumer_thread = ConsumerThread(self._sessions(), status, self._supervisor)

    def _sessions(self) -> Sessions:
        settings, status = self._settings, self._status
        shared = Shared(Helpers(self._supervisor), Stop(), asyncio.Event())
        manifests = ManifestSync(settings.bucket, self._manifests)
        starts = self._session(STARTS, manifests, shared)
        sessions = [starts.session]
        if RESULTS.name in settings.projections:
            first = StartsFirst(starts.session, status.projections[RESULTS.name].health)
            outputs = Outputs(settings.output_bucket, status.counters)
            sessions.append(self._session(RESULTS, first, shared, outputs).session)
        return Sessions(
            settings=settings,
            sessions=sessions,
            manifests=manifests,
            upkeep=Upkeep(settings, sessions, starts.pool, self._manifests, status),
            status=status,
            supervisor=self._supervisor,
            shared=shared,
            versions=self._versions,
        )

    def _session(
        self,
        projection: Projection[Any, Any],
        prerequisite: Prerequisite,
        shared: Shared,
        outputs: Outputs | None = None,
    ) -> _Line:
        settings = self._settings.of(projection)
        status = self._status.projections[projection.name]
        results = ResultQueue()
        pool = ProjectionPool(
            self._pool,
            Position(settings.stream, settings.consumer),
            BatchProcessor(projection, settings.stream, self._manifests, status.counters),
            results,
            status,
        )
        session = Session(
            settings=settings,
            projection=projection,
            prerequisite=prerequisite,
            outputs=outputs,
            pool=pool,
            results=results,
            status=status,
            shared=shared,
        )
        self._pools.append(pool)
        return _Line(session, pool)

    def stop(self) -> None:
        """Ask the run to drain and end."""
        self._supervisor.request_stop()

    def run(self) -> int:
        """Project until stopped; returns the exit code of the process."""
        gc.set_threshold(*_COLLECT_AFTER)
        counters = self._status.counters
        log_in_background(lambda lines: counters.add(log_lines_dropped=lines))
        logging.root.addHandler(self._status.recent)
        self._log_starting()
        with stopping_on_signals(self.stop):
            try:
                self._exporter.open(self._database, self._manifests, self._versions)
                self._check_schema()
                if not self._supervisor.stop_requested:
                    self._is_started = True
                    self._pool.start()
                    self._consumer_thread.start()
                    self._exporter.running()
                    self._wait()
            except Exception as error:  # noqa: BLE001 (it decides the exit code)
                self._supervisor.fail(error)
            self._drain()
            code = self._log_stop()
            self._exporter.close()
        if self._consumer_thread.is_alive():
            # It hangs in the system, in a name look-up for example, and the interpreter's own end
            # would wait for it.
            logging.shutdown()
            os._exit(code)
        return code

    def _check_schema(self) -> None:
        while not self._supervisor.stop_requested:
            try:
                check_schema(
                    self._database, apply=self._settings.migrate, give_up=self._show_migration
                )
                break
            except PASSING as error:
                self._wait_for_database(error)

    def _wait_for_database(self, error: RepositoryError) -> None:
        if self._supervisor.stop_requested:
            return
        log.warning("database.unavailable", extra={"error": describe(error)})
        self._exporter.waiting()
        self._supervisor.wait(1.0)

    def _show_migration(self) -> bool:
        """Show that migrations are being applied; returns whether to stop them."""
        self._exporter.migrating()
        return self._supervisor.stop_requested

    def _wait(self) -> None:
        if self._settings.until_idle and sys.stderr.isatty():
            from worker.progress import show  # noqa: PLC0415 (slow, and no other start shows it)

            show(self._supervisor, self._status)
        else:
            self._supervisor.wait()

    def _drain(self) -> None:
        """Stop such that no message is lost and none is stuck, within the drain timeout."""
        timeout = self._settings.drain_timeout
        deadline = time.monotonic() + max(timeout - _LEAVE_TIMEOUT, timeout / 2)
        self._exporter.draining()
        if not self._is_started:
            return
        log.info("worker.draining", extra={"drain_timeout": timeout})
        self._consumer_thread.stop_pulling(deadline - time.monotonic())
        finished = self._pool.stop(deadline)
        outstanding = self._consumer_thread.close(_LEAVE_TIMEOUT)
        for pool in self._pools:
            pool.report(at_end=True)
        if outstanding or not finished:
            # They stay unacked on the broker, which delivers them to the next worker.
            log.warning("worker.drain_incomplete", extra={"outstanding": outstanding})

    def _log_starting(self) -> None:
        log.info(
            "worker.starting",
            extra={
                "versions": self._versions,
                "nats": list(self._settings.nats_urls),
                "database": self._settings.database,
            },
        )

    def _log_stop(self) -> int:
        error = self._supervisor.error
        code = EXIT_OK if error is None else exit_code(error)
        if error is None or self._is_started:
            counters = self._status.counters.as_dict()
            log.info("worker.stopped", extra={"exit_code": code, "counters": counters})
        if error is not None:
            # Last, where a person who looks for the cause begins to read.
            expected = isinstance(error, ConfigurationError | RepositoryError)
            log.critical(
                "worker.failed",
                extra={"exit_code": code, "error": describe(error)},
                exc_info=None if expected else error,
            )
        return code


def _versions(database: Database) -> dict[str, str]:
    return {
        "worker": __version__,
        "python": platform.python_version(),
        database.driver: database.driver_version,
        "nats-py": version("nats-py"),
    }


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at a signal that ends a process, and restore the handlers at the end.

    A second SIGTERM, SIGINT or SIGQUIT ends the process at once. A SIGHUP never does: a terminal
    that closes sends two, and systemd's SendSIGHUP= one with the SIGTERM.
    """
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if number != signal.SIGHUP:
            if received:
                logging.shutdown()
                os._exit(128 + number)
            received.append(number)
        stop()

    stopping = signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP
    handlers: dict[int, Any] = dict.fromkeys(stopping, handle)
    handlers[signal.SIGUSR1] = signal.SIG_IGN
    if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        del handlers[signal.SIGHUP]  # started by nohup: the terminal may close
    before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
