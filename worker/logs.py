"""Set up logging: one event with fields per line, as JSON or as short text for a terminal."""

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
_MAX_KEYS = 10_000

_OWN_FIELDS = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class _StandardError(logging.StreamHandler[TextIO]):
    """Look up `sys.stderr` for every record, because a progress bar replaces it temporarily."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        return sys.stderr


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
    """Format a record as `12:00:00 INFO    batch.projected  batch_size=3`."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 (the base class's name)
        fields = {name: value for name, value in record.__dict__.items() if name not in _OWN_FIELDS}
        return "  ".join([super().formatMessage(record), *_pairs(fields)])


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


def set_up_logging(level: str, form: str) -> None:
    """Send all logs of the process to standard error; `form` is JSON or TEXT."""
    handler = _StandardError()
    handler.setFormatter(
        _Json("{created}{levelname}{name}{message}", style="{") if form == JSON else _Text()
    )
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.captureWarnings(True)
    # At info and below these libraries log only internals. Their failures reach the worker as
    # exceptions or callbacks.
    for library in ("nats", "asyncio", "yoyo"):
        logging.getLogger(library).setLevel(max(logging.WARNING, logging.root.level))
