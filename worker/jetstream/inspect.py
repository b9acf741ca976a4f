"""How the stream and the consumer stand, as a command sees them: it makes and changes nothing."""

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
    FILTER,
    Binding,
    as_binding,
    created_at,
    differences,
    refuse,
    wanted_consumer,
)
from worker.jetstream.reconcile import first_message
from worker.settings import Settings


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream that is there. Times are stored text; sequences are the stream's."""

    created_at: str
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class ConsumerView:
    """A consumer that is there, in messages.

    `floor` is the stream sequence up to which everything is settled, `requests` how many pull
    requests wait: none means that no worker asks for more just now.
    """

    binding: Binding
    pending: int
    ack_pending: int
    redelivered: int
    requests: int
    delivered: int
    floor: int


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What stands on the broker; None where there is no such stream, or no such consumer."""

    server: str
    stream: StreamView | None
    consumer: ConsumerView | None


class StoredStart(NamedTuple):
    """A start in the stream, and when the broker stored it, in nanoseconds since 1970."""

    sequence: int
    recorded_at: int


def look_at_broker(visit: BrokerClient, settings: Settings) -> BrokerView:
    """Return how stream and consumer stand; raises BrokerError where the broker does not say."""
    stream, consumer = visit.do(_look(visit.connection.jetstream(timeout=API_TIMEOUT), settings))
    server = visit.connection.server()
    if stream is None:
        return BrokerView(server, None, None)
    state = stream.state
    made_at = created_at(stream)
    seen = StreamView(made_at, state.messages, state.bytes, state.first_seq, state.last_seq)
    if consumer is None:
        return BrokerView(server, seen, None)
    return BrokerView(server, seen, _consumer(consumer, made_at, state.first_seq))


def next_start(visit: BrokerClient, stream: str, sequence: int) -> StoredStart | None:
    """Return the first start at or above a sequence, or None; raises PullLost without an answer."""
    found = visit.do(first_message(visit.connection, stream, sequence, FILTER))
    return None if found is None else StoredStart(found["seq"], parse_instant(found["time"]))


def differing(consumer: ConsumerView, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Return the consumer's settings that are not as a worker would make them: wanted and found."""
    return differences(wanted_consumer(settings), consumer.binding.config, consumer.floor)


def refusal(consumer: ConsumerView, settings: Settings) -> str:
    """Return why a worker would not use the consumer, or nothing."""
    try:
        refuse(settings, consumer.binding.config)
    except ConfigurationError as error:
        return str(error)
    return ""


async def _look(
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
        raise BrokerError(f"stream {settings.stream} cannot be looked at") from error


def _consumer(consumer: ConsumerInfo, stream_created_at: str, first_sequence: int) -> ConsumerView:
    binding = as_binding(consumer, stream_created_at, first_sequence)
    return ConsumerView(
        binding=binding,
        pending=binding.pending,
        ack_pending=binding.ack_pending,
        redelivered=consumer.num_redelivered or 0,
        requests=consumer.num_waiting or 0,
        delivered=consumer.delivered.stream_seq if consumer.delivered else 0,
        floor=binding.footing.floor,
    )
