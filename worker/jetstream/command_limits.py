"""What a tick of the upkeep goes by, for a command: found out from the broker and the checkpoints.

A worker knows how far it has projected; a command only believes what a checkpoint says of this very
database and of the streams as they are now.
"""

from typing import NamedTuple

from repo import checkpoint as checkpoints
from repo.checkpoint import Checkpoint, Position
from repo.reader import Reader
from worker.errors import ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.clock import broker_time
from worker.jetstream.inspect import inspect_broker, workers
from worker.jetstream.presence import elsewhere
from worker.jetstream.stream import StreamState, has_gone_back
from worker.jetstream.upkeep import Limits
from worker.jetstream.watermark import projected_up_to
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.health import CATCHING_UP, CONSUMER_SHARED


class Known(NamedTuple):
    """What a tick goes by, and for how many seconds each stream keeps a message, 0 for ever."""

    limits: Limits
    max_ages: dict[str, float]


def ask_limits(client: BrokerClient, settings: Settings, reader: Reader, place: str) -> Known:
    """Return what a tick goes by in the database in `place`.

    Raises BrokerError where the broker does not answer, and ConfigurationError where it cannot be
    known up to when both streams are in the database.
    """
    up_to = []
    max_ages = {}
    for projection in (STARTS, RESULTS):
        own = settings.of(projection)
        # The broker's time first: what was stored before it is in the stream's state below.
        asked_at = client.do(broker_time(client.connection, own, projection.read_filter))
        stream = _usable_stream(client, own, place)
        checkpoint = _usable_checkpoint(client, own, stream, reader, place)
        instant = client.do(
            projected_up_to(
                *(client.connection, own.stream, projection.read_filter, stream),
                caught_up_to=checkpoint.caught_up_to,
                asked_at=asked_at,
            )
        )
        assert instant is not None  # `asked_at` is known
        up_to.append(instant)
        max_ages[own.stream] = stream.max_age
    now = client.do(broker_time(client.connection, settings, STARTS.read_filter))
    return Known(Limits(now, min(now, *up_to)), max_ages)


def _usable_stream(client: BrokerClient, settings: Settings, place: str) -> StreamState:
    """Return the state of a stream whose consumer no other database shares."""
    view = inspect_broker(client, settings)
    if view.stream is None:
        raise ConfigurationError(f"stream {settings.stream} does not exist")
    if view.consumer is None:
        raise ConfigurationError(f"consumer {settings.consumer} does not exist")
    peers = workers(client, settings)
    if others := elsewhere(peers, place):
        raise ConfigurationError(
            f"a worker on {others[0]} projects consumer {settings.consumer} into another database"
        )
    for peer in peers:
        if peer.state in (CATCHING_UP, CONSUMER_SHARED):
            raise ConfigurationError(f"a worker on this database is in state {peer.state}")
    return view.stream


def _usable_checkpoint(
    client: BrokerClient, settings: Settings, stream: StreamState, reader: Reader, place: str
) -> Checkpoint:
    """Return the checkpoint of a stream, if it is of this stream and this database."""
    stored = reader.read(checkpoints.read, Position(settings.stream, settings.consumer))
    name = f"the checkpoint of consumer {settings.consumer}"
    if stored is None:
        raise ConfigurationError(f"this database has no checkpoint of consumer {settings.consumer}")
    if stored.checkpoint.stream_created_at != stream.created_at:
        raise ConfigurationError(f"{name} is of an earlier stream {settings.stream}")
    if stored.place != place:
        raise ConfigurationError(
            f"{name} was written in another place: the database was moved, copied or restored, or "
            "the machine was restarted, and no worker has connected since"
        )
    if client.do(has_gone_back(client.connection, settings.stream, stored.checkpoint, stream)):
        raise ConfigurationError(f"stream {settings.stream} went back to an older state")
    return stored.checkpoint
