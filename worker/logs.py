"""Set up logging: one event with fields per line, as JSON or as short text for a terminal."""

import contextlib
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from io import TextIOWrapper
from typing import Any, NamedTuple, TextIO

from pythonjsonlogger.json import JsonFormatter

from worker.codec.timestamps import NANOSECONDS, format_instant

JSON = "json"
TEXT = "text"
_MAX_KEYS = 10_000
_MOST_GROUPS = 100
_OTHERS = object()
_MOST_QUEUED = 10_000
MOST_PROBLEMS = 3
_LONGEST_ERROR = 200
_FLUSH_TIMEOUT = 1.0
_TICK = 0.01

_PRIORITIES = (
    (logging.CRITICAL, "<2>"),
    (logging.ERROR, "<3>"),
    (logging.WARNING, "<4>"),
    (logging.INFO, "<6>"),
    (0, "<7>"),
)
_LIBRARIES = {"nats": logging.WARNING, "asyncio": logging.ERROR, "yoyo": logging.WARNING}
_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _StandardError(logging.StreamHandler[TextIO]):
    """Look up `sys.stderr` for every record, because a progress bar replaces it temporarily."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Background(logging.Handler):
    """Write from a thread of its own: standard error that is not read must block no other thread.

    A line that finds the queue full is dropped and counted, and so is one that cannot be written.
    """

    def __init__(
        self, form: logging.Formatter | None, count_dropped: Callable[[int], None]
    ) -> None:
        super().__init__()
        self.setFormatter(form)
        self._count_dropped = count_dropped
        self._dropped = self._reported = 0
        self._counting = threading.Lock()
        self._lines: queue.Queue[str] = queue.Queue(_MOST_QUEUED)
        threading.Thread(target=self._run, name="log", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self._lines.put_nowait(self.format(record) + "\n")
        except queue.Full:
            self._drop(1)
        except Exception:  # noqa: BLE001 (as every handler does: an event must not end its thread)
            self.handleError(record)

    def flush(self) -> None:
        """Wait until every line is written, for a second at most."""
        # Polls, because a signal handler may come in while this thread is in any lock.
        deadline = time.monotonic() + _FLUSH_TIMEOUT
        while self._lines.unfinished_tasks and time.monotonic() < deadline:
            time.sleep(_TICK)

    def _drop(self, lines: int) -> None:
        with self._counting:
            self._dropped += lines
        self._count_dropped(lines)

    def _run(self) -> None:
        while True:
            lines = [self._lines.get()]
            with contextlib.suppress(queue.Empty):
                while len(lines) < _MOST_QUEUED:
                    lines.append(self._lines.get_nowait())
            try:
                _write("".join(lines))
                self._report_dropped()
            except Exception:  # noqa: BLE001 (such as a reader that is gone, or a full disk)
                self._drop(len(lines))
            for _ in lines:
                self._lines.task_done()

    def _report_dropped(self) -> None:
        dropped = self._dropped
        if dropped > self._reported:
            fields = {"name": __name__, "levelno": logging.WARNING, "levelname": "WARNING"}
            lines = dropped - self._reported
            record = logging.makeLogRecord({**fields, "msg": "log.dropped", "lines": lines})
            _write(self.format(record) + "\n")
            self._reported = dropped


def _write(text: str) -> None:
    """Write to standard error, around its buffer: the exit would wait for a lock on that."""
    stream = sys.stderr
    if stream is None:
        raise ValueError("standard error is closed")
    if not isinstance(stream, TextIOWrapper):  # that of a progress bar
        stream.write(text)
        stream.flush()
        return
    descriptor, data = stream.fileno(), memoryview(text.encode(stream.encoding, "backslashreplace"))
    while data:
        try:
            data = data[os.write(descriptor, data) :]
        except BlockingIOError:  # another program has made it non-blocking
            select.select([], [descriptor], [])


class Problem(NamedTuple):
    """A warning or an error that was logged: when (stored text), its level, event and cause."""

    at: str
    level: str
    event: str
    error: str


class RecentProblems(logging.Handler):
    """Keeps the last warnings and errors; any thread may read `problems`, oldest first."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.problems: tuple[Problem, ...] = ()

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a record; the lock of the handler is held."""
        cause = getattr(record, "error", None) or getattr(record, "reason", "")
        error = str(cause)[:_LONGEST_ERROR]
        at = format_instant(int(record.created) * NANOSECONDS)
        problem = Problem(at, record.levelname.lower(), record.getMessage(), error)
        self.problems = (*self.problems[1 - MOST_PROBLEMS :], problem)


class _Json(JsonFormatter):
    """Put time, level, logger and event first, then the event's own fields."""

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        created = log_data.pop("created")
        return {
            "time": format_instant(int(created * 1000) * (NANOSECONDS // 1000)),
            "level": log_data.pop("levelname").lower(),
            "logger": log_data.pop("name"),
            "event": log_data.pop("message"),
            **log_data,
        }


class _Text(logging.Formatter):
    """Format a record as `2026-05-20T12:00:00Z INFO    batch.projected  batch_size=3`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%dT%H:%M:%SZ")
        self.converter = time.gmtime  # what the Z says

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
        return "  ".join([super().formatMessage(record), *_pairs(fields)])


class _Journal(logging.Formatter):
    """Begin each line with its level as sd-daemon(3) has it, for `journalctl -p`."""

    def __init__(self, form: logging.Formatter) -> None:
        super().__init__()
        self._form = form

    def format(self, record: logging.LogRecord) -> str:
        mark = next(mark for level, mark in _PRIORITIES if record.levelno >= level)
        return "\n".join(f"{mark}{line}" for line in self._form.format(record).split("\n"))


def _is_read_by_journal() -> bool:
    """Return whether standard error is the journal's, which names its device and inode."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (AttributeError, OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def _pairs(fields: dict[str, object], *, zeros: bool = True) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _pairs(value, zeros=False)  # of many counters, only those that counted
        elif zeros or value != 0 or value is False:
            yield f"{name}={_plain(value)}"


def _plain(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # Text from the stream could otherwise forge a second line or another field.
    return text if text.isprintable() and " " not in text and text else ascii(text)


class Repeats:
    """Limit repeated log events: each key is due once per `seconds`. Thread-safe."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._logged_at: dict[Hashable, float] = {}

    def due(self, key: Hashable) -> bool:
        """Return whether to log the event of this key now; True starts its interval."""
        now = time.monotonic()
        with self._lock:
            if now - self._logged_at.get(key, -self._seconds) < self._seconds:
                return False
            if len(self._logged_at) >= _MAX_KEYS:
                self._logged_at.clear()  # keys come from the stream: bound the memory
            self._logged_at[key] = now
            return True


Group = tuple[int, dict[str, Any]]
"""How many events of one key there were, and the fields of the first of them."""


class Grouped:
    """Count log events by key, so that each key is logged once per `seconds`. Thread-safe.

    Keys come from the stream: above `most` of them in that time, all others are one.
    """

    def __init__(self, seconds: float, most: int = _MOST_GROUPS) -> None:
        self._seconds = seconds
        self._most = most
        self._lock = threading.Lock()
        self._logged_at: dict[Hashable, float] = {}
        self._held: dict[Hashable, Group] = {}

    def add(self, key: Hashable, count: int, fields: dict[str, Any]) -> None:
        """Add events; they wait until `due` returns them."""
        with self._lock:
            if key not in self._held and key not in self._logged_at and not self._has_room():
                key = _OTHERS
            before, first = self._held.get(key, (0, fields))
            self._held[key] = before + count, first

    def due(self, *, at_end: bool = False) -> list[Group]:
        """Return what to log now: the keys not logged for so long, or all at the end."""
        now = time.monotonic()
        with self._lock:
            keys = [key for key in self._held if at_end or self._is_due(key, now)]
            self._logged_at |= dict.fromkeys(keys, now)
            return [self._held.pop(key) for key in keys]

    def _has_room(self) -> bool:
        now = time.monotonic()
        self._logged_at = {
            key: at for key, at in self._logged_at.items() if not self._is_due(key, now)
        }
        return len(self._logged_at.keys() | self._held.keys()) < self._most

    def _is_due(self, key: Hashable, now: float) -> bool:
        return now - self._logged_at.get(key, -self._seconds) >= self._seconds


def set_up_logging(level: str, form: str) -> None:
    """Send all logs of the process to standard error; `form` is JSON or TEXT."""
    handler = _StandardError()
    formatter: logging.Formatter = (
        _Json("{created}{levelname}{name}{message}", style="{") if form == JSON else _Text()
    )
    handler.setFormatter(_Journal(formatter) if _is_read_by_journal() else formatter)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # Below these levels the libraries log only internals; asyncio warns at the end of each TLS
    # connection of how the client library reads. Their failures reach the worker as exceptions or
    # callbacks.
    for library, lowest in _LIBRARIES.items():
        logging.getLogger(library).setLevel(max(lowest, logging.root.level))


def log_in_background(count_dropped: Callable[[int], None]) -> None:
    """Let a thread of its own write the log; `count_dropped` gets how many lines were dropped.

    The last lines are written when the process ends; a reader that hangs delays that by a second.
    """
    for handler in logging.root.handlers[:]:
        if isinstance(handler, _StandardError):
            logging.root.addHandler(_Background(handler.formatter, count_dropped))
            logging.root.removeHandler(handler)
