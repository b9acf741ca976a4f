"""The command line of the demo."""

import contextlib
import fcntl
import os
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import nats.errors
from rich.console import Console
from rich.text import Text

from tests.demo.process import ROOT, DemoFailed
from tests.demo.screen import Screen
from tests.demo.signals import Processes, Signals
from tests.demo.stay import Stay
from tests.demo.story import Story
from tests.support.nats_server import NatsServer

_LIMIT = 90
_FOLDER = ROOT / ".demo"
_AT_ONCE = 20


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--stay",
    is_flag=True,
    help="Keep broker, worker and a small fleet running until Ctrl-C, and print lines to try.",
)
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder for projector.db and worker.log, both of which are replaced "
    "[default: .demo in the checkout, or .demo/2 while another demo uses that].",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="Factor for the pauses between events; 0 plays as fast as possible. Not for --stay.",
)
def main(stay: bool, folder: Path | None, pace: float) -> None:
    """Play a small fleet against a real broker and the real worker, then show the tables.

    Uses the nats-server on the PATH, or NATS_SERVER, on a free port. Exits with 1 if any event is
    lost.
    """
    # A terminal that cannot print an arrow or a tick should not fail the demo.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(highlight=False)
    screen = Screen(console)
    signals = Signals(lambda line: screen.line(line, "yellow"), _LIMIT)
    try:
        with emptied(folder) as kept, Processes(signals) as processes:
            url = processes.start(running_server).url
            if stay:
                Stay(screen, kept, url, processes).play(signals.let_end)
            else:
                Story(screen, kept, url, processes, pace).play()
    except (DemoFailed, OSError, RuntimeError, sqlite3.Error, nats.errors.Error) as error:
        summary, *details = (str(error) or type(error).__name__).splitlines()
        console.print(Text(f"\nThe demo failed: {summary}", "bold red"))
        for line in details:
            console.print(Text(line))
        sys.exit(1)


@contextlib.contextmanager
def running_server() -> Iterator[NatsServer]:
    with tempfile.TemporaryDirectory(prefix="projector-demo-") as store:
        server = NatsServer(Path(store))
        try:
            yield server.start()
        finally:
            server.stop()


@contextlib.contextmanager
def emptied(folder: Path | None) -> Iterator[Path]:
    """Remove what an earlier demo left in a folder, and lock it against other demos.

    Without a folder this is the first of the checkout's that no other demo has locked.
    """
    others = [_FOLDER / str(number) for number in range(2, _AT_ONCE)]
    for candidate in [folder.resolve()] if folder else [_FOLDER, *others]:
        candidate.mkdir(parents=True, exist_ok=True)
        lock = os.open(candidate, os.O_RDONLY)
        try:
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _empty(candidate)
                yield candidate
                return
        finally:
            os.close(lock)
    raise DemoFailed(f"another demo is using {folder or _FOLDER}")


def _empty(folder: Path) -> None:
    log = folder / "worker.log"
    if (folder / "projector.db").exists() and not log.exists():
        raise DemoFailed(f"{folder}/projector.db was not created by a demo; remove it yourself")
    for name in ("projector.db", "projector.db-wal", "projector.db-shm"):
        (folder / name).unlink(missing_ok=True)
    log.write_text("")
