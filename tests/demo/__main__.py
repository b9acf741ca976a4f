"""`python -m tests.demo`: one run of the demo, bounded in time, that leaves nothing running."""

import asyncio
import contextlib
import fcntl
import os
import signal
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
from tests.demo.story import Story
from tests.support.nats_server import NatsServer

_LIMIT = 90.0
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    default=ROOT / ".demo",
    show_default="<checkout>/.demo",
    help="Where to keep the database, projector.db, and the workers' log; both are made anew.",
)
@click.option(
    "--pace",
    type=click.FloatRange(0, 2),
    default=1.0,
    show_default=True,
    help="A factor for the pauses between events; 0 plays as fast as it goes.",
)
def main(folder: Path, pace: float) -> None:
    """Play a small fleet against a real broker and the real worker, and show the tables.

    NATS_SERVER names the nats-server to use, else the PATH does. Exit 1 if anything is lost.
    """
    # A terminal that lacks an arrow or a tick is no reason to fail.
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="replace")  # type: ignore[union-attr]
    console = Console(highlight=False)
    try:
        with made_anew(folder.resolve()) as kept:
            code = asyncio.run(perform(Screen(console), kept, pace))
    except (DemoFailed, OSError, RuntimeError, sqlite3.Error, nats.errors.Error) as error:
        summary, *details = (str(error) or type(error).__name__).splitlines()
        console.print(Text(f"\nThe demo failed: {summary}", "bold red"), soft_wrap=True)
        for line in details:
            console.print(Text(line), soft_wrap=True)
        code = 1
    sys.exit(code)


@contextlib.contextmanager
def made_anew(folder: Path) -> Iterator[Path]:
    """Empty the folder of what an earlier demo left, and keep other demos out of it."""
    folder.mkdir(parents=True, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DemoFailed(f"another demo is using {folder}") from None
        log = folder / "worker.log"
        if (folder / "projector.db").exists() and not log.exists():
            raise DemoFailed(f"{folder}/projector.db was not made by a demo; it is left as it is")
        for name in ("projector.db", "projector.db-wal", "projector.db-shm"):
            (folder / name).unlink(missing_ok=True)
        log.write_text("")
        yield folder
    finally:
        os.close(lock)


async def perform(screen: Screen, folder: Path, pace: float) -> int:
    """Run the story; returns the exit code, and leaves no process and no temporary file."""
    received = _cancel_on_signals()
    try:
        async with asyncio.timeout(_LIMIT) as limit:
            with tempfile.TemporaryDirectory(prefix="projector-demo-") as store:
                server = NatsServer(Path(store))
                try:
                    await Story(screen, folder, server.start(), pace).tell()
                finally:
                    server.stop()
    except BaseException as error:
        if received:  # whatever it was, it followed from the signal
            name = signal.Signals(received[0]).name
            screen.say(f"Stopped by {name}; nothing is left running.", "bold yellow")
            return 128 + received[0]
        if isinstance(error, TimeoutError) and limit.expired():
            raise DemoFailed(f"not finished after {_LIMIT:.0f} s") from error
        raise
    return 0


def _cancel_on_signals() -> list[int]:
    """Cancel the calling task at the first signal; further ones do not disturb the cleaning up."""
    received: list[int] = []
    task = asyncio.current_task()
    assert task is not None

    def handle(number: int) -> None:
        if not received:
            task.cancel()
        received.append(number)

    loop = asyncio.get_running_loop()
    for number in _SIGNALS:
        loop.add_signal_handler(number, handle, number)
    return received


if __name__ == "__main__":
    main()
