"""The stream and the consumer: get, compare, warn; create what is missing. Broker thread only."""

import logging
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    ConsumerInfo,
    DeliverPolicy,
    DiscardPolicy,
    ReplayPolicy,
    SequenceInfo,
    StreamConfig,
    StreamInfo,
)
from nats.js.errors import BadRequestError, NotFoundError, ServiceUnavailableError

from worker.codec.timestamps import format_instant
from worker.errors import STREAM_MISSING, ConfigurationError, PullLost, unanswered
from worker.jetstream.reconciliation import Footing
from worker.settings import Settings

log = logging.getLogger(__name__)

# The stream, as the contract has it.
SUBJECTS = "events.>"
FILTER = "events.started.>"
MAX_AGE = 7 * 86_400
MAX_BYTES = 256 * 1024 * 1024

# Unsettled messages of all workers together. The server stops delivering at this number, and
# messages that wait for a delayed redelivery count as well.
MAX_ACK_PENDING = 10_000

# The server's default. Each worker has up to three requests waiting.
_MAX_WAITING = 512


class StreamMissing(PullLost):
    """There is no such stream yet; normally the fleet's own set-up makes it."""

    cause = STREAM_MISSING


# A server 2.9 moves a consumer's creation time by a fraction of a millisecond at its restart.
_SAME_CREATION = timedelta(milliseconds=100)


@dataclass(frozen=True, slots=True)
class Binding:
    """A consumer that is there, and which one it is: both creation times change with a new one."""

    consumer_created: datetime
    pending: int
    ack_pending: int
    footing: Footing
    config: ConsumerConfig

    def same_messages(self, other: "Binding | None") -> bool:
        """Tell whether a reply subject of the other binding still means the same message."""
        return (
            other is not None
            and self.footing.stream_created_at == other.footing.stream_created_at
            and abs(self.consumer_created - other.consumer_created) < _SAME_CREATION
        )


async def bind(js: JetStreamContext, settings: Settings) -> Binding:
    """Return the consumer, made now if it is missing; one that is there is never changed.

    Raises StreamMissing, PullLost where JetStream does not answer, and ConfigurationError where the
    consumer that is there would lose or mistake messages.
    """
    try:
        stream = await _stream(js, settings)
        consumer = await _consumer(js, settings)
    except ServiceUnavailableError as error:
        raise PullLost(
            "JetStream is off on this server, or not enabled for this account"
        ) from error
    except (nats.errors.Error, TimeoutError) as error:
        raise unanswered(f"stream {settings.stream} cannot be bound", error) from error
    refuse(settings, consumer.config)
    return as_binding(consumer, created_at(stream), stream.state.first_seq)


async def look(js: JetStreamContext, settings: Settings, bound: Binding) -> Binding:
    """Return a consumer that was bound as it is now.

    Raises PullLost where it does not answer, or is another one by now.
    """
    try:
        consumer = await js.consumer_info(settings.stream, settings.consumer)
    except (nats.errors.Error, TimeoutError) as error:
        raise unanswered("the consumer does not answer", error) from error
    now = as_binding(consumer, bound.footing.stream_created_at, bound.footing.first_sequence)
    if not now.same_messages(bound):
        raise PullLost("the consumer was made anew")
    return now


def as_binding(consumer: ConsumerInfo, stream_created_at: str, first_sequence: int) -> Binding:
    """Return what the broker tells of a consumer, and of the stream that it is on."""
    delivered = consumer.delivered or SequenceInfo(0, 0)
    floor = consumer.ack_floor or SequenceInfo(0, 0)
    # More deliveries above the floor than are ack_pending: some were settled out of order.
    above = delivered.consumer_seq - floor.consumer_seq > (consumer.num_ack_pending or 0)
    return Binding(
        consumer_created=consumer.created,
        pending=consumer.num_pending or 0,
        ack_pending=consumer.num_ack_pending or 0,
        footing=Footing(
            stream_created_at=stream_created_at,
            first_sequence=first_sequence,
            has_delivered=delivered.consumer_seq > 0,
            floor=floor.stream_seq,
            settled=delivered.stream_seq if above else floor.stream_seq,
            delivered=delivered.stream_seq,
            ack_pending=consumer.num_ack_pending or 0,
        ),
        config=consumer.config,
    )


def created_at(stream: StreamInfo) -> str:
    """Return when a stream was created, as stored text; raises PullLost if it does not say."""
    if stream.created is None:
        raise PullLost(f"stream {stream.config.name} does not say when it was created")
    return format_instant(round(stream.created.timestamp() * 1_000_000) * 1000)


def wanted_consumer(settings: Settings) -> ConsumerConfig:
    """Return the consumer's configuration as this worker would create it."""
    return ConsumerConfig(
        durable_name=settings.consumer,
        filter_subject=FILTER,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait,
        max_deliver=-1,
        replay_policy=ReplayPolicy.INSTANT,
        max_ack_pending=MAX_ACK_PENDING,
    )


def differences(
    wanted: ConsumerConfig, found: ConsumerConfig, committed: int = 0
) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a consumer that differ, each with the wanted and the found value.

    Filter and ack policy are not among them: they are not a matter of taste. Nor is a start that
    skips nothing but what is `committed` up to that stream sequence: a replay begins there.
    """
    skips_nothing = (
        found.deliver_policy == DeliverPolicy.BY_START_SEQUENCE
        and (found.opt_start_seq or 0) <= committed + 1
    )
    compared = {
        "deliver_policy": (
            wanted.deliver_policy,
            wanted.deliver_policy if skips_nothing else found.deliver_policy,
        ),
        # The library cuts a float to nanoseconds: 1.001 s comes back as 1.000999999.
        "ack_wait": (round(wanted.ack_wait or 0.0, 6), round(found.ack_wait or 0.0, 6)),
        "max_deliver": (wanted.max_deliver, found.max_deliver or -1),
        "replay_policy": (wanted.replay_policy, found.replay_policy),
        "max_ack_pending": (wanted.max_ack_pending, found.max_ack_pending),
        "max_waiting": (_MAX_WAITING, found.max_waiting or _MAX_WAITING),
        "backoff": (None, found.backoff or None),
        "rate_limit_bps": (None, found.rate_limit_bps or None),
        "inactive_threshold": (None, found.inactive_threshold or None),
        "mem_storage": (None, found.mem_storage or None),
        "pause_until": (None, found.pause_until or None),
    }
    return {
        name: (_plain(ours), _plain(theirs))
        for name, (ours, theirs) in compared.items()
        if ours != theirs
    }


async def _stream(js: JetStreamContext, settings: Settings) -> StreamInfo:
    try:
        return await js.stream_info(settings.stream)
    except NotFoundError as error:
        if not settings.create_stream:
            raise StreamMissing(
                f"there is no stream {settings.stream}; the fleet's set-up makes it, "
                "or --create-stream does"
            ) from error
    try:
        info = await js.add_stream(
            StreamConfig(
                name=settings.stream,
                subjects=[SUBJECTS],
                max_age=MAX_AGE,
                max_bytes=MAX_BYTES,
                discard=DiscardPolicy.OLD,
            )
        )
    except BadRequestError as error:
        raise ConfigurationError(f"stream {settings.stream} cannot be created: {error}") from error
    log.info("stream.created", extra={"stream": settings.stream, "subjects": SUBJECTS})
    return info


async def _consumer(js: JetStreamContext, settings: Settings) -> ConsumerInfo:
    wanted = wanted_consumer(settings)
    try:
        found: ConsumerInfo = await js.consumer_info(settings.stream, settings.consumer)
    except NotFoundError:
        try:
            created: ConsumerInfo = await js.add_consumer(settings.stream, wanted)
        except BadRequestError as error:
            raise ConfigurationError(
                f"consumer {settings.consumer} cannot be created: {error}"
            ) from error
        log.info("consumer.created", extra={"consumer": settings.consumer})
        return created
    return found


def tell_differences(settings: Settings, differing: dict[str, tuple[Any, Any]]) -> None:
    """Warn about each setting of the consumer that is not as this worker would create it."""
    for name, (ours, theirs) in differing.items():
        log.warning(
            "consumer.differs",
            extra={
                "consumer": settings.consumer,
                "setting": name,
                "expected": ours,
                "found": theirs,
                "kept": theirs,
            },
        )


def refuse(settings: Settings, found: ConsumerConfig) -> None:
    """Raise ConfigurationError for a consumer that would lose or mistake messages."""
    filters = found.filter_subjects or ([found.filter_subject] if found.filter_subject else [])
    problem = ""
    if filters != [FILTER]:
        problem = f"filters {', '.join(filters) or 'nothing'}, expected {FILTER}"
    elif found.ack_policy != AckPolicy.EXPLICIT:
        problem = f"has the ack policy {_plain(found.ack_policy)}, expected explicit"
    elif found.deliver_subject:
        problem = f"pushes to {found.deliver_subject}, expected a pull consumer"
    elif found.headers_only:
        problem = "delivers headers only, expected whole messages"
    if problem:
        raise ConfigurationError(
            f"consumer {settings.consumer} of stream {settings.stream} {problem}; "
            "it is left as it is: name another with --consumer, or delete it"
        )


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
