"""`projector status`: how far the projection is, whether a worker runs or not."""

import socket
import time
from collections.abc import Collection
from dataclasses import asdict, dataclass, field
from typing import Any

import click
from rich.console import Console

from repo import checkpoint as checkpoints
from repo import open_database
from repo import queries as runs
from repo.checkpoint import Checkpoint, Position, Stored
from repo.engine import LockHolder
from repo.errors import RepositoryError
from repo.queries import Counted
from worker.cli.context import CommandBroker, chosen_settings, database_of, told_time
from worker.cli.help import command
from worker.cli.options import SECONDS, broker_command, projections
from worker.cli.output import Members, json_text, user_message
from worker.cli.status_text import print_status
from worker.cli.tables import terminal
from worker.cli.tables import watch as redraw
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError, exit_code
from worker.jetstream.client import BrokerClient
from worker.jetstream.command_limits import ask_limits
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding
from worker.jetstream.inspect import BrokerView, inspect_broker, workers
from worker.jetstream.presence import Peer, elsewhere
from worker.jetstream.stream import StreamState, first_message, has_gone_back, missing_stream
from worker.projections.base import Projection
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.health import CATCHING_UP, CONSUMER_SHARED, IDLE, WORKING

# Counting stops here; `rejected list --all` lists the rest.
_MOST_REJECTED = 10_000
_BETWEEN_LOOKS = 0.3
_CHECKPOINT_FOLLOWS = 2.5
# What of a checkpoint is shown beside the consumer that it belongs to.
_OF_CHECKPOINT = ("committed_at", "caught_up_to", "last_sequence", "lost_sequences", "lost_at")


@command(short_help="Show how far behind the projection is.")
@click.option("--details", is_flag=True, help="Show streams, consumers and checkpoints as well.")
@click.option(
    "--watch",
    type=SECONDS,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Draw it again at this interval, by default every 2 s, until Ctrl-C.",
)
@projections
@broker_command
def status(*, watch: float | None, details: bool, as_json: bool, **options: Any) -> int:
    """Show how far the projection is, which workers run, and what hinders them.

    \b
    projector status --watch
    projector status --json | jq .consumer.pending

    It works with and without a running worker, and shows what it can if broker or database is
    unavailable. With --projection starts it shows these alone.

    "projected up to" is the time up to which everything that the broker stored is in the database;
    only runs whose deadline is earlier are given up. Workers announce themselves on the broker,
    with the state and the reason of their /readyz and the last warnings that they logged. The write
    lock is that of SQLite on this machine, or a session of PostgreSQL that others wait for.

    With --json: {"stream": {…}, "consumer": {"pending": 0, "ack_pending": 0, "pull_requests": 1,
    …}, "database": {"committed_at": …, "rejected": 0, …}, "workers": [{"host": …, "pid": …,
    "state": …, "reason": …, "restart_helps": false, "per_second": 0.0, "errors": [{"at": …,
    "level": …, "event": …, "error": …}], "database": …, "same_database": true}], "caught_up": true,
    "finding": …, "behind_seconds": 0.0, "seconds_left": null, "problems": [], "results": {"stream":
    {…}, …}, "projected_up_to": …, "unknown_because": null, "lock_holders": [{"pid": …, "program":
    …}]}.

    Exit codes: 0 everything in the streams is in the database; 1 it is not, or a stream or a
    consumer does not exist.
    """
    settings = chosen_settings(options)
    if watch is None:
        answers = _ask_all(settings)
        _print(terminal(), settings, answers, as_json=as_json, details=details)
        return max(_code(one) for one in answers.projections.values())

    def draw(console: Console) -> None:
        _print(console, settings, _ask_all(settings), as_json=as_json, details=details)

    redraw(watch, draw, in_place=not as_json)
    return EXIT_OK


def _print(
    console: Console, settings: Settings, answers: "_AllAnswers", *, as_json: bool, details: bool
) -> None:
    members = _all_members(settings, answers)
    if as_json:
        click.echo(json_text(members))
    else:
        print_status(console, members, details=details)


@dataclass(slots=True)
class _Answers:
    """The answers of broker and database; None for what did not answer or does not exist."""

    broker: BrokerView | None = None
    workers: list[Peer] = field(default_factory=list)
    place: str | None = None
    is_read: bool = False
    stored: Stored | None = None
    counted: Counted | None = None
    oldest: int | None = None  # when the first event that is not acked was stored, an instant
    broker_time: int | None = None  # an instant
    went_back: bool = False
    unread: int | None = None  # the first acked event above the checkpoint
    errors: list[BrokerError | ConfigurationError | RepositoryError] = field(default_factory=list)

    @property
    def consumer(self) -> Binding | None:
        return self.broker.consumer if self.broker else None

    @property
    def foreign(self) -> list[Peer]:
        """The workers that project the consumer into another database than this one."""
        return elsewhere(self.workers, self.place) if self.place else []

    @property
    def is_caught_up(self) -> bool | None:
        """Whether the database holds everything in the stream; None if that is unknown."""
        if self.consumer is None or not self.is_read:
            return None
        if self.consumer.has_work:
            return False
        states = {one.state for one in self.workers if one.place == self.place}
        if self.went_back or self.foreign or states & {CATCHING_UP, CONSUMER_SHARED}:
            return False
        return self.unread is None

    @property
    def runs_here(self) -> bool:
        """Whether a worker projects the consumer into this database."""
        return any(one.place == self.place for one in self.workers)


@dataclass(frozen=True, slots=True)
class _AllAnswers:
    """The answers for each projection; up to when all is projected, or why that is not known."""

    projections: dict[Projection[Any, Any], _Answers]
    projected_up_to: int | None
    unknown_because: str | None
    lock_holders: list[LockHolder]


def _ask_all(settings: Settings) -> _AllAnswers:
    with CommandBroker(settings) as broker:
        answers = {one: _ask(broker, settings.of(one), one) for one in settings.chosen}
        up_to, because = _projected_up_to(broker, settings) if RESULTS in answers else (None, None)
    here = socket.gethostname()
    found = [one for each in answers.values() for one in each.workers]
    workers_here = {one.pid for one in found if one.host == here}
    return _AllAnswers(answers, up_to, because, _lock_holders(settings, workers_here))


def _lock_holders(settings: Settings, workers_here: Collection[int]) -> list[LockHolder]:
    """Return who has the lock at two looks; a worker has it often, and never for long."""
    database = open_database(settings.database, busy_timeout=settings.busy_timeout)
    try:
        first = database.lock_holders()
        if first:
            time.sleep(_BETWEEN_LOOKS)
        again = database.lock_holders() if first else []
    except RepositoryError:
        return []  # what the database answers is among the problems
    return [one for one in first if one in again and one.pid not in workers_here]


def _ask(broker: CommandBroker, settings: Settings, projection: Projection[Any, Any]) -> _Answers:
    """Ask about one projection, whose stream and consumer are those of the settings."""
    answers = _Answers()
    try:
        with broker.connected() as client:
            # The broker first: otherwise a running worker could ack in between, and the broker
            # would seem to be ahead of the database.
            answers.broker = inspect_broker(client, settings)
            answers.workers = workers(client, settings)
            if answers.consumer is not None:
                answers.broker_time = told_time(client, settings)
            _ask_database(settings, answers)
            _compare(client, settings, projection.read_filter, answers)
    except (BrokerError, ConfigurationError) as error:
        answers.errors.append(error)
    if answers.broker is None:
        _ask_database(settings, answers)
    return answers


def _ask_database(settings: Settings, answers: _Answers) -> None:
    position = Position(settings.stream, settings.consumer)
    # Deadlines are by the broker's clock, but the database is read without a broker as well.
    now = format_instant(answers.broker_time or time.time_ns())
    try:
        database = database_of(settings)
        with database.reader() as reader:
            answers.place = database.place()
            answers.stored = reader.read(checkpoints.read, position)
            answers.counted = reader.read(runs.count, now, _MOST_REJECTED + 1)
            answers.is_read = True
    except (RepositoryError, ConfigurationError) as error:
        answers.errors.append(error)


def _compare(client: BrokerClient, settings: Settings, subjects: str, answers: _Answers) -> None:
    binding = answers.consumer
    if binding is None:
        return
    stream = (client.connection, settings.stream)
    if binding.has_work:
        above = binding.ack_floor.stream_seq + 1
        first = client.do(first_message(*stream, above, subjects))
        answers.oldest = parse_instant(first["time"]) if first is not None else None
    if not answers.is_read:
        return
    checkpoint = _checkpoint(answers.stored, binding.stream)
    answers.went_back = client.do(has_gone_back(*stream, checkpoint, binding.stream))
    above = 1 if answers.went_back else checkpoint.caught_up_to + 1
    if answers.runs_here and binding.has_work:
        return  # its checkpoint follows
    answers.unread = client.do(_unread(*stream, above, subjects, binding))
    if answers.unread is not None and answers.runs_here and not answers.went_back:
        # An idle worker advances its checkpoint within a second, unless the database is another.
        time.sleep(_CHECKPOINT_FOLLOWS)
        with database_of(settings).reader() as reader:
            stored = reader.read(checkpoints.read, Position(settings.stream, settings.consumer))
        above = _checkpoint(stored, binding.stream).caught_up_to + 1
        answers.unread = client.do(_unread(*stream, above, subjects, binding))


async def _unread(
    connection: Connection, stream: str, above: int, subjects: str, binding: Binding
) -> int | None:
    """Return the first sequence from `above` on that is acked and not in the database, if any."""
    if above > binding.acked or not binding.stream.keeps_acked:
        return None
    first = await first_message(connection, stream, above, subjects)
    return int(first["seq"]) if first is not None and int(first["seq"]) <= binding.acked else None


def _checkpoint(stored: Stored | None, stream: StreamState) -> Checkpoint:
    """Return the checkpoint of the stream as it is now: a new one for another stream."""
    if stored is None or stored.checkpoint.stream_created_at != stream.created_at:
        return Checkpoint(stream.created_at)
    return stored.checkpoint


def _code(answers: _Answers) -> int:
    if answers.errors:
        return exit_code(answers.errors[0])
    return EXIT_OK if answers.is_caught_up else EXIT_PARTLY


def _all_members(settings: Settings, answers: _AllAnswers) -> Members:
    """Return the members of the starts, with those of the results as one of them."""
    members = _members(settings, answers.projections[STARTS])
    if RESULTS in answers.projections:
        results = _members(settings.of(RESULTS), answers.projections[RESULTS])
        checkpoint = results.pop("database")
        shown = {name: checkpoint[name] for name in _OF_CHECKPOINT} if checkpoint else None
        del results["server"]
        members["results"] = {**results, "checkpoint": shown}
        up_to = answers.projected_up_to
        members["projected_up_to"] = None if up_to is None else format_instant(up_to)
        members["unknown_because"] = answers.unknown_because
    members["lock_holders"] = [one._asdict() for one in answers.lock_holders]
    return members


def _projected_up_to(broker: CommandBroker, settings: Settings) -> tuple[int | None, str | None]:
    """Return up to when everything that the broker stored is in the database, or why unknown."""
    try:
        database = database_of(settings)
        with database.reader() as reader:
            return ask_limits(
                broker.client(), settings, reader, database.place()
            ).limits.known, None
    except (BrokerError, ConfigurationError, RepositoryError) as error:
        return None, user_message(error)


def _members(settings: Settings, answers: _Answers) -> Members:
    broker = answers.broker
    stream = broker.stream if broker else None
    return {
        "server": broker.server if broker else None,
        "stream": {"name": settings.stream, **asdict(stream)} if stream else None,
        "consumer": _consumer_members(settings, answers.consumer),
        "database": _database_members(settings, answers),
        "workers": [_worker_members(one, answers) for one in answers.workers],
        "caught_up": answers.is_caught_up,
        "finding": _finding(settings, answers),
        "behind_seconds": _seconds_behind(answers),
        "seconds_left": _seconds_left(answers),
        "problems": [user_message(error) for error in answers.errors],
    }


def _seconds_behind(answers: _Answers) -> float | None:
    """Return the age of the oldest event that is not acked, by the broker's clock alone."""
    if answers.consumer is None:
        return None
    if answers.oldest is None:
        return 0.0
    now = answers.broker_time
    return None if now is None else max(0.0, round((now - answers.oldest) / NANOSECONDS, 3))


def _seconds_left(answers: _Answers) -> float | None:
    """Return how long what waits will take at the present rate of this database's workers."""
    if answers.consumer is None or not answers.consumer.has_work:
        return None
    here = [one for one in answers.workers if one.place == answers.place]
    if any(one.state not in (WORKING, IDLE, CATCHING_UP) for one in here):
        return None
    rate = sum(one.per_second or 0 for one in here)
    return round(answers.consumer.not_acked / rate, 1) if rate else None


def _worker_members(worker: Peer, answers: _Answers) -> Members:
    members = {
        name: getattr(worker, name)
        for name in (
            *("host", "pid", "version", "started", "state", "reason", "restart_helps"),
            *("per_second", "database"),
        )
    }
    members["errors"] = [error._asdict() for error in worker.errors]
    return {**members, "same_database": worker not in answers.foreign if answers.place else None}


def _consumer_members(settings: Settings, binding: Binding | None) -> Members | None:
    if binding is None:
        return None
    return {
        "name": settings.consumer,
        "pending": binding.pending,
        "ack_pending": binding.ack_pending,
        "redelivered": binding.redelivered,
        "pull_requests": binding.pull_requests,
        "delivered": binding.delivered.stream_seq,
        "ack_floor": binding.ack_floor.stream_seq,
        "paused_until": binding.paused_until,
    }


def _database_members(settings: Settings, answers: _Answers) -> Members | None:
    if answers.counted is None:
        return None
    stored, counted = answers.stored, answers.counted
    checkpoint = stored.checkpoint if stored else None
    return {
        "url": settings.database,
        "committed_at": checkpoint.committed_at if checkpoint else None,
        "caught_up_to": checkpoint.caught_up_to if checkpoint else None,
        "last_sequence": checkpoint.last_sequence if checkpoint else None,
        "lost_sequences": stored.lost.sequences if stored else 0,
        "lost_at": stored.lost.at if stored else None,
        **counted._asdict(),
        "rejected": min(counted.rejected, _MOST_REJECTED),
        "rejected_more": counted.rejected > _MOST_REJECTED,
    }


def _finding(settings: Settings, answers: _Answers) -> str:
    broker, binding = answers.broker, answers.consumer
    if broker and not broker.stream:
        return missing_stream(settings, broker.domain)
    if broker and not binding:
        return f"consumer {settings.consumer} does not exist; a worker creates it"
    if binding is None or not answers.is_read:
        return "unknown"
    return _worker_finding(answers) or _position_finding(answers, binding)


def _worker_finding(answers: _Answers) -> str | None:
    if answers.foreign:
        return (
            f"{CONSUMER_SHARED}: a worker on {answers.foreign[0]} projects this consumer into "
            "another database; give one of the two a consumer of its own with --consumer"
        )
    for state in (CONSUMER_SHARED, CATCHING_UP):
        if any(one.state == state for one in answers.workers):
            return state
    return None


def _position_finding(answers: _Answers, binding: Binding) -> str:
    if answers.went_back or binding.is_ahead:
        return "the stream went back to an older state; a worker reads it again"
    if answers.unread is not None:
        when = "once it is restarted, or an event comes" if answers.runs_here else "at its start"
        return f"a worker will read the stream again from sequence {answers.unread} {when}"
    if binding.has_work:
        return "behind" if answers.workers or binding.pull_requests else "behind; no worker runs"
    return "caught up" if answers.stored else "new: no checkpoint yet"
