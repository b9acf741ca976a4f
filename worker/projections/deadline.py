"""The reap deadline: the instant after which a run must be given up. Pure."""

from worker.codec.timestamps import LAST_INSTANT, NANOSECONDS, is_representable

LEAST_SLACK = 120 * NANOSECONDS
_LONGEST_SPAN = 365 * 86_400 * NANOSECONDS
_LARGEST_DURATION = (2**64 - 1) * NANOSECONDS + NANOSECONDS - 1


def deadline(recorded_at: int, timeout: int) -> int:
    """Return recorded_at + timeout + max(120 s, timeout / 2), all in nanoseconds.

    Where timeout plus slack is beyond 64 bits of seconds, or the instant would fall after the year
    9999, the span is 365 days, and the instant at most the last one that has a text.
    """
    span = timeout + max(LEAST_SLACK, timeout // 2)
    if span > _LARGEST_DURATION or not is_representable(recorded_at + span):
        span = _LONGEST_SPAN
    return min(recorded_at + span, LAST_INSTANT)
