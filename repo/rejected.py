"""The table rejected_events: messages that could not become a row, stored as they came."""

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import NamedTuple

from repo import Connection
from repo.statements import statement

_INSERT_REJECTED_EVENT = statement("insert_rejected_event")
_LIST_BEFORE = statement("list_rejected_events_before")
_FIND = statement("find_rejected_event")
_CHANGE_REASON = statement("change_rejection_reason")
_DELETE_PROJECTED = statement("delete_projected_rejected_event")
_DISCARD = statement("discard_rejected_event")

# One above the largest possible id.
AFTER_ALL = 2**63 - 1

Key = tuple[str, int, str]
"""Identifies a message: its stream, its sequence there, and when the broker stored it."""


# Not that of a name, such as UTF-8.
_NUMBER = re.compile(r"(?<![\w-])-?\d+")


class RejectedEvent(NamedTuple):
    """A rejected event, in the order of the statement's placeholders. Times are stored text."""

    stream: str
    stream_sequence: int
    recorded_at: str
    subject: str
    payload: bytes
    reason: str
    rejected_at: str

    @property
    def key(self) -> Key:
        """Identifies the message; unique among rejected events."""
        return self.stream, self.stream_sequence, self.recorded_at


class Listed(NamedTuple):
    """A rejected event without its payload; `bytes` is the payload's length."""

    rejected_id: int
    rejected_at: str
    stream: str
    stream_sequence: int
    recorded_at: str
    subject: str
    bytes: int
    reason: str


def kind_of_reason(reason: str) -> str:
    """Return a reason without its numbers, which are positions and bounds."""
    return _NUMBER.sub("#", reason)


def insert_all(connection: Connection, events: Iterable[RejectedEvent]) -> list[RejectedEvent]:
    """Insert rejected events, in the order of their keys, and return the ones that are new."""
    return [
        event
        for event in sorted(events, key=attrgetter("key"))
        if connection.execute(_INSERT_REJECTED_EVENT, _storable(connection, event))
    ]


def _storable(connection: Connection, event: RejectedEvent) -> RejectedEvent:
    storable = connection.storable_text
    return event._replace(subject=storable(event.subject), reason=storable(event.reason))


def list_before(connection: Connection, rejected_id: int, limit: int) -> list[Listed]:
    """Return up to `limit` rejected events with an id below `rejected_id`, newest first."""
    return [Listed(*row) for row in connection.fetch(_LIST_BEFORE, (rejected_id, limit))]


def find(connection: Connection, rejected_id: int) -> RejectedEvent | None:
    """Return one rejected event with its payload, or None if the id is unknown."""
    found = connection.fetch(_FIND, (rejected_id,))
    return RejectedEvent(*found[0]) if found else None


def change_reason(connection: Connection, event: RejectedEvent) -> bool:
    """Update the reason of the message's row; return whether it had another.

    The row keeps its id and the time of its rejection. A missing row is not inserted.
    """
    reason = connection.storable_text(event.reason)
    return connection.execute(_CHANGE_REASON, (reason, *event.key, reason)) > 0


def delete_projected(connection: Connection, key: Key, result_id: str) -> bool:
    """Delete a message's row if the run `result_id` exists; return whether it was deleted."""
    return connection.execute(_DELETE_PROJECTED, (*key, result_id)) > 0


def discard(connection: Connection, key: Key) -> bool:
    """Delete a message's row unconditionally; return whether it existed."""
    return connection.execute(_DISCARD, key) > 0
