"""How the stream and the durable stand, as a command sees them: it makes and changes nothing."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError, ServiceUnavailableError

from worker.binding import (
    FILTER,
    Binding,
    as_binding,
    created_at,
    differences,
    refuse,
    wanted_durable,
)
from worker.connection import API_TIMEOUT
from worker.errors import BrokerFault, ConfigurationError
from worker.in_step import first_message
from worker.instants import parse_instant
from worker.settings import Settings
from worker.visit import Visit


@dataclass(frozen=True, slots=True)
class StreamView:
    """A stream that is there. Times are stored text; sequences are the stream's."""

    created_at: str
    messages: int
    bytes: int
    first_sequence: int
    last_sequence: int


@dataclass(frozen=True, slots=True)
class DurableView:
    """A durable that is there, in messages.

    `floor` is the stream sequence up to which everything is settled, `requests` how many pull
    requests wait: none means that no worker asks for more just now.
    """

    binding: Binding
    pending: int
    unsettled: int
    redelivered: int
    requests: int
    delivered: int
    floor: int


@dataclass(frozen=True, slots=True)
class BrokerView:
    """What stands on the broker; None where there is no such stream, or no such durable."""

    server: str
    stream: StreamView | None
    durable: DurableView | None


class StoredStart(NamedTuple):
    """A start in the stream, and when the broker stored it, in nanoseconds since 1970."""

    sequence: int
    recorded_at: int


def look_at_broker(visit: Visit, settings: Settings) -> BrokerView:
    """Return how stream and durable stand; raises BrokerFault where the broker does not say."""
    stream, durable = visit.do(_look(visit.connection.jetstream(timeout=API_TIMEOUT), settings))
    server = visit.connection.server()
    if stream is None:
        return BrokerView(server, None, None)
    state = stream.state
    made_at = created_at(stream)
    seen = StreamView(made_at, state.messages, state.bytes, state.first_seq, state.last_seq)
    if durable is None:
        return BrokerView(server, seen, None)
    return BrokerView(server, seen, _durable(durable, made_at, state.first_seq))


def next_start(visit: Visit, stream: str, sequence: int) -> StoredStart | None:
    """Return the first start at or above a sequence, or None; raises PullLost without an answer."""
    found = visit.do(first_message(visit.connection, stream, sequence, FILTER))
    return None if found is None else StoredStart(found["seq"], parse_instant(found["time"]))


def differing(durable: DurableView, settings: Settings) -> dict[str, tuple[Any, Any]]:
    """Return the durable's settings that are not as a worker would make them: wanted and found."""
    return differences(wanted_durable(settings), durable.binding.config, durable.floor)


def refusal(durable: DurableView, settings: Settings) -> str:
    """Return why a worker would not use the durable, or nothing."""
    try:
        refuse(settings, durable.binding.config)
    except ConfigurationError as error:
        return str(error)
    return ""


async def _look(
    js: JetStreamContext, settings: Settings
) -> tuple[StreamInfo | None, ConsumerInfo | None]:
    try:
        stream = await js.stream_info(settings.stream)
        try:
            return stream, await js.consumer_info(settings.stream, settings.durable)
        except NotFoundError:
            return stream, None
    except NotFoundError:
        return None, None
    except ServiceUnavailableError as error:
        problem = "JetStream is off on this server, or not enabled for this account"
        raise BrokerFault(problem) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise BrokerFault(f"stream {settings.stream} cannot be looked at") from error


def _durable(durable: ConsumerInfo, stream_created_at: str, first_sequence: int) -> DurableView:
    binding = as_binding(durable, stream_created_at, first_sequence)
    return DurableView(
        binding=binding,
        pending=binding.pending,
        unsettled=binding.unsettled,
        redelivered=durable.num_redelivered or 0,
        requests=durable.num_waiting or 0,
        delivered=durable.delivered.stream_seq if durable.delivered else 0,
        floor=binding.footing.floor,
    )
