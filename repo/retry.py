"""The retry policy: passing faults soon again with jitter, everything else not at all."""

import threading

from tenacity import (
    Retrying,
    retry_if_exception_type,
    sleep_using_event,
    stop_after_delay,
    stop_when_event_set,
    wait_random_exponential,
)

from repo.errors import TransientError
from repo.observer import NOBODY, Observer


def retry_policy(
    retry_for: float, give_up: threading.Event, observer: Observer = NOBODY
) -> Retrying:
    """Return a policy that tries for `retry_for` seconds, or until `give_up` is set.

    It raises the last TransientError itself then. The waits are random, up to 1 s, so that two
    workers that met once do not meet again.
    """
    return Retrying(
        retry=retry_if_exception_type(TransientError),
        wait=wait_random_exponential(multiplier=0.02, max=1.0),
        stop=stop_after_delay(retry_for) | stop_when_event_set(give_up),
        sleep=sleep_using_event(give_up),
        before_sleep=lambda _: observer.retrying(),
        reraise=True,
    )
