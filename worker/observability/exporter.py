"""Shows the worker's status: metrics and health by HTTP, and systemd. Main thread."""

import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

from repo import Database
from worker.observability.systemd import Notifier, extend
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.health import DRAINING, RUNNING
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

if TYPE_CHECKING:
    from worker.observability.http import HealthServer

_WAITING = 30.0
_LEAVING = 5.0
_EXTENDED_EVERY = 1.0


class Exporter:
    """Shows each phase of the service; does nothing unless a port is set or systemd listens."""

    def __init__(self, settings: Settings, status: WorkerStatus, supervisor: Supervisor) -> None:
        self._settings = settings
        self._status = status
        self._supervisor = supervisor
        self._notifier = Notifier(status, supervisor)
        self._server: HealthServer | None = None
        self._extended_at = float("-inf")

    @staticmethod
    def is_wanted(settings: Settings) -> bool:
        """Return whether anything reads the status."""
        return settings.metrics_port is not None or bool(os.environ.get("NOTIFY_SOCKET"))

    def open(
        self, database: Database, manifests: ManifestCache, versions: Mapping[str, str]
    ) -> None:
        """Listen on the configured port; raises ConfigurationError where that is impossible."""
        settings = self._settings
        if settings.metrics_port is not None:
            # A worker without the port starts without what serves it.
            from worker.observability.http import HealthServer  # noqa: PLC0415
            from worker.observability.metrics import Metrics  # noqa: PLC0415
            from worker.observability.overview import Overview  # noqa: PLC0415

            metrics = Metrics(self._status, manifests, database, versions)
            place = settings.metrics_host, settings.metrics_port
            overview = Overview(settings, self._status, database)
            self._server = HealthServer(
                *place,
                self._status.health,
                metrics.registry,
                overview=overview,
                supervisor=self._supervisor,
            )
            self._server.start()
        self._notifier.start()

    def waiting(self) -> None:
        """Show that the start waits for a locked database."""
        self._status.health.locked()
        self._notifier.send(extend(_WAITING))

    def migrating(self) -> None:
        """Show that the start applies migrations; may be called often."""
        now = time.monotonic()
        if now - self._extended_at >= _EXTENDED_EVERY:
            self._extended_at = now
            self._notifier.send(extend(_WAITING))

    def running(self) -> None:
        """Show that all threads run."""
        self._status.health.enter(RUNNING)
        self._notifier.send("READY=1")

    def draining(self) -> None:
        """Show that the worker leaves, within its drain timeout and a little more."""
        self._status.health.enter(DRAINING)
        self._notifier.send("STOPPING=1", extend(self._settings.drain_timeout + _LEAVING))

    def close(self) -> None:
        self._notifier.close()
        if self._server is not None:
            self._server.close()
