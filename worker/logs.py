"""Logs: one event a line, with fields. JSON for machines, a short text for a terminal."""

import logging
import sys
import threading
import time
from collections.abc import Hashable, Iterator
from typing import Any, TextIO

from pythonjsonlogger.json import JsonFormatter

from worker.codec.timestamps import NANOSECONDS, format_instant

JSON = "json"
TEXT = "text"
_MOST_KEYS = 10_000

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _StandardError(logging.StreamHandler[TextIO]):
    """Writes to whatever standard error is now: a progress bar stands in for it while it shows."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


class _Json(JsonFormatter):
    """The fields time, level, logger and event, and after them what the event tells."""

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
    """`12:00:00 INFO    batch.projected batch_size=3`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
        return "  ".join([super().formatMessage(record), *_pairs(fields)])


def _pairs(fields: dict[str, object], *, zeros: bool = True) -> Iterator[str]:
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from _pairs(value, zeros=False)  # of many counters, a reader wants what happened
        elif zeros or value != 0 or value is False:
            yield f"{name}={_shown(value)}"


def _shown(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    # A name from the stream may hold anything: it must not break out of its line or of the field.
    return text if text.isprintable() and " " not in text and text else ascii(text)


class Repeats:
    """Keeps one message from flooding the log: each key is due once in so many seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._told: dict[Hashable, float] = {}

    def due(self, key: Hashable) -> bool:
        """Tell whether a message should be logged now, and count it as logged if so."""
        now = time.monotonic()
        with self._lock:
            if now - self._told.get(key, -self._seconds) < self._seconds:
                return False
            if len(self._told) >= _MOST_KEYS:
                self._told.clear()  # keys come from the stream: memory stays bounded
            self._told[key] = now
            return True


def set_up_logging(level: str, form: str) -> None:
    """Send all logs of the process to standard error, in the form JSON or TEXT."""
    handler = _StandardError()
    handler.setFormatter(
        _Json("{created}{levelname}{name}{message}", style="{") if form == JSON else _Text()
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # These libraries tell at info and below what only their own developers want to know; what goes
    # wrong in them reaches us as an error or a callback.
    for library in ("nats", "asyncio", "yoyo"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
