"""What differs between kinds of messages, as one value: a projection.

The dispatcher, the batch writer, verification and rebuild name no stream and no column.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, NamedTuple, TypeVar

from repo.batch_writer import Writer
from repo.checkpoint import Position
from repo.rejected import RejectedEvent
from worker.codec.timestamps import format_instant, present_second
from worker.messages import Fetch, Message
from worker.projections.manifests import Deadlines, ManifestCache

Event = TypeVar("Event")
Row = TypeVar("Row")

Differences = dict[str, tuple[Any, Any]]
"""Columns in which two rows differ, each with the expected and the found value."""


# How a stored row compares with what its message writes now. The other outcomes are those of one
# projection.
EQUAL = "equal"
EXISTING = "existing"  # written by another message of the run, or by another program
DIFFERENT = "different"
NOT_WRITTEN = "not written"  # the row exists without what the message writes


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
    """How a row in the database compares with the row that its message makes now.

    `since` is set where the row may hold another message of its run instead, which is stored at
    this time or later; stored text.
    """

    outcome: str
    columns: Differences
    since: str | None = None


@dataclass(frozen=True, eq=False, slots=True)
class Projection(Generic[Event, Row]):
    """One kind of message: where it comes from, what it means, and which row it becomes.

    A consumer is created with `filter_subject`, None for none; it may also have one of
    `other_filters`. `decode` raises MalformedEvent. `writer` returns how `repo` writes the rows of
    a consumer; None for rows that nothing may keep from being counted. `outcomes` are the counters
    of what a row may change, `details` further counters of those rows, `duplicates` that of rows
    that change nothing. `key` names a row;
    `find` is a query of `repo` that returns the stored row of a key, or None. `compare` takes the
    expected and the stored row, the manifests, and whether deadlines count. `log_fields` are what a
    debug line says of a row. `objects` returns what has to be fetched before an event is a row,
    unless `states`, a query of `repo` about keys, says that its row has ended: then the row is left
    unchanged. `states` returns the keys that have rows, and whether each has ended. A message
    without a row waits for the prerequisite, also where the pool is tried first.
    """

    name: str
    stream: StreamSpec
    filter_subject: str | None
    default_consumer: str
    decode: Callable[[bytes], Event]
    build_row: Callable[[Event, Message, Deadlines], Row]
    writer: Callable[[Position | None], Writer[Row]]
    outcomes: Mapping[str, str]
    duplicates: str
    key: Callable[[Row], str]
    find: Callable[..., Any]
    compare: Callable[[Row, Any, ManifestCache, bool], Comparison]
    log_fields: Callable[[Row], dict[str, Any]]
    other_filters: tuple[str, ...] = ()
    details: Mapping[str, str] = field(default_factory=dict)
    objects: Callable[[Event], Fetch | None] = lambda _: None
    states: Callable[..., Mapping[str, bool]] = lambda *_: {}

    @property
    def read_filter(self) -> str:
        """The subjects of all its messages, for reading the stream itself."""
        return self.filter_subject or ">"


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
