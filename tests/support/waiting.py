"""Wait for a condition with a deadline. No test sleeps and hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")
_PAUSE = 0.02
# Several tests share two slow cores, and a longer deadline costs nothing where a test passes.
_PATIENCE = 3


def eventually(
    condition: Callable[[], _Value | None], within: float, otherwise: Callable[[], str] = str
) -> _Value:
    """Return the first true value of `condition`; raise AssertionError where none comes.

    `within` is the longest time in seconds on an idle machine. `otherwise` returns what the error
    shows, such as a worker's log.
    """
    deadline = time.monotonic() + within * _PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s, last {value!r}\n{otherwise()}")
        time.sleep(_PAUSE)
    return value


def until(instant: float) -> None:
    """Return at an instant of the monotonic clock: the end of a fault, or a random moment."""
    time.sleep(max(0.0, instant - time.monotonic()))
