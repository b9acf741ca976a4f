"""The stream and the consumer as a command sees them; nothing is created or changed."""

import contextlib
from dataclasses import dataclass

import nats.errors
from nats.js.errors import NotFoundError, ServiceUnavailableError

from worker.errors import BrokerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API_TIMEOUT, Connection
from worker.jetstream.consumer import Binding, as_binding, created_at
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream that exists. Times are stored text; sequences are the stream's."""

    created_at: str
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """A consumer that exists, in messages.

    `pull_requests` is how many pull requests wait: without one, no worker asks for more at present.
    """

    binding: Binding
    redelivered: int
    pull_requests: int


@dataclass(frozen=True, slots=True)
class BrokerView:
    """The server's version; None for a stream or a consumer that does not exist."""

    server: str
    stream: StreamView | None
    consumer: ConsumerView | None


def inspect_broker(client: BrokerClient, settings: Settings) -> BrokerView:
    """Return stream and consumer as they are now; raises BrokerError without an answer."""
    return client.do(_inspect(client.connection, settings))


async def _inspect(connection: Connection, settings: Settings) -> BrokerView:
    js = connection.jetstream(timeout=API_TIMEOUT)
    stream, consumer = None, None
    try:
        with contextlib.suppress(NotFoundError):
            info = await js.stream_info(settings.stream)
            created, state = created_at(info), info.state
            stream = StreamView(
                created, state.messages, state.bytes, state.first_seq, state.last_seq
            )
            found = await js.consumer_info(settings.stream, settings.consumer)
            binding = as_binding(found, created, state.first_seq)
            consumer = ConsumerView(binding, found.num_redelivered or 0, found.num_waiting or 0)
    except ServiceUnavailableError as error:
        problem = "JetStream is off on this server, or not enabled for this account"
        raise BrokerError(problem) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerError(f"stream {settings.stream} cannot be inspected") from error
    return BrokerView(connection.server(), stream, consumer)
