"""Step 2: one act after the other, each with what it did to the tables and how soon."""

import time

from tests.demo.agents import Agents
from tests.demo.fleet import Event
from tests.demo.process import Worker
from tests.demo.screen import Screen
from tests.demo.tables import Tables


class Stage:
    """Plays acts against a running worker."""

    def __init__(self, screen: Screen, agents: Agents, tables: Tables, worker: Worker) -> None:
        self.tables = tables
        self._screen = screen
        self._agents = agents
        self._worker = worker

    def open(self) -> None:
        """Print what the columns are."""
        header = _columns("what the PCs publish", "events", "new rows", "after", "execution")
        self._screen.columns(header, "dim")

    async def play(self, what: str, events: list[Event], *, seconds: float) -> None:
        """Publish events, wait until they are in the tables and acked, and tell what changed."""
        before, statuses = self.tables.counts(), self.tables.statuses(events)
        await self._agents.publish(events, seconds=seconds)
        published = time.monotonic()
        await self._worker.until(self._in_the_tables, f"rows of {what!r}")
        milliseconds = (time.monotonic() - published) * 1000
        await self._worker.until(self._agents.is_settled, f"acks of {what!r}")
        runs, rejected = (
            now - then for now, then in zip(self.tables.counts(), before, strict=True)
        )
        self._screen.columns(
            _columns(
                what,
                str(len(events)),
                f"{rejected} rejected" if rejected else str(runs),
                f"{milliseconds:.0f} ms" if runs or rejected else "",
                _change(statuses, self.tables.statuses(events)),
            )
        )

    async def _in_the_tables(self) -> bool:
        runs, rejected = self.tables.counts()
        expected = len(self._agents.result_ids), len(self._agents.malformed_sequences)
        return runs >= expected[0] and rejected >= expected[1]


def _columns(what: str, events: str, rows: str, after: str, execution: str) -> str:
    return f"{what:<30}{events:>7}{rows:>12}{after:>8}   {execution}"


def _change(before: list[str], after: list[str]) -> str:
    """Tell what became of the statuses of executions; running ones are no news."""
    if before != after:
        return " ".join(f"{old} → {new}" for old, new in zip(before, after, strict=True))
    kept = sorted(set(after) - {"running"})
    return f"still {', '.join(kept)}" if kept else ""
