"""The stream and the consumer as a command sees them; nothing is created or changed."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError, ServiceUnavailableError

from worker.codec.timestamps import parse_instant
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API_TIMEOUT
from worker.jetstream.consumer import (
    Binding,
    as_binding,
    check_usable,
    created_at,
    differences,
    wanted_consumer,
)
from worker.jetstream.reconcile import Comparison, find_missing, first_message
from worker.projections.base import Projection
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


class StoredMessage(NamedTuple):
    """A message in the stream; `stored_at` in nanoseconds since 1970."""

    sequence: int
    stored_at: int


def inspect_broker(client: BrokerClient, settings: Settings) -> BrokerView:
    """Return stream and consumer as they are now; raises BrokerError without an answer."""
    stream, consumer = client.do(_ask(client.connection.jetstream(timeout=API_TIMEOUT), settings))
    server = client.connection.server()
    if stream is None:
        return BrokerView(server, None, None)
    state, stream_created_at = stream.state, created_at(stream)
    seen = StreamView(
        *(stream_created_at, state.messages, state.bytes, state.first_seq, state.last_seq)
    )
    if consumer is None:
        return BrokerView(server, seen, None)
    binding = as_binding(consumer, stream_created_at, state.first_seq)
    view = ConsumerView(binding, consumer.num_redelivered or 0, consumer.num_waiting or 0)
    return BrokerView(server, seen, view)


def next_message(
    client: BrokerClient, stream: str, projection: Projection[Any, Any], sequence: int
) -> StoredMessage | None:
    """Return the projection's first message at or above a sequence, or None.

    Raises PullLost without an answer.
    """
    subjects = projection.filter_subject
    found = client.do(first_message(client.connection, stream, sequence, subjects))
    return None if found is None else StoredMessage(found["seq"], parse_instant(found["time"]))


def missing_messages(
    client: BrokerClient,
    stream: str,
    projection: Projection[Any, Any],
    comparison: Comparison,
    binding: Binding,
) -> tuple[Comparison, bool]:
    """Return whether the database lacks messages that are acked, as a worker judges it."""
    return client.do(
        find_missing(
            *(client.connection, stream, projection.filter_subject),
            *(comparison, binding.position),
        )
    )


def differing_settings(
    consumer: ConsumerView, settings: Settings, projection: Projection[Any, Any]
) -> dict[str, tuple[Any, Any]]:
    """Return the consumer's settings that a worker would set otherwise: wanted and found."""
    binding = consumer.binding
    wanted = wanted_consumer(settings, projection)
    return differences(wanted, binding.config, binding.position.ack_floor)


def why_unusable(
    consumer: ConsumerView, settings: Settings, projection: Projection[Any, Any]
) -> str | None:
    """Return why a worker would refuse the consumer, or None."""
    try:
        check_usable(settings, projection, consumer.binding.config)
    except ConfigurationError as error:
        return str(error)
    return None


async def _ask(
    js: JetStreamContext, settings: Settings
) -> tuple[StreamInfo | None, ConsumerInfo | None]:
    try:
        stream = await js.stream_info(settings.stream)
        try:
            return stream, await js.consumer_info(settings.stream, settings.consumer)
        except NotFoundError:
            return stream, None
    except NotFoundError:
        return None, None
    except ServiceUnavailableError as error:
        problem = "JetStream is off on this server, or not enabled for this account"
        raise BrokerError(problem) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerError(f"stream {settings.stream} cannot be inspected") from error
