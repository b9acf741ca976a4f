"""Who takes part: the worker, its rivals, and the limits. Each is a command to be started."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

WORKER = "worker"
SERIAL = "serial"
BATCHED = "batched"
FRAMEWORK = "framework"
SQLITE = "sqlite"
DECODE_SQLITE = "decode+sqlite"
PULL = "pull"


@dataclass(frozen=True, slots=True)
class Rival:
    """A program to measure. `needs_broker` is false for those that only write to the database."""

    key: str
    title: str
    module: str
    kind: str = "rival"
    arguments: tuple[str, ...] = ()
    needs_broker: bool = True
    writes: bool = True

    @property
    def ends_itself(self) -> bool:
        """Tell whether it ends when nothing is left to drain; the others are asked to."""
        return self.key == WORKER

    def command(self, nats: str, database: Path, python: str = sys.executable) -> list[str]:
        """Return the command line that drains the broker into the database."""
        if self.key == WORKER:
            projector = str(Path(python).with_name("projector"))
            where = ["--nats", nats, "--database", f"sqlite:///{database}"]
            return [projector, "run", "--until-idle", *where, "--log-format", "json"]
        where = ["--database", str(database)]
        if self.needs_broker:
            where += ["--nats", nats]
        return [python, "-m", f"tests.bench.programs.{self.module}", *self.arguments, *where]


RIVALS = {
    rival.key: rival
    for rival in (
        Rival(WORKER, "the worker", "", kind="worker"),
        Rival(SERIAL, "(a) serial loop", "serial"),
        Rival(BATCHED, "(b) fetch(100), one transaction", "batched"),
        Rival(FRAMEWORK, "(c) FastStream, batches of 100", "framework"),
        Rival(SQLITE, "(d) bare SQLite", "sqlite_only", kind="limit", needs_broker=False),
        Rival(
            DECODE_SQLITE,
            "(d') decode and SQLite",
            "sqlite_only",
            kind="limit",
            arguments=("--decode",),
            needs_broker=False,
        ),
        Rival(PULL, "(e) bare pull and ack", "pull_only", kind="limit", writes=False),
    )
}


def drain_rivals() -> list[Rival]:
    """Return all that can run here: FastStream only where it is installed."""
    there = importlib.util.find_spec("faststream") is not None
    return [rival for rival in RIVALS.values() if there or rival.key != FRAMEWORK]
