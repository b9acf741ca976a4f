"""Compute the reap deadline, after which the fleet gives up a run that has not finished. Pure."""

from worker.codec.timestamps import LAST_INSTANT, NANOSECONDS, is_representable

LEAST_SLACK = 120 * NANOSECONDS
_LONGEST_SPAN = 365 * 86_400 * NANOSECONDS


def deadline(stored_at: int, timeout: int) -> int:
    """Return stored_at + timeout + max(120 s, timeout / 2), all in nanoseconds.

    If that is after the year 9999, as it is for any timeout near the limit of 64 bits of seconds,
    365 days are added instead. The result is at most the last instant of the year 9999.
    """
    span = timeout + max(LEAST_SLACK, timeout // 2)
    if not is_representable(stored_at + span):
        span = _LONGEST_SPAN
    return min(stored_at + span, LAST_INSTANT)
