"""The table rejected_events: messages that no run could be made of, kept as they came."""

from collections.abc import Iterable
from typing import NamedTuple

from repo.database import Connection
from repo.statements import statement

_INSERT_REJECTED_EVENT = statement("insert_rejected_event")


class RejectedEvent(NamedTuple):
    """A rejected event, in the order of the statement's placeholders. Times are stored text."""

    stream: str
    stream_sequence: int
    recorded_at: str
    subject: str
    payload: bytes
    reason: str
    rejected_at: str


def insert_all(connection: Connection, events: Iterable[RejectedEvent]) -> list[RejectedEvent]:
    """Insert rejected events and return the ones that were not there already."""
    return [event for event in events if connection.execute(_INSERT_REJECTED_EVENT, event)]
