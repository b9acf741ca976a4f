"""Is the worker ready, and if not, why? Written by the broker thread, read by any."""

import logging

log = logging.getLogger(__name__)


class Readiness:
    """Ready means: connected, bound, in step with a database that takes what comes.

    `problem` is why it is not, or empty.
    """

    def __init__(self) -> None:
        self.problem = "starting"
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

    def not_ready(self, problem: str) -> None:
        """Note what stands in the way; said when the worker was ready, or has just started."""
        self.problem = problem
        if not self._told:
            self._told = True
            log.warning("worker.not_ready", extra={"error": problem})
