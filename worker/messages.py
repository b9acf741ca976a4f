"""The frozen values that cross between the consumer thread and the pool. No NATS objects here."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

_MARKER = "Nats-Marker-Reason"
FIRST_NAK_DELAY = 1.0
LONGEST_NAK_DELAY = 60.0


# Above every instant of a message.
ALWAYS = 2**64

# Stands for output that is in the object store, where nobody needs it.
NOT_FETCHED = "(in the object store)"


class Output(NamedTuple):
    """What the object store held of a run's output; None where the member's own text counts."""

    stdout: str | None = None
    stderr: str | None = None


class Message(NamedTuple):
    """One message of the stream, as much of it as a projection needs.

    `stored_at` is when the broker stored it, in nanoseconds since 1970; `delivery` counts from 1.
    `is_marker` is set for the server's own note that a message expired, which is no event.
    `output` is None until what the message names in the object store was fetched.
    """

    subject: str
    payload: bytes
    stream_sequence: int
    delivery: int
    stored_at: int
    is_marker: bool = False
    output: Output | None = None


@dataclass(frozen=True, slots=True)
class Ack:
    """The message is committed, as a row or as a rejected event: never deliver it again."""


@dataclass(frozen=True, slots=True)
class Nak:
    """The message is not committed: deliver it again after `delay` seconds."""

    delay: float


@dataclass(frozen=True, slots=True)
class Fetch:
    """The message is not committed: fetch these objects first, by their keys, and come again.

    Without keys it waits only for the messages of the same `run` that are fetched for before it.
    """

    stdout: str | None
    stderr: str | None
    run: str = ""

    @property
    def is_needed(self) -> bool:
        """Whether there is anything to fetch."""
        return self.stdout is not None or self.stderr is not None


@dataclass(frozen=True, slots=True)
class Wait:
    """The message is not committed: what has to be projected before it may come yet."""


Decision = Ack | Nak | Fetch | Wait


def nak_delay(delivery: int, jitter: float) -> float:
    """Return the seconds until a message should be delivered again.

    Doubles from 1 s with each delivery up to 60 s. `jitter`, from 0 to 1, takes up to half of it
    away, so that messages that failed together do not all come back together.
    """
    doublings = min(max(delivery, 1) - 1, 10)
    return min(FIRST_NAK_DELAY * 2.0**doublings, LONGEST_NAK_DELAY) * (1.0 - jitter / 2.0)


@dataclass(frozen=True, slots=True)
class StreamPosition:
    """Where the projection was when a batch was dispatched.

    `stream_created_at` is stored text; once the batch is committed, every message at or below the
    stream sequence `caught_up_to` is in the database.
    """

    stream_created_at: str
    caught_up_to: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages that are written in one transaction, in the order of their arrival.

    `number` counts from 1; when the batch was made, the batches up to `after` had their results.
    `position` is None for messages of a stream that was deleted meanwhile. What has to be projected
    before messages that the broker stored up to the instant `ready_until` is projected. `fetching`
    are the runs that earlier messages are fetched for.
    """

    number: int
    messages: tuple[Message, ...]
    position: StreamPosition | None = None
    ready_until: int = ALWAYS
    after: int = 0
    fetching: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class BatchResult:
    """The decision for each message of a batch, in the batch's order.

    `failure` is why the database takes no batch at present, or None. `left` is how many messages
    are not committed, since they need something first.
    """

    batch: Batch
    decisions: tuple[Decision, ...]
    failure: str | None = None
    left: int = 0

    @property
    def are_all_acks(self) -> bool:
        """Whether every message is committed."""
        return self.left == 0 and self.failure is None


def is_marker(payload: bytes, headers: Mapping[str, str] | None) -> bool:
    """Return whether a server (2.11 and newer) stored this to mark an expired message."""
    return not payload and headers is not None and _MARKER in headers


class Delivery(NamedTuple):
    """What the reply subject of a message says.

    A consumer numbers its deliveries by `consumer_sequence`, from 1, redeliveries included.
    """

    delivery: int
    stream_sequence: int
    consumer_sequence: int
    stored_at: int


# Every time of 20 digits has a stored text: it ends in the year 5138.
_NUMBERS = r"\.([0-9]{1,20})" * 4
_ANY = r"\.[^.]*"
_ACK_REPLY = re.compile(rf"\$JS\.ACK{_ANY * 2}{_NUMBERS}{_ANY}")
_ACK_REPLY_WITH_DOMAIN = re.compile(rf"\$JS\.ACK{_ANY * 4}{_NUMBERS}\..*", re.DOTALL)


def read_delivery(reply: str) -> Delivery | None:
    """Return what a JetStream reply subject says; None for any other subject.

    `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>` has 9
    tokens; the form with a domain and an account hash after `$JS.ACK` has 11 or more. The time is
    exact here; the client library's own timestamp goes through a float.
    """
    match = _ACK_REPLY.fullmatch(reply) or _ACK_REPLY_WITH_DOMAIN.fullmatch(reply)
    if match is None:
        return None
    delivery, stream_sequence, consumer_sequence, stored_at = match.groups()
    return Delivery(int(delivery), int(stream_sequence), int(consumer_sequence), int(stored_at))


def read_pending(reply: str) -> int:
    """Return how many messages of the stream are left after one, by its JetStream reply subject."""
    tokens = reply.split(".")
    return int(tokens[8 if len(tokens) == 9 else 10])
