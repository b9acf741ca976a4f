"""The stream and its durable consumer: get, compare, create what is missing. Consumer thread only.

A consumer that exists is used as it is and never changed: settings that differ are logged, and one
that would lose or misread messages is a configuration error.
"""

import contextlib
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
from worker.errors import STREAM_MISSING, ConfigurationError, PullLost, no_response
from worker.projections.base import Projection
from worker.settings import Settings

log = logging.getLogger(__name__)

# Messages that are ack pending for all workers together. The server stops delivering at this
# number, and messages that wait for a delayed redelivery count as well.
MAX_ACK_PENDING = 10_000
# The value of the client that the fleet used before; it serves as well.
_ALSO_RIGHT = {"max_ack_pending": 1_000}

# The server's default. Each worker has up to three pull requests waiting.
_MAX_WAITING = 512

# A 2.9 server moves a consumer's creation time by a fraction of a millisecond when it restarts.
_SAME_CREATION = timedelta(milliseconds=100)


class StreamMissing(PullLost):
    """The stream does not exist yet; normally the fleet's own set-up creates it."""

    cause = STREAM_MISSING


@dataclass(frozen=True, slots=True)
class ConsumerPosition:
    """Where the broker is: the stream, and the consumer on it. Sequences are the stream's.

    `stream_created_at` is stored text. Everything up to `ack_floor` is acked, and nothing above
    `acked`, if the consumer `has_delivered` at all; one that was created to begin later counts what
    it skips as acked, and what expires or is purged counts as well. Up to `delivered` messages were
    delivered, `ack_pending` of which are not acked.
    """

    stream_created_at: str
    first_sequence: int
    has_delivered: bool
    ack_floor: int
    acked: int
    delivered: int = 0
    ack_pending: int = 0


@dataclass(frozen=True, slots=True)
class Binding:
    """A consumer that exists, and which one: both creation times differ for a recreated one."""

    consumer_created: datetime
    pending: int
    position: ConsumerPosition
    config: ConsumerConfig

    @property
    def not_acked(self) -> int:
        """How many messages are pending, or ack pending for any worker."""
        return self.pending + self.position.ack_pending

    @property
    def has_work(self) -> bool:
        return self.not_acked > 0

    def same_messages(self, other: "Binding | None") -> bool:
        """Return whether a reply subject of the other binding still means the same message."""
        return (
            other is not None
            and self.position.stream_created_at == other.position.stream_created_at
            and abs(self.consumer_created - other.consumer_created) < _SAME_CREATION
        )


class Consumer:
    """The consumer of one projection, over one connection."""

    def __init__(
        self, js: JetStreamContext, settings: Settings, projection: Projection[Any, Any]
    ) -> None:
        self._js = js
        self._settings = settings
        self._projection = projection

    async def bind(self) -> Binding:
        """Return the consumer, created now if it is missing.

        Raises StreamMissing, PullLost where JetStream does not answer, and ConfigurationError where
        the consumer would lose or misread messages.
        """
        settings = self._settings
        try:
            stream = await self._stream()
            consumer = await self._consumer()
        except ServiceUnavailableError as error:
            raise PullLost(
                "JetStream is off on this server, or not enabled for this account"
            ) from error
        except (nats.errors.Error, TimeoutError) as error:
            raise no_response(f"stream {settings.stream} cannot be bound", error) from error
        check_usable(settings, self._projection, consumer.config)
        return as_binding(consumer, created_at(stream), stream.state.first_seq)

    async def look(self, bound: Binding) -> Binding:
        """Return a bound consumer as it is now.

        Raises PullLost where it does not answer, or was recreated.
        """
        settings, position = self._settings, bound.position
        try:
            consumer = await self._js.consumer_info(settings.stream, settings.consumer)
        except (nats.errors.Error, TimeoutError) as error:
            raise no_response("the consumer does not answer", error) from error
        now = as_binding(consumer, position.stream_created_at, position.first_sequence)
        if not now.same_messages(bound):
            raise PullLost("the consumer was recreated")
        return now

    async def _stream(self) -> StreamInfo:
        settings, spec = self._settings, self._projection.stream
        try:
            return await self._js.stream_info(settings.stream)
        except NotFoundError as error:
            if not settings.create_stream:
                raise StreamMissing(
                    f"stream {settings.stream} does not exist; the fleet's set-up creates it, "
                    "or --create-stream does"
                ) from error
        config = StreamConfig(
            name=settings.stream,
            subjects=list(spec.subjects),
            max_age=spec.max_age,
            max_bytes=spec.max_bytes,
            discard=DiscardPolicy.OLD,
        )
        try:
            info = await self._js.add_stream(config)
        except BadRequestError as error:
            raise ConfigurationError(
                f"stream {settings.stream} cannot be created: {error}"
            ) from error
        log.info("stream.created", extra={"stream": settings.stream, "subjects": spec.subjects})
        return info

    async def _consumer(self) -> ConsumerInfo:
        settings = self._settings
        with contextlib.suppress(NotFoundError):
            found: ConsumerInfo = await self._js.consumer_info(settings.stream, settings.consumer)
            return found
        wanted = wanted_consumer(settings, self._projection)
        try:
            created: ConsumerInfo = await self._js.add_consumer(settings.stream, wanted)
        except BadRequestError as error:
            raise ConfigurationError(
                f"consumer {settings.consumer} cannot be created: {error}"
            ) from error
        log.info("consumer.created", extra={"consumer": settings.consumer})
        return created


def as_binding(consumer: ConsumerInfo, stream_created_at: str, first_sequence: int) -> Binding:
    """Return what the broker reports of a consumer, and of the stream that it is on."""
    delivered = consumer.delivered or SequenceInfo(0, 0)
    ack_floor = consumer.ack_floor or SequenceInfo(0, 0)
    ack_pending = consumer.num_ack_pending or 0
    # More deliveries above the ack floor than are ack pending: some were acked out of order.
    above = delivered.consumer_seq - ack_floor.consumer_seq > ack_pending
    return Binding(
        consumer_created=consumer.created,
        pending=consumer.num_pending or 0,
        position=ConsumerPosition(
            stream_created_at=stream_created_at,
            first_sequence=first_sequence,
            has_delivered=delivered.consumer_seq > 0,
            ack_floor=ack_floor.stream_seq,
            acked=delivered.stream_seq if above else ack_floor.stream_seq,
            delivered=delivered.stream_seq,
            ack_pending=ack_pending,
        ),
        config=consumer.config,
    )


def created_at(stream: StreamInfo) -> str:
    """Return when a stream was created, as stored text; raises PullLost if it does not say."""
    if stream.created is None:
        raise PullLost(f"stream {stream.config.name} does not say when it was created")
    return format_instant(round(stream.created.timestamp() * 1_000_000) * 1000)


def wanted_consumer(settings: Settings, projection: Projection[Any, Any]) -> ConsumerConfig:
    """Return the configuration that a worker gives a consumer that it creates."""
    return ConsumerConfig(
        durable_name=settings.consumer,
        filter_subject=projection.filter_subject,
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

    Filter and ack policy are not compared here: see `check_usable`. A consumer that was created to
    begin later does not differ if all that it skips is `committed`, up to that stream sequence.
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
        if ours != theirs and theirs != _ALSO_RIGHT.get(name, ours)
    }


def check_usable(
    settings: Settings, projection: Projection[Any, Any], found: ConsumerConfig
) -> None:
    """Raise ConfigurationError for a consumer that would lose or misread messages."""
    filters = found.filter_subjects or ([found.filter_subject] if found.filter_subject else [])
    problem = None
    if filters != [projection.filter_subject]:
        listed = ", ".join(filters) or "nothing"
        problem = f"filters {listed}, expected {projection.filter_subject}"
    elif found.ack_policy != AckPolicy.EXPLICIT:
        problem = f"has the ack policy {_plain(found.ack_policy)}, expected explicit"
    elif found.deliver_subject:
        problem = f"pushes to {found.deliver_subject}, expected a pull consumer"
    elif found.headers_only:
        problem = "delivers headers only, expected whole messages"
    if problem is not None:
        raise ConfigurationError(
            f"consumer {settings.consumer} of stream {settings.stream} {problem}; "
            "it is left unchanged: name another one with --consumer, or delete it"
        )


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
