"""What is measured: this worker, the worker of another checkout, rivals, and SQLite alone."""

import importlib.util
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from tests.bench.process import ROOT
from tests.bench.results import WORKER

PROJECTOR = Path(sys.executable).with_name("projector")
_GO_SOURCES = ROOT / "tests" / "bench" / "go"
_GO_PROGRAM = ROOT / ".bench" / "go" / "projector-rival"
_GO_BUILD_TIMEOUT = 900.0


class CannotBuild(Exception):
    """A program cannot be built on this machine; the message is one sentence that says why."""


@dataclass(frozen=True, slots=True)
class Contender:
    """A program to measure; `kind` is worker, rival or limit. A limit needs no broker.

    `projector` is the command that migrates its databases, and the program itself of a worker.
    `launcher` begins the command line of any other program, and `program` continues it.
    """

    title: str
    kind: str
    program: tuple[str, ...] = ()
    launcher: tuple[str, ...] = (sys.executable, "-m", "tests.bench.rivals")
    projector: Path = PROJECTOR

    def command(self, nats: str, database: Path, *, until_idle: bool = True) -> list[str]:
        """Return the command line that writes the backlog of the server to the database."""
        if self.kind == "worker":
            idle = ["--until-idle"] if until_idle else []
            places = ["--nats", nats, "--database", f"sqlite:///{database}"]
            return [str(self.projector), "run", *idle, *places]
        places = ["--nats", nats, "--database", str(database)]
        return [*self.launcher, *self.program, *places]


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


def go_rival() -> Contender:
    """Return the Go program, built if its sources have changed; raises CannotBuild.

    The first build downloads its two modules and compiles SQLite, which takes about a minute.
    """
    # Without a C compiler, go would build a program whose SQLite fails at its first use.
    environment = {**os.environ, "CGO_ENABLED": "1"}
    command = ["go", "build", "-buildvcs=false", "-o", str(_GO_PROGRAM), "."]
    try:
        subprocess.run(
            command,
            cwd=_GO_SOURCES,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_GO_BUILD_TIMEOUT,
            check=True,
        )
    except FileNotFoundError:
        raise CannotBuild("The Go program is left out: go is not on the PATH.") from None
    except subprocess.TimeoutExpired:
        raise CannotBuild("The Go program is left out: go build takes too long.") from None
    except subprocess.CalledProcessError as error:
        *_, reason = error.stderr.strip().splitlines() or [f"exit code {error.returncode}"]
        raise CannotBuild(f"The Go program is left out: go build fails: {reason}") from None
    return Contender("(f) Go, batches of up to 1000", "rival", launcher=(str(_GO_PROGRAM),))
