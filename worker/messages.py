"""The frozen values that cross between the broker thread and the pool. No broker objects here."""

import re
from dataclasses import dataclass
from typing import NamedTuple

from worker.codec.timestamps import is_representable
from worker.decisions import Decision


class Message(NamedTuple):
    """One message of the stream, as much of it as the projection may know.

    `recorded_at` is the instant at which the broker stored it, in nanoseconds since 1970;
    `delivery` counts from 1.
    """

    subject: str
    payload: bytes
    stream_sequence: int
    delivery: int
    recorded_at: int


_NUMBERS = r"\.([0-9]{1,20})" * 4
_ACK_REPLY = re.compile(rf"\$JS\.ACK(?:\.[^.]*){{2}}{_NUMBERS}\.[^.]*")
_ACK_REPLY_WITH_DOMAIN = re.compile(rf"\$JS\.ACK(?:\.[^.]*){{4}}{_NUMBERS}\..*", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Position:
    """How far the consumer was known to be when a batch began.

    `stream_created_at` is stored text; every start at or below the stream sequence `floor` is
    settled, and so committed.
    """

    stream_created_at: str
    floor: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are projected in one transaction, in the order of their arrival.

    `position` is None for messages of a stream that is no more.
    """

    number: int
    messages: tuple[Message, ...]
    position: Position | None = None


@dataclass(frozen=True, slots=True)
class Decisions:
    """What is to become of each message of a batch, in the batch's order.

    `fault` is why the database cannot take any batch just now, or empty.
    """

    batch: Batch
    decisions: tuple[Decision, ...]
    fault: str = ""


class Delivery(NamedTuple):
    """What the broker's reply subject tells of a message.

    The consumer numbers its deliveries by `consumer_sequence`, from 1, redeliveries included.
    """

    delivery: int
    stream_sequence: int
    consumer_sequence: int
    recorded_at: int


def read_delivery(reply: str) -> Delivery | None:
    """Return what a JetStream reply subject tells; None if it is not one.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>` has 9
    tokens; the form with a domain and an account hash after `$JS.ACK` has 11 or more. The time is
    exact here; the client library's own timestamp goes through a float.
    """
    match = _ACK_REPLY.fullmatch(reply) or _ACK_REPLY_WITH_DOMAIN.fullmatch(reply)
    if match is None:
        return None
    delivery, stream_sequence, consumer_sequence, recorded_at = map(int, match.groups())
    if not is_representable(recorded_at):
        return None
    return Delivery(delivery, stream_sequence, consumer_sequence, recorded_at)
