"""`projector status`: how far the projection is, whether a worker runs or not."""

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from repo import checkpoint as checkpoints
from repo import queries as runs
from repo.checkpoint import Checkpoint, Position, Stored
from repo.errors import RepositoryError
from repo.queries import Counted
from worker.cli.context import chosen_settings, database_of, told_time
from worker.cli.options import SECONDS, broker_command, projections
from worker.cli.output import Members, json_text, paragraph, safe, user_message
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError, exit_code
from worker.jetstream.client import BrokerClient
from worker.jetstream.command_limits import ask_limits
from worker.jetstream.consumer import Binding
from worker.jetstream.inspect import BrokerView, inspect_broker, workers
from worker.jetstream.presence import Peer, elsewhere
from worker.jetstream.stream import StreamState, first_message, has_gone_back, missing_stream
from worker.projections.base import Projection
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.health import CATCHING_UP, CONSUMER_SHARED

# Counting stops here; `rejected list --all` lists the rest.
_MOST_REJECTED = 10_000
# What of a checkpoint is shown beside the consumer that it belongs to.
_OF_CHECKPOINT = ("committed_at", "caught_up_to", "last_sequence", "lost_sequences", "lost_at")


@click.command(short_help="Show how far behind the projection is.")
@click.option(
    "--watch",
    type=SECONDS,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Repeat at this interval, by default every 2 s, until Ctrl-C.",
)
@projections
@broker_command
def status(*, watch: float | None, as_json: bool, **options: Any) -> int:
    """Show how far the projection is, from the broker and the database.

    \b
    projector status --watch
    projector status --json | jq .consumer.pending

    It works with and without a running worker, and shows what it can if one of the two is
    unavailable.

    With --projection starts it shows these alone. `projected_up_to` is the time up to which
    everything that the broker stored is in the database; only runs whose deadline is earlier are
    given up.

    With --json: {"stream": {…}, "consumer": {"pending": 0, "ack_pending": 0, "pull_requests": 1,
    …}, "database": {"committed_at": …, "rejected": 0, …}, "workers": [{"host": …, "pid": …,
    "state": …, "database": …, "same_database": true}], "caught_up": true, "finding": …,
    "behind_seconds": 0.0, "problems": [], "results": {"stream": {…}, …}, "projected_up_to": …,
    "unknown_because": null}.

    Exit codes: 0 the database has caught up with the broker; 1 it has not, or the stream or the
    consumer does not exist.
    """
    settings = chosen_settings(options)
    try:
        while True:
            answers = {one: _ask(settings.of(one), one) for one in settings.chosen}
            members = _all_members(settings, answers)
            if watch is not None and not as_json:
                click.clear()
            click.echo(json_text(members) if as_json else _text(members))
            if watch is None:
                return max(map(_code, answers.values()))
            time.sleep(watch)
    except KeyboardInterrupt:
        return EXIT_OK


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
        """Whether the database holds what the consumer handed out; None if that is unknown."""
        if self.consumer is None or not self.is_read:
            return None
        states = {one.state for one in self.workers if one.place == self.place}
        if self.went_back or self.foreign or states & {CATCHING_UP, CONSUMER_SHARED}:
            return False
        return self.unread is None or bool(states)  # a running worker advances the checkpoint soon


def _ask(settings: Settings, projection: Projection[Any, Any]) -> _Answers:
    """Ask about one projection, whose stream and consumer are those of the settings."""
    answers = _Answers()
    try:
        with BrokerClient(settings) as client:
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
    database = database_of(settings)
    try:
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
    if above <= binding.acked and binding.stream.keeps_acked:
        first = client.do(first_message(*stream, above, subjects))
        if first is not None and int(first["seq"]) <= binding.acked:
            answers.unread = int(first["seq"])


def _checkpoint(stored: Stored | None, stream: StreamState) -> Checkpoint:
    """Return the checkpoint of the stream as it is now: a new one for another stream."""
    if stored is None or stored.checkpoint.stream_created_at != stream.created_at:
        return Checkpoint(stream.created_at)
    return stored.checkpoint


def _code(answers: _Answers) -> int:
    if answers.errors:
        return exit_code(answers.errors[0])
    return EXIT_OK if answers.is_caught_up else EXIT_PARTLY


def _all_members(settings: Settings, answers: Mapping[Projection[Any, Any], _Answers]) -> Members:
    """Return the members of the starts, with those of the results as one of them."""
    members = _members(settings, answers[STARTS])
    if RESULTS in answers:
        results = _members(settings.of(RESULTS), answers[RESULTS])
        checkpoint = results.pop("database")
        shown = {name: checkpoint[name] for name in _OF_CHECKPOINT} if checkpoint else None
        del results["server"]
        members["results"] = {**results, "checkpoint": shown}
        members |= _projected_up_to(settings)
    return members


def _projected_up_to(settings: Settings) -> Members:
    """Return up to when everything that the broker stored is in the database, or why not known."""
    database = database_of(settings)
    try:
        with BrokerClient(settings) as client, database.reader() as reader:
            known = ask_limits(client, settings, reader, database.place())
    except (BrokerError, ConfigurationError, RepositoryError) as error:
        return {"projected_up_to": None, "unknown_because": user_message(error)}
    return {"projected_up_to": format_instant(known.limits.known), "unknown_because": None}


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


def _worker_members(worker: Peer, answers: _Answers) -> Members:
    members = {
        name: getattr(worker, name)
        for name in ("host", "pid", "version", "started", "state", "database")
    }
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
            return f"{state}: see the log of the worker"
    return None


def _position_finding(answers: _Answers, binding: Binding) -> str:
    if answers.went_back or binding.is_ahead:
        return "the stream went back to an older state; a worker reads it again"
    if answers.unread is None:
        return "caught up" if answers.stored else "new: no checkpoint yet"
    if answers.is_caught_up:
        return "caught up; the checkpoint follows"
    return f"a worker will read the stream again from sequence {answers.unread}"


def _text(members: Members) -> str:
    results = members.pop("results", None)
    parts = [*_summary(members, "events")]
    if results is not None:
        parts += [f"results: {line}" for line in _summary(results, "results")]
        unknown = members["unknown_because"]
        up_to = f"unknown, so no run is given up: {safe(unknown)}" if unknown else None
        parts.append(f"projected up to: {up_to or members['projected_up_to']}")
    parts += _paragraphs(members)
    if results is not None:
        parts += _paragraphs({**results, "server": None, "database": None})
        if checkpoint := results["checkpoint"]:
            parts.append(paragraph("checkpoint of results", checkpoint))
    return "\n".join(parts)


def _summary(members: Members, what: str) -> Iterator[str]:
    """Yield what matters most of one projection."""
    yield from (f"problem: {safe(problem)}" for problem in members["problems"])
    behind = members["behind_seconds"]
    if behind is not None:
        yield f"{behind:.1f} s behind" if behind else f"no {what} waiting"
    elif members["consumer"]:
        yield f"{what} wait; since when is unknown: the broker does not tell its time"
    yield f"state: {members['finding']}"


def _paragraphs(members: Members) -> list[str]:
    parts = []
    if members["server"]:
        parts.append(f"server: nats-server {members['server']}")
    if stream := members["stream"]:
        parts.append(paragraph(f"stream {stream.pop('name')}", stream))
    if consumer := members["consumer"]:
        consumer["pull_requests"] = consumer["pull_requests"] or "none: no worker is pulling now"
        parts.append(paragraph(f"consumer {consumer.pop('name')}", consumer))
    for number, worker in enumerate(members["workers"], 1):
        parts.append(paragraph(f"worker {number}", worker))
    if database := members["database"]:
        if database.pop("rejected_more"):
            database["rejected"] = f"at least {database['rejected']}"
        database["committed_at"] = database["committed_at"] or "never: no checkpoint yet"
        parts.append(paragraph(f"database {database.pop('url')}", database))
    return parts
