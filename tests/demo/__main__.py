"""`python -m tests.demo`: play the demo once, within a time limit, and leave nothing running."""

import contextlib
import fcntl
import os
import signal
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import nats.errors
from rich.console import Console
from rich.text import Text

from tests.demo.process import ROOT, DemoFailed
from tests.demo.story import Story
from tests.support.nats_server import NatsServer

_LIMIT = 90
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / ".demo",
    show_default="<checkout>/.demo",
    help="Folder for projector.db and the workers' log; both are replaced.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="Factor for the pauses between events; 0 plays as fast as possible.",
)
def main(folder: Path, pace: float) -> None:
    """Play a small fleet against a real broker and the real worker, then show the tables.

    Uses the nats-server on the PATH, or NATS_SERVER. Exits with 1 if any event is lost.
    """
    # A terminal that cannot print an arrow or a tick should not fail the demo.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(highlight=False)
    _exit_on_signals(console)
    try:
        with emptied(folder.resolve()) as kept, running_server() as server:
            Story(console, kept, server.url, pace).play()
    except (DemoFailed, OSError, RuntimeError, sqlite3.Error, nats.errors.Error) as error:
        summary, *details = (str(error) or type(error).__name__).splitlines()
        console.print(Text(f"\nThe demo failed: {summary}", "bold red"), soft_wrap=True)
        for line in details:
            console.print(Text(line), soft_wrap=True)
        sys.exit(1)


def _exit_on_signals(console: Console) -> None:
    """Exit at the first signal or when the time is up; ignore later ones during the clean-up."""

    def handle(number: int, _frame: FrameType | None) -> None:
        for other in _SIGNALS:
            signal.signal(other, signal.SIG_IGN)
        if number == signal.SIGALRM:
            console.print(f"\nThe demo failed: not finished after {_LIMIT} s", style="bold red")
            sys.exit(1)
        console.print(f"\n  {signal.Signals(number).name}: ending all processes", style="yellow")
        sys.exit(128 + number)

    for number in _SIGNALS:
        signal.signal(number, handle)
    signal.alarm(_LIMIT)


@contextlib.contextmanager
def running_server() -> Iterator[NatsServer]:
    with tempfile.TemporaryDirectory(prefix="projector-demo-") as store:
        server = NatsServer(Path(store)).start()
        try:
            yield server
        finally:
            server.stop()


@contextlib.contextmanager
def emptied(folder: Path) -> Iterator[Path]:
    """Remove what an earlier demo left in the folder, and lock it against other demos."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(f"another demo is using {folder}") from None
        log = folder / "worker.log"
        if (folder / "projector.db").exists() and not log.exists():
            raise DemoFailed(f"{folder}/projector.db was not created by a demo; remove it yourself")
        for name in ("projector.db", "projector.db-wal", "projector.db-shm"):
            (folder / name).unlink(missing_ok=True)
        log.write_text("")
        yield folder
    finally:
        os.close(lock)


if __name__ == "__main__":
    main()
