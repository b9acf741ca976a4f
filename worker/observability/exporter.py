"""All that shows the worker to the outside: metrics and health by HTTP, and systemd. Main thread.

Off unless a port is set, or systemd listens.
"""

from collections.abc import Callable, Mapping

from repo.sqlite.database import Database
from worker.observability.http import HealthServer
from worker.observability.metrics import Metrics, MetricsObserver
from worker.observability.systemd import Notifier
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.health import DRAINING, RUNNING, Progress
from worker.status.readiness import Readiness

_WAITING = 30.0
_LEAVING = 5.0


class Outside:
    """Told by the service of each phase.

    `measures` is for the database and the pool. `failed` gets the error that ended a thread.
    """

    def __init__(
        self,
        settings: Settings,
        counters: Counters,
        readiness: Readiness,
        failed: Callable[[BaseException], None],
    ) -> None:
        self.progress = Progress(
            readiness, patience=settings.stalled_after, busy_timeout=settings.busy_timeout
        )
        self.measures = MetricsObserver(self.progress, counters)
        self._settings = settings
        self._counters = counters
        self._readiness = readiness
        self._notifier = Notifier(self.progress, failed)
        self._server: HealthServer | None = None

    def open(
        self, database: Database, manifests: ManifestCache, versions: Mapping[str, str]
    ) -> None:
        """Listen on the port that is set; raises ConfigurationError where that cannot be."""
        settings = self._settings
        if settings.metrics_port is not None:
            metrics = Metrics(
                self.measures,
                counters=self._counters,
                progress=self.progress,
                readiness=self._readiness,
                manifests=manifests,
                database=database,
                versions=versions,
            )
            self._server = HealthServer(
                settings.metrics_host, settings.metrics_port, self.progress, metrics.registry
            )
            self._server.start()
        self.progress.is_observed = self._server is not None or self._notifier.is_wanted
        self._notifier.start()

    def waiting(self) -> None:
        """Note that the start waits for a locked database."""
        self.progress.locked()
        self._notifier.waiting(_WAITING)

    def running(self) -> None:
        """Note that all threads run."""
        self.progress.enter(RUNNING)
        self._notifier.enter(RUNNING)

    def draining(self) -> None:
        """Note that the worker leaves, within its drain timeout and a little."""
        self.progress.enter(DRAINING)
        self._notifier.enter(DRAINING, self._settings.drain_timeout + _LEAVING)

    def close(self) -> None:
        """Show nothing any more."""
        self._notifier.close()
        if self._server is not None:
            self._server.close()
