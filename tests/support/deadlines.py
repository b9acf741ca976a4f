"""Manifests, and the deadlines that follow from them."""

from tests.support.broker import Broker
from tests.support.events import stored_text
from tests.support.rows import Row, Rows
from tests.support.worker_process import WorkerProcess

# From recorded_at to expires_at: timeouts of 0, 20 s, 360 s, 1 h, 2 h, and the longest span.
_SECONDS = (120, 140, 540, 5400, 10_800, 365 * 86_400)


def manifest(timeout: str) -> dict[str, object]:
    return {"execute": {"timeout": timeout}, "script": "x" * 100}


def seconds_to_deadline(run: Row) -> int | None:
    """Return the seconds from a run's record to its deadline, or None if it has no deadline."""
    if run["expires_at"] is None:
        return None
    recorded = run["recorded_at"].removesuffix("+00:00")
    found = [n for n in _SECONDS if stored_text(recorded, plus=n) == run["expires_at"]]
    assert found, run
    return found[0]


class Deadlines:
    """Publishes starts to find out which deadline the worker gives them."""

    def __init__(
        self, broker: Broker, rows: Rows, worker: WorkerProcess, prefix: str = "run-"
    ) -> None:
        """Publish through a broker; the ids of the runs begin with the prefix."""
        self._broker, self._rows, self._worker = broker, rows, worker
        self._prefix, self._starts = prefix, 0

    def of_a_start(self, manifest_id: str) -> int | None:
        """Publish a start and return the seconds to its deadline."""
        self._starts += 1
        result_id = f"{self._prefix}{self._starts}"
        self._broker.publish(result_id=result_id, manifest_id=manifest_id)
        return seconds_to_deadline(self._worker.until(lambda: self._rows.run(result_id), 20))

    def wait_for(self, manifest_id: str, seconds: int | None, within: float) -> None:
        """Publish starts until their deadline is as expected."""
        self._worker.until(lambda: self.of_a_start(manifest_id) == seconds, within)
