"""What is measured: this worker, the worker of another checkout, rivals, and SQLite alone."""

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench.results import WORKER

PROJECTOR = Path(sys.executable).with_name("projector")


@dataclass(frozen=True, slots=True)
class Contender:
    """A program to measure; `kind` is worker, rival or limit. A limit needs no broker.

    `projector` is the command that migrates its databases, and the program itself of a worker.
    """

    title: str
    kind: str
    program: tuple[str, ...] = ()
    projector: Path = PROJECTOR

    def command(self, nats: str, database: Path, *, until_idle: bool = True) -> list[str]:
        """Return the command line that writes the backlog of the server to the database."""
        if self.kind == "worker":
            idle = ["--until-idle"] if until_idle else []
            places = ["--nats", nats, "--database", f"sqlite:///{database}"]
            return [str(self.projector), "run", *idle, *places]
        places = ["--nats", nats, "--database", str(database)]
        return [sys.executable, "-m", "tests.bench.rivals", *self.program, *places]


THIS_WORKER = Contender(WORKER, "worker")
FASTSTREAM = Contender("(c) FastStream, batches of 100", "rival", ("faststream",))


def other_worker(checkout: Path) -> Contender:
    """Return the worker of another checkout; raises UsageError if it has no .venv of its own."""
    projector = checkout / ".venv" / "bin" / "projector"
    if not projector.exists():
        raise click.UsageError(f"{projector} does not exist; run scripts/setup in {checkout}")
    return Contender(f"the worker in {checkout.name}", "worker", projector=projector)


def rivals() -> list[Contender]:
    """Return the rivals and limits that can run here; FastStream may not be installed."""
    return [
        Contender("(a) serial loop", "rival", ("fetch", "--batch", "1")),
        Contender("(b) fetch(100), one transaction", "rival", ("fetch", "--batch", "100")),
        *([FASTSTREAM] if importlib.util.find_spec("faststream") else []),
        Contender("(d) SQLite alone", "limit", ("sqlite",)),
        Contender("(e) decode, then SQLite", "limit", ("sqlite", "--decode")),
    ]
