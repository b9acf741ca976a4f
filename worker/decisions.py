"""What is to become of a message: ack, or nak with a delay. Pure: no broker, no clock."""

from dataclasses import dataclass

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0


@dataclass(frozen=True, slots=True)
class Ack:
    """The message is committed, as a row or as a rejected event: never deliver it again."""


@dataclass(frozen=True, slots=True)
class Nak:
    """The message is not committed: deliver it again after `delay` seconds."""

    delay: float


Decision = Ack | Nak


def nak_delay(delivery: int, jitter: float) -> float:
    """Return the seconds until a message should come again, from how often it was delivered.

    Doubles from 1 s with each delivery up to 60 s. `jitter`, from 0 to 1, takes up to half of it
    away, so that messages that failed together do not all come back together.
    """
    doublings = min(max(delivery, 1) - 1, 10)
    return min(FIRST_DELAY * 2.0**doublings, LONGEST_DELAY) * (1.0 - jitter / 2.0)
