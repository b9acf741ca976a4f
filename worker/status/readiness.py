"""Whether the worker is ready, and if not, why. Written by the consumer thread, read by any."""

import re
import time
from collections.abc import Callable

from worker.errors import BROKER_UNREACHABLE, PERMISSION_DENIED, STARTING

# What a server answers to a known user without the right, and to an unknown user.
_DENIED = re.compile(r"permissions violation|authorization violation|authentication", re.IGNORECASE)


class Readiness:
    """Whether one projection is ready: connected and bound, with a database that takes what comes.

    `report_ready` is called when it becomes so, `report_problem` when it no longer is. `problem` is
    why it is not ready, or None. `last_problem`, of the kind `cause`, was the last one, at
    `last_problem_at` (monotonic seconds). `secret_is_outdated` is whether the broker refuses a
    secret that it accepted before, and that only a restart can replace.
    """

    def __init__(
        self, report_ready: Callable[[], None], report_problem: Callable[[str], None]
    ) -> None:
        self._report_ready = report_ready
        self._report_problem = report_problem
        self.problem: str | None = "starting"
        self.cause = STARTING
        self.last_problem = ""
        self.last_problem_at = float("-inf")
        self.secret_is_outdated = False
        self._was_logged_in = False
        self._reported = False

    @property
    def is_ready(self) -> bool:
        return self.problem is None

    def ready(self) -> None:
        """Record that nothing prevents projection; reported when it is a change."""
        if self.problem is not None:
            self.problem = None
            self._reported = False
            self._report_ready()

    def not_ready(self, problem: str, cause: str = BROKER_UNREACHABLE) -> None:
        """Record what prevents projection; logged when it is a change, or the first time."""
        self.cause = PERMISSION_DENIED if _DENIED.search(problem) else cause
        self.problem = self.last_problem = problem
        self.last_problem_at = time.monotonic()
        if not self._reported:
            self._reported = True
            self._report_problem(problem)

    def logged_in(self) -> None:
        """Record that the broker accepts the secrets."""
        self._was_logged_in = True
        self.secret_is_outdated = False

    def secret_refused(self) -> None:
        """Record that the broker refuses a secret that this process cannot read again."""
        self.secret_is_outdated = self._was_logged_in
