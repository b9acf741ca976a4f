"""Waiting for a condition, with a deadline. Nothing in the tests sleeps and hopes."""

import time
from collections.abc import Callable
from typing import TypeVar

_Value = TypeVar("_Value")
_PAUSE = 0.02
# Several tests share two slow cores; a condition that comes true costs no more for it.
_PATIENCE = 3


def eventually(
    condition: Callable[[], _Value],
    within: float,
    otherwise: Callable[[], str] = str,
) -> _Value:
    """Return the first true value of `condition`; raises AssertionError where none comes.

    `within` is how many seconds it takes at the most on a machine with nothing else to do.

    `otherwise` gives the text of that error, such as what a worker has logged so far.
    """
    deadline = time.monotonic() + within * _PATIENCE
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {within} s, last {value!r}\n{otherwise()}")
        time.sleep(_PAUSE)
    return value


def until(instant: float) -> None:
    """Return at an instant of the monotonic clock: for a fault's length, or a random moment."""
    time.sleep(max(0.0, instant - time.monotonic()))
