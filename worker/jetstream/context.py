"""What outlives a session with the broker. Broker thread only."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import Lag
from worker.jetstream.manifest_sync import ManifestWatch
from worker.jetstream.reconcile import InStep
from worker.jetstream.tasks import Stop
from worker.logs import Repeats
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.health import Progress
from worker.status.readiness import Readiness


@dataclass
class Shared:
    """What outlives a session.

    `end` ends the thread with an error, `connected` is called once with the server's version,
    `idle` once when `until_idle` is set and nothing is left to do, `pulling_ended` when nothing
    more will be begun. `expected` is how many messages the process will have projected then.
    """

    settings: Settings
    counters: Counters
    dispatcher: Dispatcher
    watch: ManifestWatch
    caught_up: InStep
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
        self.expected = self.counters["messages"] + more

    def helper_done(self, helper: asyncio.Task[None]) -> None:
        """See to it that no helper ends unseen; the library may cancel what waits on it."""
        if helper.cancelled():
            self.end(RuntimeError("a task of the session was cancelled from outside"))
        elif (error := helper.exception()) is not None:
            self.end(error)
