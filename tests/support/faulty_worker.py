"""The worker's own `main` with one fault put into its process.

    python -m tests.support.faulty_worker FAULT ARGUMENT run …

What is replaced is the engine and the client library where that will do, so that the worker itself
runs as it is; a bug has to be put into the worker's own functions.
"""

import os
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from typing import Any

from worker.cli.main import main
from worker.jetstream.protocol import Wire

_ROOT = Path(__file__).parents[2]

# Where a bug can be: a module, a name in it, and which thread or task calls it.
BUGS = {
    "pool-thread": ("worker.processing.processor", "decode_start"),
    "arrival-of-a-message": ("worker.jetstream.pull", "read_delivery"),
    "manifest-watch": ("worker.jetstream.manifest_sync", "read_timeout"),
    "binding": ("worker.jetstream.pull_loop", "bind"),
    "settling": ("worker.jetstream.outstanding", "OutstandingMessages.settle"),
    "beginning-a-batch": ("worker.jetstream.outstanding", "OutstandingMessages.begin"),
}


def faulty(fault: str, argument: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment and the command of a worker with a fault."""
    command = (sys.executable, "-m", "tests.support.faulty_worker", fault, str(argument))
    return {"PYTHONPATH": str(_ROOT)}, command


class _Connection(sqlite3.Connection):
    """A connection that calls something before each BEGIN, and before and after each COMMIT."""

    before_begin: Callable[["_Connection"], None] = staticmethod(lambda _: None)
    before_commit: Callable[[], None] = staticmethod(lambda: None)
    after_commit: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # The comments of a statement come before it.
        verb = re.search(r"^(?:BEGIN|COMMIT)", sql, re.MULTILINE)
        if verb and verb[0] == "BEGIN":
            self.before_begin(self)
        if not verb or verb[0] != "COMMIT":
            return super().execute(sql, *values)
        self.before_commit()
        cursor = super().execute(sql, *values)
        self.after_commit()
        return cursor


def _limit_pages(file: str) -> None:
    """Let the database not grow beyond as many pages as stand in a file, as long as it is there."""

    def limit(connection: _Connection) -> None:
        try:
            pages = int(Path(file).read_text("ascii"))
        except FileNotFoundError:
            pages = 1_000_000_000
        connection.execute(f"PRAGMA max_page_count = {pages}")

    _Connection.before_begin = staticmethod(limit)
    _use_own_connection()


def _slow_commits(seconds: str) -> None:
    """Let each commit take some time more, as on a slow disk."""
    _Connection.before_commit = staticmethod(lambda: time.sleep(float(seconds)))
    _use_own_connection()


def _kill_before_commit(number: str) -> None:
    _Connection.before_commit = staticmethod(_killing_at(int(number)))
    _use_own_connection()


def _kill_after_commit(number: str) -> None:
    _Connection.after_commit = staticmethod(_killing_at(int(number)))
    _use_own_connection()


def _kill_after_ack(number: str) -> None:
    """End the process when an ack is in the client's buffer, and perhaps no further."""
    publish_all = Wire.publish_all
    kill = _killing_at(int(number))

    async def watched(self: Wire, messages: Iterable[tuple[str, bytes]]) -> None:
        messages = list(messages)
        await publish_all(self, messages)
        for _, payload in messages:
            if payload.startswith(b"+ACK"):
                kill()

    Wire.publish_all = watched  # type: ignore[method-assign]


def _killing_at(number: int) -> Callable[[], None]:
    calls = 0

    def kill() -> None:
        nonlocal calls
        calls += 1
        if calls == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _use_own_connection() -> None:
    connect = sqlite3.connect

    def own(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options, factory=_Connection)
        return connection

    sqlite3.connect = own  # type: ignore[assignment]


def _bug(place: str) -> None:
    """Let one function raise an error that nobody expects, once."""
    module_name, name = BUGS[place]
    owner: Any = import_module(module_name)
    *parents, name = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function = getattr(owner, name)
    lock = threading.Lock()
    raised: list[bool] = []

    def raises(*arguments: Any, **options: Any) -> Any:
        with lock:
            first = not raised
            raised.append(True)
        if first:
            raise ZeroDivisionError("the injected bug") from KeyError("behind the injected bug")
        return function(*arguments, **options)

    setattr(owner, name, raises)


FAULTS: dict[str, Callable[[str], None]] = {
    "page-limit": _limit_pages,
    "slow-commits": _slow_commits,
    "killed-before-commit": _kill_before_commit,
    "killed-after-commit": _kill_after_commit,
    "killed-after-ack": _kill_after_ack,
    "bug": _bug,
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]](sys.argv[2])
    sys.exit(main(sys.argv[3:]))
