"""The stream and the consumer as a command sees them; nothing is created or changed."""

import contextlib
from dataclasses import dataclass

import nats.errors
from nats.js.errors import NotFoundError

from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding, read_binding
from worker.jetstream.consumer_info import consumer_info
from worker.jetstream.presence import Peer, ask_peers
from worker.jetstream.stream import StreamState, read_state
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class BrokerView:
    """The server's version, its largest payload in bytes, and the JetStream domain or "".

    The stream or the consumer is None if it does not exist.
    """

    server: str
    max_payload: int
    domain: str
    stream: StreamState | None
    consumer: Binding | None


def inspect_broker(client: BrokerClient, settings: Settings) -> BrokerView:
    """Return stream and consumer as they are now; raises BrokerError without an answer."""
    return client.do(_inspect(client.connection, settings))


def workers(client: BrokerClient, settings: Settings) -> list[Peer]:
    """Return the workers that announce themselves on the consumer; empty without the rights."""
    return client.do(ask_peers(client.connection, settings))


async def _inspect(connection: Connection, settings: Settings) -> BrokerView:
    consumer = None
    stream = await read_state(connection, settings.stream)
    if stream is not None:
        try:
            with contextlib.suppress(NotFoundError):
                found = await consumer_info(connection, settings.stream, settings.consumer)
                consumer = await read_binding(connection, settings.stream, found, stream)
        except (nats.errors.Error, TimeoutError) as error:
            raise BrokerError(f"stream {settings.stream} cannot be inspected") from error
    server = connection.server(), connection.max_payload, connection.domain
    return BrokerView(*server, stream, consumer)
