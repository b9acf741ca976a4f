"""Compute the reap deadline, after which the fleet gives up a run that has not finished. Pure."""

from worker.codec.timestamps import LAST_INSTANT, NANOSECONDS, is_representable

LEAST_SLACK = 120 * NANOSECONDS
_LONGEST_SPAN = 365 * 86_400 * NANOSECONDS
_LARGEST_DURATION = (2**64 - 1) * NANOSECONDS + NANOSECONDS - 1


def deadline(recorded_at: int, timeout: int) -> int:
    """Return recorded_at + timeout + max(120 s, timeout / 2), all in nanoseconds.

    If timeout plus slack exceeds 64 bits of seconds, or the deadline would be after the year 9999,
    365 days are added instead. The result is at most the last instant of the year 9999.
    """
    span = timeout + max(LEAST_SLACK, timeout // 2)
    if span > _LARGEST_DURATION or not is_representable(recorded_at + span):
        span = _LONGEST_SPAN
    return min(recorded_at + span, LAST_INSTANT)
