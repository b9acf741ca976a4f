"""The set-up of the log, undone: with the level of a command, a later test would see no warning."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_logging() -> Iterator[None]:
    """Put handlers and levels back at the end."""
    loggers = [logging.getLogger(name) for name in ("", "nats", "asyncio", "yoyo")]
    handlers, levels = logging.root.handlers[:], [each.level for each in loggers]
    try:
        yield
    finally:
        logging.root.handlers[:] = handlers
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
        logging.captureWarnings(False)
