"""The process: check, start, wait, drain. The main thread, which owns signals and the exit code."""

import contextlib
import logging
import os
import platform
import queue
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from repo.checkpoint import CheckpointGuard, Position
from repo.errors import DiskError, RepositoryError, TransientError
from repo.sqlite.database import ENGINE, ENGINE_VERSION, Database
from worker import __version__
from worker.errors import EXIT_OK, ConfigurationError, describe, exit_code
from worker.jetstream.thread import Broker
from worker.messages import Decisions
from worker.observability.exporter import Outside
from worker.processing.pool import Pool
from worker.processing.processor import Projection
from worker.projections.manifests import ManifestCache
from worker.schema import check_schema
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.readiness import Readiness

log = logging.getLogger(__name__)

_LEAVE_TIMEOUT = 1.0


class Service:
    """One run of the worker, from the schema check to the exit code.

    `stop` may be called twice, from any thread, and before `run`.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._counters = Counters()
        self._readiness = Readiness()
        self._outside = Outside(settings, self._counters, self._readiness, self._fail)
        measures = self._outside.measures
        self._database = Database(
            settings.database, busy_timeout=settings.busy_timeout, observer=measures
        )
        # Not an Event: a signal handler may call `stop` while the main thread waits, and an
        # Event's lock is not reentrant.
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._stopping = False
        self._failure: BaseException | None = None
        self._manifests = manifests = ManifestCache()
        self._pool = Pool(
            settings.threads,
            self._database,
            CheckpointGuard(Position(settings.stream, settings.consumer)),
            Projection(settings.stream, manifests, self._counters),
            retry_for=settings.retry_for,
            settle=self._settle,
            failed=self._fail,
            projected=measures.projected,
        )
        self._broker = Broker(
            settings,
            manifests,
            self._counters,
            self._readiness,
            self._outside.progress,
            submit=self._pool.submit,
            records=self._pool,
            failed=self._fail,
            idle=self.stop,
            connected=self._log_started,
        )

    def stop(self) -> None:
        """Ask the run to drain and end."""
        self._stopping = True
        self._wake.put(None)

    def _stop_within(self, seconds: float | None) -> bool:
        """Wait for the stop, up to some seconds or for ever; tell whether it was asked for."""
        if not self._stopping:
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=seconds)
        return self._stopping

    def run(self) -> int:
        """Project until stopped; returns the exit code of the process."""
        self._log_starting()
        with stopping_on_signals(self.stop):
            try:
                self._outside.open(self._database, self._manifests, _versions())
                self._check_schema()
                self._pool.start()
                self._broker.start()
                self._outside.running()
                self._wait()
            except Exception as error:  # noqa: BLE001 (it ends the process, with the code it has)
                self._fail(error)
            self._drain()
            code = self._log_stop()
            self._outside.close()
        if self._broker.is_alive():
            # Something hangs in the system, a look-up of a name say, which the interpreter's own
            # end would wait for.
            logging.shutdown()
            os._exit(code)
        return code

    def _check_schema(self) -> None:
        while not self._stopping:
            try:
                check_schema(self._database, apply=self._settings.migrate)
                break
            except (TransientError, DiskError) as error:
                log.warning("batch.failed", extra={"error": describe(error)})
                self._outside.waiting()
                self._stop_within(1.0)

    def _settle(self, decisions: Decisions) -> None:
        self._broker.settle(decisions)

    def _fail(self, error: BaseException) -> None:
        """Take the error that ended a thread; the first one decides the exit code."""
        if self._failure is None:
            self._failure = error
        self.stop()

    def _wait(self) -> None:
        console = Console(stderr=True)
        if not (self._settings.until_idle and console.is_terminal):
            self._stop_within(None)
            return
        with Progress(
            TextColumn("projecting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
        ) as progress:
            task = progress.add_task("projecting", total=None)
            while not self._stop_within(0.1):
                self._show(progress, task)
            self._show(progress, task)

    def _show(self, progress: Progress, task: TaskID) -> None:
        if self._broker.expected is not None:
            done = self._counters["messages"]
            progress.update(task, completed=done, total=max(done, self._broker.expected))

    def _drain(self) -> None:
        """Leave so that nothing is lost and nothing is stuck, within the drain timeout."""
        timeout = self._settings.drain_timeout
        deadline = time.monotonic() + max(timeout - _LEAVE_TIMEOUT, timeout / 2)
        self._outside.draining()
        log.info("worker.draining", extra={"drain_timeout": timeout})
        self._broker.stop_pulling(deadline - time.monotonic())
        finished = self._pool.stop(deadline)
        ack_pending = self._broker.close(_LEAVE_TIMEOUT)
        if ack_pending or not finished:
            # They stay unacked on the broker, which delivers them to the next worker.
            log.warning("worker.drain_incomplete", extra={"ack_pending": ack_pending})

    def _log_starting(self) -> None:
        log.info(
            "worker.starting",
            extra={
                "versions": _versions(),
                "nats": list(self._settings.nats_urls),
                "database": self._settings.database,
            },
        )

    def _log_started(self, server: str) -> None:
        versions = {**_versions(), "server": server}
        log.info(
            "worker.started", extra={"versions": versions, "settings": self._settings.public()}
        )

    def _log_stop(self) -> int:
        failure = self._failure
        code = EXIT_OK if failure is None else exit_code(failure)
        if failure is not None:
            expected = isinstance(failure, ConfigurationError | RepositoryError)
            log.critical(
                "worker.failed",
                extra={"error": describe(failure)},
                exc_info=None if expected else failure,
            )
        log.info("worker.stopped", extra={"exit_code": code, "counters": self._counters.as_dict()})
        return code


def _versions() -> dict[str, str]:
    return {
        "worker": __version__,
        "python": platform.python_version(),
        ENGINE: ENGINE_VERSION,
        "nats-py": version("nats-py"),
    }


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at SIGTERM or SIGINT, end the process at a second one, and restore the old."""
    signals = (signal.SIGTERM, signal.SIGINT)
    received: list[int] = []

    def handle(number: int, _frame: FrameType | None) -> None:
        if received:
            os._exit(128 + number)
        received.append(number)
        stop()

    before = {number: signal.signal(number, handle) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
