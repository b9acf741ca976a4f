"""Signals end the demo at any moment, and with it every process that it has started."""

import contextlib
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from types import FrameType
from typing import TypeVar

_Started = TypeVar("_Started")
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)


class Signals:
    """Turns the first signal into SystemExit, and ignores later ones during the clean-up.

    `limit` is the number of seconds after which the demo has failed. `report` prints a line.
    """

    def __init__(self, report: Callable[[str], None], limit: int) -> None:
        self._report = report
        self._limit = limit
        self._is_deferred = self._may_end = False
        self._waiting = 0
        for number in _SIGNALS:
            signal.signal(number, self._handle)
        signal.alarm(limit)

    def let_end(self) -> None:
        """From now on there is no limit, and Ctrl-C or SIGTERM is success."""
        signal.alarm(0)
        self._may_end = True

    def ignore(self) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        """Let a signal wait: between a fork and its result, SystemExit would leave a process."""
        self._is_deferred = True
        try:
            yield
        finally:
            self._is_deferred = False
            # Also if the start failed: Ctrl-C in a terminal reaches the process that starts, too.
            if self._waiting:
                self._leave(self._waiting)

    def _handle(self, number: int, _frame: FrameType | None) -> None:
        if self._is_deferred:
            self._waiting = number
        else:
            self._leave(number)

    def _leave(self, number: int) -> None:
        self.ignore()
        if number == signal.SIGALRM:
            self._report(f"\nThe demo failed: not finished after {self._limit} s")
            sys.exit(1)
        self._report(f"\n  {signal.Signals(number).name}: ending all processes")
        is_success = self._may_end and number in (signal.SIGINT, signal.SIGTERM)
        sys.exit(0 if is_success else 128 + number)


class Processes:
    """The processes of a demo; `with` ends them, the last one first."""

    def __init__(self, signals: Signals) -> None:
        self._signals = signals
        self._stack = ExitStack()

    def __enter__(self) -> "Processes":
        return self

    def __exit__(self, *_: object) -> None:
        self._signals.ignore()
        self._stack.close()

    def start(self, make: Callable[[], AbstractContextManager[_Started]]) -> _Started:
        """Start what `make` returns, and end it with the demo."""
        with self._signals.deferred():
            return self._stack.enter_context(make())
