"""Does the broker grant a list of rights? Asked without an effect. Broker thread only.

The server tells of a refused subject before it looks at what was sent there, and of nothing else.
What is sent is no JSON and no ack: where the right is there, the server refuses that instead, and
nothing happens.
"""

import time
from collections.abc import Iterable

import nats.errors

from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API_TIMEOUT, Connection
from worker.jetstream.permissions import Right

_MEANINGLESS = b"{"


def lacking(visit: BrokerClient, rights: Iterable[Right]) -> list[Right]:
    """Return the rights that the broker does not grant; raises BrokerError without an answer."""
    return [right for right in rights if visit.do(_is_refused(visit.connection, right))]


async def _is_refused(connection: Connection, right: Right) -> bool:
    began = time.monotonic()
    try:
        if right.subscribe:
            subscription = await connection.subscribe(connection.new_inbox())
            await subscription.unsubscribe()
        else:
            await connection.publish(right.covered(), _MEANINGLESS)
        # What the server refuses comes before its answer to a later ping. The library's first ping
        # may overtake what it has not written yet; the second cannot.
        for _ in range(2):
            await connection.flush(timeout=int(API_TIMEOUT))
    except (nats.errors.Error, OSError, TimeoutError) as error:
        raise BrokerError(f"{right.subject} cannot be tried") from error
    return "permission" in connection.problem_since(began).lower()
