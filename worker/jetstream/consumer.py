"""The stream and its durable consumer: get, compare, create what is missing. Consumer thread only.

A consumer that exists is used as it is and never changed: settings that differ are logged, and one
that would lose or misread messages is a configuration error.
"""

import contextlib
import logging
from dataclasses import dataclass, replace
from typing import Any

import nats.errors
from nats.js.api import (
    AckPolicy,
    ConsumerConfig,
    DeliverPolicy,
    DiscardPolicy,
    ReplayPolicy,
    SequenceInfo,
    StreamConfig,
)
from nats.js.errors import BadRequestError, NotFoundError, ServiceUnavailableError

from worker.errors import STREAM_MISSING, ConfigurationError, PullLost, no_response
from worker.jetstream.connection import API_TIMEOUT, Connection
from worker.jetstream.consumer_info import Config, Info, consumer_info
from worker.jetstream.stream import StreamState, last_sequence, missing_stream, read_state
from worker.projections.base import Projection
from worker.settings import Settings

log = logging.getLogger(__name__)

# The value of the client that the fleet used before; it serves as well.
_ALSO_RIGHT = {"max_ack_pending": 1_000}

# The server's default. Each worker has up to three pull requests waiting.
_MAX_WAITING = 512

# https://github.com/nats-io/nats-server/blob/main/server/errors.json
_TOO_MANY_CONSUMERS = 10026
_TOO_MANY_ACK_PENDING = 10121


class StreamMissing(PullLost):
    """The stream does not exist yet; normally the fleet's own set-up creates it."""

    cause = STREAM_MISSING


@dataclass(frozen=True, slots=True)
class Binding:
    """A consumer that exists, as the broker reports it, and the stream that it is on.

    `delivered` and `ack_floor` have two sequences each: the stream's, and the consumer's own, which
    counts deliveries. `pull_requests` is how many pull requests of any client wait, `is_new`
    whether the consumer was missing and has just been created, `is_ahead` whether it stands above
    the end of its stream, which went back then. `paused_until` is RFC 3339 text while the consumer
    is paused, else None.
    """

    stream: StreamState
    config: Config
    pending: int
    ack_pending: int
    redelivered: int
    pull_requests: int
    delivered: SequenceInfo
    ack_floor: SequenceInfo
    is_new: bool = False
    is_ahead: bool = False
    paused_until: str | None = None

    @property
    def not_acked(self) -> int:
        """How many messages are pending, or ack pending for any worker."""
        return self.pending + self.ack_pending

    @property
    def has_work(self) -> bool:
        return self.not_acked > 0

    @property
    def handed_out(self) -> int:
        """The highest sequence of the stream that the consumer has handed out, or skipped."""
        return min(self.delivered.stream_seq, self.stream.last_sequence)

    @property
    def passed(self) -> int:
        """The sequence up to which the consumer hands out nothing for the first time any more.

        With nothing pending that is all that the stream holds, also what a filter made it skip that
        was edited meanwhile: servers from 2.12 on do not go back when it is put right.
        """
        return self.handed_out if self.pending else self.stream.last_sequence

    @property
    def acked(self) -> int:
        """The highest sequence of the stream that may be acked; above the ack floor if some are."""
        above = self.delivered.consumer_seq - self.ack_floor.consumer_seq > self.ack_pending
        acked = self.delivered.stream_seq if above else self.ack_floor.stream_seq
        return min(acked, self.handed_out)

    def follows(self, before: "Binding", received: int = 0) -> bool:
        """Return whether a reply subject of an earlier binding still means the same message.

        `received` is the number of the last delivery that has come here since.
        Creation times of one consumer differ between the servers of a cluster, so only its
        deliveries count: where they went back, it was recreated, or its server lost its state.
        """
        return (
            self.stream.created_at == before.stream.created_at
            and self.delivered.consumer_seq >= max(received, before.delivered.consumer_seq)
        )


class Consumer:
    """The consumer of one projection, over one connection."""

    def __init__(
        self, connection: Connection, settings: Settings, projection: Projection[Any, Any]
    ) -> None:
        self._connection = connection
        self._js = connection.jetstream(timeout=API_TIMEOUT)
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
            found = await self._consumer()
            consumer = found or await self._create()
        except ServiceUnavailableError as error:
            raise PullLost(
                "JetStream is off on this server, or not enabled for this account"
            ) from error
        except (nats.errors.Error, TimeoutError) as error:
            raise no_response(f"stream {settings.stream} cannot be bound", error) from error
        check_usable(settings, self._projection, consumer.config, self._connection.max_payload)
        binding = await self._binding(consumer, stream)
        return replace(binding, is_new=found is None)

    async def look(self, bound: Binding) -> Binding:
        """Return a bound consumer as it is now.

        Raises PullLost where it does not answer, or a reply subject may mean another message, and
        ConfigurationError where it would now lose or misread messages.
        """
        settings = self._settings
        stream = await read_state(self._connection, settings.stream)
        if stream is None or stream.created_at != bound.stream.created_at:
            raise PullLost("the stream was deleted or recreated")
        try:
            consumer = await consumer_info(self._connection, settings.stream, settings.consumer)
        except (nats.errors.Error, TimeoutError) as error:
            raise no_response("the consumer does not answer", error) from error
        now = await self._binding(consumer, stream)
        if not now.follows(bound):
            raise PullLost("the consumer went back: it was recreated, or its server lost its state")
        check_usable(settings, self._projection, now.config, self._connection.max_payload)
        return now

    async def _binding(self, consumer: Info, stream: StreamState) -> Binding:
        return await read_binding(self._connection, self._settings.stream, consumer, stream)

    async def _stream(self) -> StreamState:
        settings, spec = self._settings, self._projection.stream
        if state := await read_state(self._connection, settings.stream):
            return state
        if not settings.create_stream:
            raise StreamMissing(missing_stream(settings, self._connection.domain))
        config = StreamConfig(
            name=settings.stream,
            subjects=list(spec.subjects),
            max_age=spec.max_age,
            max_bytes=spec.max_bytes,
            discard=DiscardPolicy.OLD,
        )
        try:
            await self._js.add_stream(config)
        except BadRequestError as error:
            # A worker that creates it at the same time makes the server refuse this one's.
            if state := await read_state(self._connection, settings.stream):
                return state
            raise ConfigurationError(
                f"stream {settings.stream} cannot be created: {error}"
            ) from error
        log.info("stream.created", extra={"stream": settings.stream, "subjects": spec.subjects})
        state = await read_state(self._connection, settings.stream)
        if state is None:
            raise StreamMissing(f"stream {settings.stream} was deleted as soon as it was created")
        return state

    async def _consumer(self) -> Info | None:
        settings = self._settings
        place = self._connection, settings.stream, settings.consumer
        with contextlib.suppress(NotFoundError):
            return await consumer_info(*place)
        return None

    async def _create(self) -> Info:
        settings = self._settings
        place = self._connection, settings.stream, settings.consumer
        wanted = wanted_consumer(settings, self._projection)
        try:
            await self._js.add_consumer(settings.stream, wanted)
        except BadRequestError as error:
            problem = f"consumer {settings.consumer} cannot be created: {error.description}"
            if error.err_code == _TOO_MANY_CONSUMERS:
                problem += "; the worker waits until another one is deleted"
                raise PullLost(problem) from error
            if error.err_code == _TOO_MANY_ACK_PENDING:
                problem += "; pass a smaller --max-ack-pending"
            raise ConfigurationError(problem) from error
        log.info("consumer.created", extra={"consumer": settings.consumer})
        return await consumer_info(*place)


async def read_binding(
    connection: Connection, name: str, consumer: Info, stream: StreamState
) -> Binding:
    """Return what the broker reported of a consumer, and before that of the stream that it is on.

    Raises PullLost where the broker does not answer.
    """
    binding = as_binding(consumer, stream)
    if binding.delivered.stream_seq > stream.last_sequence:
        # Others may have received what was published between the two answers.
        last = await last_sequence(connection, name)
        binding = replace(binding, is_ahead=binding.delivered.stream_seq > last)
    return binding


def as_binding(consumer: Info, stream: StreamState) -> Binding:
    """Return both answers as one value."""
    return Binding(
        stream=stream,
        config=consumer.config,
        pending=consumer.num_pending or 0,
        ack_pending=consumer.num_ack_pending or 0,
        redelivered=consumer.num_redelivered or 0,
        pull_requests=consumer.num_waiting or 0,
        delivered=consumer.delivered or SequenceInfo(0, 0),
        ack_floor=consumer.ack_floor or SequenceInfo(0, 0),
        paused_until=consumer.config.pause_until if consumer.paused else None,
    )


def wanted_consumer(settings: Settings, projection: Projection[Any, Any]) -> Config:
    """Return the configuration that a worker gives a consumer that it creates."""
    return Config(
        durable_name=settings.consumer,
        filter_subject=projection.filter_subject,
        deliver_policy=DeliverPolicy.ALL,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=settings.ack_wait,
        max_deliver=-1,
        replay_policy=ReplayPolicy.INSTANT,
        max_ack_pending=settings.max_ack_pending,
    )


def differences(wanted: ConsumerConfig, found: ConsumerConfig) -> dict[str, tuple[Any, Any]]:
    """Return the settings of a consumer that differ, each with the wanted and the found value.

    Filter and ack policy are not compared here: see `check_usable`.
    """
    compared = {
        "deliver_policy": (wanted.deliver_policy, found.deliver_policy),
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
    settings: Settings, projection: Projection[Any, Any], found: Config, max_payload: int
) -> None:
    """Raise ConfigurationError for a consumer that would lose or misread messages, or send none.

    `max_payload` is the server's, in bytes.
    """
    filters = found.filter_subjects or ([found.filter_subject] if found.filter_subject else [])
    problem = None
    wanted = [projection.filter_subject] if projection.filter_subject else []
    if filters != wanted and filters not in [[other] for other in projection.other_filters]:
        listed = ", ".join(filters) or "nothing"
        problem = f"filters {listed}, expected {', '.join(wanted) or 'no filter'}"
    elif found.ack_policy != AckPolicy.EXPLICIT:
        problem = f"has the ack policy {_plain(found.ack_policy)}, expected explicit"
    elif found.deliver_subject:
        problem = f"pushes to {found.deliver_subject}, expected a pull consumer"
    elif found.headers_only:
        problem = "delivers headers only, expected whole messages"
    else:
        problem = found.unserved_request(max_payload)
    if problem is not None:
        raise ConfigurationError(
            f"consumer {settings.consumer} of stream {settings.stream} {problem}; "
            "it is left unchanged: name another one with --consumer, or delete it"
        )


def _plain(value: Any) -> Any:
    return getattr(value, "value", value)
