"""W: the time up to which everything that the broker stored is in the database."""

from worker.codec.timestamps import parse_instant
from worker.jetstream.connection import Connection
from worker.jetstream.stream import StreamState, first_message


async def projected_up_to(
    connection: Connection,
    name: str,
    subjects: str,
    stream: StreamState,
    *,
    caught_up_to: int,
    asked_at: int | None,
) -> int | None:
    """Return W of one stream, exclusive, as an instant of the broker's clock; None if unknown.

    `stream` is what the broker answered after `asked_at`. Every message up to the sequence
    `caught_up_to` is in the database. It never is the time of the last message: a fleet that is
    idle would stand still. Raises PullLost where the broker does not answer.
    """
    if caught_up_to >= stream.last_sequence:
        return asked_at
    first = await first_message(connection, name, caught_up_to + 1, subjects)
    return asked_at if first is None else parse_instant(str(first["time"]))
