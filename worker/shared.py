"""What outlives a session with the broker. Broker thread only."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.handover import Handover
from worker.in_step import InStep
from worker.lag import Lag
from worker.logs import Repeats
from worker.manifest_watch import ManifestWatch
from worker.progress import Progress
from worker.readiness import Readiness
from worker.settings import Settings
from worker.stopping import Stop
from worker.totals import Totals


@dataclass
class Shared:
    """What outlives a session.

    `end` ends the thread with an error, `connected` is called once with the server's version,
    `idle` once when `until_idle` is set and nothing is left to do, `pulling_ended` when nothing
    more will be begun. `expected` is how many messages the process will have projected then.
    """

    settings: Settings
    totals: Totals
    handover: Handover
    watch: ManifestWatch
    in_step: InStep
    readiness: Readiness
    progress: Progress
    lag: Lag
    repeats: Repeats
    end: Callable[[BaseException], None]
    connected: Callable[[str], None]
    idle: Callable[[], None]
    pulling_ended: Callable[[], None]
    stop: Stop = field(default_factory=Stop)
    closing: asyncio.Event = field(default_factory=asyncio.Event)
    expected: int | None = None
    was_connected: bool = False
    is_idle: bool = False
    differing: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def expect(self, more: int) -> None:
        """Note how many messages are still to be projected."""
        self.expected = self.totals["messages"] + more

    def helper_done(self, helper: asyncio.Task[None]) -> None:
        """See to it that no helper ends unseen; the library may cancel what waits on it."""
        if helper.cancelled():
            self.end(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self.end(error)
