"""Is the worker ready, and if not, why? Written by the broker thread, read by any."""

import logging
import re
import time

from worker.errors import BROKER_AWAY, PERMISSION_DENIED, STARTING

log = logging.getLogger(__name__)

# What a server says where it knows the user, and where it does not.
_DENIED = re.compile(r"permissions violation|authorization violation|authentication", re.IGNORECASE)


class Readiness:
    """Ready means: connected, bound, in step with a database that takes what comes.

    `problem` is why it is not, or empty. `last_problem`, of the kind `cause`, was so last, at
    `last_problem_at` (monotonic seconds). `reconnections` counts connections made anew.
    """

    def __init__(self) -> None:
        self.problem = "starting"
        self.cause = STARTING
        self.last_problem = ""
        self.last_problem_at = float("-inf")
        self.reconnections = 0
        self._told = False

    @property
    def is_ready(self) -> bool:
        """Tell whether what is published now is projected now."""
        return not self.problem

    def ready(self) -> None:
        """Note that nothing stands in the way; said when it is new."""
        if self.problem:
            self.problem = ""
            self._told = False
            log.info("worker.ready")

    def not_ready(self, problem: str, cause: str = BROKER_AWAY) -> None:
        """Note what stands in the way; said when the worker was ready, or has just started."""
        self.cause = PERMISSION_DENIED if _DENIED.search(problem) else cause
        self.problem = self.last_problem = problem
        self.last_problem_at = time.monotonic()
        if not self._told:
            self._told = True
            log.warning("worker.not_ready", extra={"error": problem})
