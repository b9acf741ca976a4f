"""The table rejected_events: messages that no run could be made of, kept as they came."""

from collections.abc import Iterable
from typing import NamedTuple

from repo.sqlite.database import Connection
from repo.statements import statement

_INSERT_REJECTED_EVENT = statement("insert_rejected_event")
_LIST_BEFORE = statement("list_rejected_events_before")
_FIND = statement("find_rejected_event")
_CHANGE_REASON = statement("change_rejection_reason")
_DELETE_PROJECTED = statement("delete_projected_rejected_event")
_DISCARD = statement("discard_rejected_event")

# The newest id there can be is one below: what is after everything.
AFTER_ALL = 2**63 - 1

Key = tuple[str, int, str]
"""What names a message: its stream, its sequence there, and when the broker stored it."""


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
        """What names the message; no two rejected events have the same."""
        return self.stream, self.stream_sequence, self.recorded_at


class Listed(NamedTuple):
    """A rejected event without its payload, of which `bytes` tells the length."""

    rejected_id: int
    rejected_at: str
    stream: str
    stream_sequence: int
    recorded_at: str
    subject: str
    bytes: int
    reason: str


def insert_all(connection: Connection, events: Iterable[RejectedEvent]) -> list[RejectedEvent]:
    """Insert rejected events and return the ones that were not there already."""
    return [event for event in events if connection.execute(_INSERT_REJECTED_EVENT, event)]


def list_before(connection: Connection, rejected_id: int, limit: int) -> list[Listed]:
    """Return up to `limit` rejected events with an id below `rejected_id`, newest first."""
    return [Listed(*row) for row in connection.fetch(_LIST_BEFORE, (rejected_id, limit))]


def find(connection: Connection, rejected_id: int) -> RejectedEvent | None:
    """Return one rejected event with its payload, or None if there is none of this id."""
    found = connection.fetch(_FIND, (rejected_id,))
    return RejectedEvent(*found[0]) if found else None


def change_reason(connection: Connection, event: RejectedEvent) -> bool:
    """Give the message's row the reason of `event`; tell whether it had another.

    The row keeps its id and the time of its rejection. Nothing is inserted where there is no row.
    """
    return connection.execute(_CHANGE_REASON, (event.reason, *event.key, event.reason)) > 0


def delete_projected(connection: Connection, key: Key, result_id: str) -> bool:
    """Delete a message's row if there is a run `result_id`; tell whether it was deleted."""
    return connection.execute(_DELETE_PROJECTED, (*key, result_id)) > 0


def discard(connection: Connection, key: Key) -> bool:
    """Delete a message's row, whatever becomes of the message; tell whether it was there."""
    return connection.execute(_DISCARD, key) > 0
