"""The retry policy: transient faults soon again with jitter, everything else not at all."""

import threading
from collections.abc import Callable
from itertools import chain, repeat
from typing import NoReturn, TypeVar

import tenacity

from repo.errors import RowsHeld, TransientError
from repo.observer import NOBODY, Observer

_Result = TypeVar("_Result")


def retry_policy(
    retry_for: float, give_up: threading.Event | None = None, observer: Observer = NOBODY
) -> tenacity.Retrying:
    """Return a policy that tries for `retry_for` seconds, or until `give_up` is set.

    It raises the last TransientError itself then. The waits are random, up to 1 s, so that two
    workers that met once do not meet again.
    """
    give_up = give_up or threading.Event()
    return tenacity.Retrying(
        retry=tenacity.retry_if_exception(
            lambda error: isinstance(error, TransientError) and not isinstance(error, RowsHeld)
        ),
        wait=tenacity.wait_random_exponential(multiplier=0.02, max=1.0),
        stop=tenacity.stop_after_delay(retry_for) | tenacity.stop_when_event_set(give_up),
        sleep=tenacity.sleep_using_event(give_up),
        before_sleep=lambda _: observer.retrying(),
        reraise=True,
    )


def retrying(policy: tenacity.Retrying, work: Callable[[], _Result]) -> _Result:
    """Return what `work` returns, in the end; raises as the policy says."""

    def raise_first() -> NoReturn:
        raise first

    def attempt() -> _Result:
        return next(attempts)()

    # The first attempt by itself: the library costs as much as the statements of a small batch.
    try:
        return work()
    except TransientError as error:
        first = error
    attempts = chain([raise_first], repeat(work))
    result: _Result = policy(attempt)
    return result
