"""What differs between kinds of messages, as one value: a projection.

The dispatcher, the batch writer, verification and rebuild name no stream and no column.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from repo.rejected import RejectedEvent
from repo.writer import Writer
from worker.codec.timestamps import format_instant, present_second
from worker.messages import Message
from worker.projections.manifests import Deadlines, ManifestCache

Event = TypeVar("Event")
Row = TypeVar("Row")

Differences = dict[str, tuple[Any, Any]]
"""Columns in which two rows differ, each with the expected and the found value."""


class MalformedEvent(ValueError):
    """The payload is not such an event; the text names the member and the shape of its value."""


@dataclass(frozen=True, slots=True)
class StreamSpec:
    """A stream as the fleet's set-up creates it; `--create-stream` does the same.

    `max_age` is in seconds.
    """

    name: str
    subjects: tuple[str, ...]
    max_age: float
    max_bytes: int


class Comparison(NamedTuple):
    """How a row in the database compares with the row that its message makes now."""

    outcome: str
    columns: Differences


@dataclass(frozen=True, slots=True)
class Projection(Generic[Event, Row]):
    """One kind of message: where it comes from, what it means, and which row it becomes.

    `decode` raises MalformedEvent. `writer` is how `repo` inserts the rows. `key` names a row;
    `find` is a query of `repo` that returns the stored row of a key, or None. `compare` takes the
    expected and the stored row, the manifests, and whether deadlines count. `log_fields` are what a
    debug line says of a row.
    """

    name: str
    stream: StreamSpec
    filter_subject: str
    default_consumer: str
    decode: Callable[[bytes], Event]
    build_row: Callable[[Event, Message, Deadlines], Row]
    writer: Writer[Row]
    key: Callable[[Row], str]
    find: Callable[..., Any]
    compare: Callable[[Row, Any, ManifestCache, bool], Comparison]
    log_fields: Callable[[Row], dict[str, Any]]


def rejected_event(stream: str, message: Message, reason: str) -> RejectedEvent:
    """Return a message as the rejected event that keeps it, whatever kind it is."""
    return RejectedEvent(
        stream,
        message.stream_sequence,
        format_instant(message.stored_at),
        message.subject,
        message.payload,
        reason,
        present_second(),
    )
