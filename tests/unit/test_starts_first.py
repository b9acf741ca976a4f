"""When results wait for the starts, and when they go on without."""

import asyncio
from typing import Any

import pytest

from worker.jetstream import starts_first
from worker.jetstream.starts_first import StartsFirst
from worker.status.worker_status import WorkerStatus


class Starts:
    """Stands for the session of starts, of which nothing is projected yet."""

    projected_up_to: int | None = None

    def __init__(self) -> None:
        self.progress = 0

    async def has_projected(self, _stored_at: int) -> bool:
        return False


def test_results_wait_again_as_soon_as_the_starts_make_progress(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    slept = []
    starts: Any = Starts()

    async def sleep(_seconds: float) -> None:
        nonlocal now
        now += 1.0
        slept.append(now)

    monkeypatch.setattr(starts_first.time, "monotonic", lambda: now)  # type: ignore[attr-defined]
    monkeypatch.setattr(starts_first.asyncio, "sleep", sleep)  # type: ignore[attr-defined]
    status = WorkerStatus(["results"], stalled_after=1, busy_timeout=1, is_observed=False)
    first = StartsFirst(starts, status.projections["results"].health)

    def wait() -> int:
        """Return for how many seconds a result waits."""
        slept.clear()
        asyncio.run(first.catch_up(stored_at=1))
        return len(slept)

    assert wait() == 30
    assert (wait(), first.is_given_up) == (0, True)
    starts.progress += 1
    assert wait() == 30
