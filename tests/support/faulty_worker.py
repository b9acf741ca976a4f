"""The worker's own `main` with one fault in its process.

    python -m tests.support.faulty_worker FAULT ARGUMENT run …

Most faults are put into the drivers and the client library, so that the worker runs unchanged.
PLACES lists every name of the worker itself that the tests patch, but for the delays of output.
"""

import itertools
import os
import re
import signal
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import psycopg
from nats.aio.transport import TcpTransport

from worker.cli.main import main
from worker.jetstream import outputs
from worker.status import history

_ROOT = Path(__file__).parents[2]

# Where a bug is raised or a thread hangs: a module and a name in it.
PLACES = {
    "decode in a pool thread": ("worker.codec.jsontext", "TextScanner.scan"),
    "batch in a pool thread": ("worker.processing.processor", "BatchProcessor.process"),
    "message arrives": ("worker.jetstream.outstanding", "OutstandingMessages.arrive"),
    "batch begins": ("worker.jetstream.outstanding", "OutstandingMessages.next_batch"),
    "batch is acked": ("worker.jetstream.outstanding", "OutstandingMessages.finish"),
    "reply subject is read": ("worker.jetstream.pull", "read_delivery"),
    "consumer is bound": ("worker.jetstream.consumer", "Consumer.bind"),
    "manifest is read": ("worker.jetstream.bucket", "read_timeout"),
}
# The same, where only results get.
PLACES_OF_RESULTS = {
    "starts are awaited": ("worker.jetstream.starts_first", "StartsFirst.catch_up"),
    "output is fetched": ("worker.jetstream.outputs", "read_object"),
}
# The same, in the threads of the page for the browser.
PLACES_OF_PAGE = {
    "history is sampled": ("worker.status.history", "History.record"),
    "page reads the database": ("worker.observability.overview", "read_tables"),
}


def faulty(fault: str, argument: object) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return the environment and the command of a worker with a fault."""
    command = (sys.executable, "-m", "tests.support.faulty_worker", fault, str(argument))
    return {"PYTHONPATH": str(_ROOT)}, command


class _Connection(sqlite3.Connection):
    """A connection with hooks before each BEGIN, and before and after each COMMIT."""

    before_begin: Callable[["_Connection"], None] = staticmethod(lambda _: None)
    before_commit: Callable[[], None] = staticmethod(lambda: None)
    after_commit: Callable[[], None] = staticmethod(lambda: None)

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        # A statement may begin with comments.
        verb = re.search(r"^(?:BEGIN|COMMIT)", sql, re.MULTILINE)
        if verb and verb[0] == "BEGIN":
            self.before_begin(self)
        if not verb or verb[0] != "COMMIT":
            return super().execute(sql, *values)
        self.before_commit()
        cursor = super().execute(sql, *values)
        self.after_commit()
        return cursor


def _use_own_connection(**hooks: Callable[..., None]) -> None:
    connect = sqlite3.connect

    def own(*arguments: Any, **options: Any) -> sqlite3.Connection:
        connection: sqlite3.Connection = connect(*arguments, **options, factory=_Connection)
        return connection

    for name, hook in hooks.items():
        setattr(_Connection, name, staticmethod(hook))
    sqlite3.connect = own  # type: ignore[assignment]
    execute = psycopg.Connection.execute

    def hooked(self: Any, query: Any, *arguments: Any, **options: Any) -> Any:
        name = str(query).removeprefix("/* ").partition(" ")[0]
        if name == "begin_write":
            _Connection.before_begin(self)
        if name != "commit":
            return execute(self, query, *arguments, **options)
        _Connection.before_commit()
        cursor = execute(self, query, *arguments, **options)
        _Connection.after_commit()
        return cursor

    psycopg.Connection.execute = hooked  # type: ignore[method-assign]


def _limit_pages(file: str) -> None:
    """Limit the database to the number of pages in a file, as long as the file exists."""

    def limit(connection: _Connection) -> None:
        try:
            pages = int(Path(file).read_text("ascii"))
        except FileNotFoundError:
            pages = 1_000_000_000
        connection.execute(f"PRAGMA max_page_count = {pages}")

    _use_own_connection(before_begin=limit)


def _run_slow_statement(rows: str) -> None:
    """Run a statement that counts so many rows before each transaction."""
    numbers = "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers LIMIT ?)"
    count = f"{numbers} SELECT count(*) FROM numbers"
    _use_own_connection(before_begin=lambda connection: connection.execute(count, (int(rows),)))


def _shift_clock(seconds: str) -> None:
    """Let the machine's clock be wrong; its monotonic clock is not."""
    now, now_ns = time.time, time.time_ns
    time.time = lambda: now() + float(seconds)
    time.time_ns = lambda: now_ns() + round(float(seconds) * 1e9)


def _shorten_delays_of_output(factor: str) -> None:
    """Shorten the delays between the deliveries of a result whose output cannot be fetched."""
    for name in ("_FIRST_DELAY", "_LONGEST_DELAY"):
        setattr(outputs, name, getattr(outputs, name) * float(factor))


def _sample_often(seconds: str) -> None:
    """Take the samples of the page's charts at shorter intervals."""
    history.EVERY = float(seconds)


def _wait_while(file: str) -> None:
    """Hang in every commit while a file exists, as a frozen disk does."""

    def wait() -> None:
        while Path(file).exists():
            time.sleep(0.05)

    _use_own_connection(before_commit=wait)


def _kill_after_ack(number: str) -> None:
    """End the process when acks have been written to the socket, and perhaps got no further."""
    kill = _killing_at(int(number))

    def watched(write: Any) -> Callable[..., None]:
        def write_and_count(transport: TcpTransport, payload: bytes | list[bytes]) -> None:
            write(transport, payload)
            written = payload if isinstance(payload, bytes) else b"".join(payload)
            for _ in range(written.count(b"+ACK")):
                kill()

        return write_and_count

    for name in ("write", "writelines"):
        setattr(TcpTransport, name, watched(getattr(TcpTransport, name)))


def _killing_at(number: int) -> Callable[[], None]:
    calls = itertools.count(1)

    def kill() -> None:
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    return kill


def _raise_once(place: str) -> None:
    """Raise an unexpected error at the first call of one function."""
    raised = threading.Lock()

    def raise_() -> None:
        if raised.acquire(blocking=False):
            raise ZeroDivisionError("the injected bug") from KeyError("behind the injected bug")

    _call_before(place, raise_)


def _call_before(place: str, call: Callable[[], None]) -> None:
    module_name, name = {**PLACES, **PLACES_OF_RESULTS, **PLACES_OF_PAGE}[place]
    owner: Any = import_module(module_name)
    *parents, name = name.split(".")
    for parent in parents:
        owner = getattr(owner, parent)
    function = getattr(owner, name)

    def patched(*arguments: Any, **options: Any) -> Any:
        call()
        return function(*arguments, **options)

    setattr(owner, name, patched)


FAULTS: dict[str, Callable[[str], None]] = {
    "page-limit": _limit_pages,
    "slow-statement": _run_slow_statement,
    "slow-commits": lambda s: _use_own_connection(before_commit=lambda: time.sleep(float(s))),
    "wrong-clock": _shift_clock,
    "fast-history": _sample_often,
    "short-delays": _shorten_delays_of_output,
    "frozen-disk": _wait_while,
    "killed-before-commit": lambda n: _use_own_connection(before_commit=_killing_at(int(n))),
    "killed-after-commit": lambda n: _use_own_connection(after_commit=_killing_at(int(n))),
    "killed-after-ack": _kill_after_ack,
    "bug": _raise_once,
    "hang": lambda place: _call_before(place, lambda: time.sleep(3600)),
}

if __name__ == "__main__":
    FAULTS[sys.argv[1]](sys.argv[2])
    sys.exit(main(sys.argv[3:]))
