"""Whether the worker is ready, and if not, why. Written by the consumer thread, read by any."""

import logging
import re
import time

from worker.errors import BROKER_UNREACHABLE, PERMISSION_DENIED, STARTING

log = logging.getLogger(__name__)

# What a server answers to a known user without the right, and to an unknown user.
_DENIED = re.compile(r"permissions violation|authorization violation|authentication", re.IGNORECASE)


class Readiness:
    """Ready means: connected, bound, and caught up, with a database that takes what comes.

    `problem` is why the worker is not ready, or None. `last_problem`, of the kind `cause`, was the
    last one, at `last_problem_at` (monotonic seconds).
    """

    def __init__(self) -> None:
        self.problem: str | None = "starting"
        self.cause = STARTING
        self.last_problem = ""
        self.last_problem_at = float("-inf")
        self._reported = False

    @property
    def is_ready(self) -> bool:
        return self.problem is None

    def ready(self) -> None:
        """Record that nothing prevents projection; logged when it is a change."""
        if self.problem is not None:
            self.problem = None
            self._reported = False
            log.info("worker.ready")

    def not_ready(self, problem: str, cause: str = BROKER_UNREACHABLE) -> None:
        """Record what prevents projection; logged when it is a change, or the first time."""
        self.cause = PERMISSION_DENIED if _DENIED.search(problem) else cause
        self.problem = self.last_problem = problem
        self.last_problem_at = time.monotonic()
        if not self._reported:
            self._reported = True
            log.warning("worker.not_ready", extra={"error": problem})
