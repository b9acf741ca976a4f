"""`projector status`: how far the projection is, whether a worker runs or not."""

import time
from dataclasses import asdict, dataclass, field
from typing import Any

import click

from repo import checkpoint as checkpoints
from repo import queries as runs
from repo.checkpoint import Position, StoredCheckpoint
from repo.errors import RepositoryError
from repo.queries import Counted
from worker.cli.context import chosen_settings, database_of
from worker.cli.options import SECONDS, broker_command
from worker.cli.output import Members, json_text, paragraph, safe, user_message
from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError, exit_code
from worker.jetstream.client import BrokerClient
from worker.jetstream.inspect import BrokerView, ConsumerView, inspect_broker
from worker.jetstream.reconcile import Case, Comparison, compare, find_missing, first_message
from worker.projections.starts import STARTS
from worker.settings import Settings

# Counting stops here; `rejected list --all` lists the rest.
_MOST_REJECTED = 10_000


@click.command(short_help="Show how far behind the projection is.")
@click.option(
    "--watch",
    type=SECONDS,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Repeat at this interval, by default every 2 s, until Ctrl-C.",
)
@broker_command
def status(*, watch: float | None, as_json: bool, **options: Any) -> int:
    """Show how far the projection is, from the broker and the database.

    \b
    projector status --watch
    projector status --json | jq .consumer.pending

    It works with and without a running worker, and shows what it can if one of the two is
    unavailable.

    With --json: {"stream": {…}, "consumer": {"pending": 0, "ack_pending": 0, "pull_requests": 1,
    …}, "database": {"committed_at": …, "rejected": 0, …}, "caught_up": true, "finding": …,
    "behind_seconds": 0.0, "problems": []}.

    Exit codes: 0 the database has caught up with the broker; 1 it has not, or the stream or the
    consumer does not exist.
    """
    settings = chosen_settings(options)
    try:
        while True:
            answers = _ask(settings)
            members = _members(settings, answers)
            if watch is not None and not as_json:
                click.clear()
            click.echo(json_text(members) if as_json else _text(members))
            if watch is None:
                return _code(answers)
            time.sleep(watch)
    except KeyboardInterrupt:
        return EXIT_OK


@dataclass(slots=True)
class _Answers:
    """The answers of broker and database; None for what did not answer or does not exist."""

    broker: BrokerView | None = None
    stored: StoredCheckpoint | None = None
    counted: Counted | None = None
    oldest: int | None = None  # when the first event that is not acked was stored, an instant
    comparison: Comparison | None = None
    is_missing: bool = False
    errors: list[BrokerError | ConfigurationError | RepositoryError] = field(default_factory=list)

    @property
    def consumer(self) -> ConsumerView | None:
        return self.broker.consumer if self.broker else None


def _ask(settings: Settings) -> _Answers:
    answers = _Answers()
    try:
        with BrokerClient(settings) as client:
            # The broker first: otherwise a running worker could ack in between, and the broker
            # would seem to be ahead of the database.
            answers.broker = inspect_broker(client, settings)
            _ask_database(settings, answers)
            _compare(client, settings, answers)
    except (BrokerError, ConfigurationError) as error:
        answers.errors.append(error)
    if answers.broker is None:
        _ask_database(settings, answers)
    return answers


def _ask_database(settings: Settings, answers: _Answers) -> None:
    position = Position(settings.stream, settings.consumer)
    now = format_instant(time.time_ns())
    try:
        with database_of(settings).reader() as reader:
            answers.stored = reader.read(checkpoints.recall, position)
            answers.counted = reader.read(runs.count, now, _MOST_REJECTED + 1)
    except (RepositoryError, ConfigurationError) as error:
        answers.errors.append(error)


def _compare(client: BrokerClient, settings: Settings, answers: _Answers) -> None:
    if answers.consumer is None:
        return
    binding = answers.consumer.binding
    position, place = binding.position, (client.connection, settings.stream)
    if binding.has_work:
        above = position.ack_floor + 1
        first = client.do(first_message(*place, above, STARTS.filter_subject))
        answers.oldest = parse_instant(first["time"]) if first is not None else None
    if answers.stored is not None:
        comparison = compare(answers.stored, position)
        answers.comparison, answers.is_missing = client.do(
            find_missing(*place, STARTS.filter_subject, comparison, position)
        )


def _code(answers: _Answers) -> int:
    if answers.errors:
        return exit_code(answers.errors[0])
    return EXIT_OK if answers.consumer is not None and not answers.is_missing else EXIT_PARTLY


def _members(settings: Settings, answers: _Answers) -> Members:
    broker, oldest = answers.broker, answers.oldest
    stream = broker.stream if broker else None
    # The age of the oldest event that is not acked.
    behind = (time.time_ns() - oldest) / NANOSECONDS if oldest is not None else 0.0
    return {
        "server": broker.server if broker else None,
        "stream": {"name": settings.stream, **asdict(stream)} if stream else None,
        "consumer": _consumer_members(settings, answers.consumer),
        "database": _database_members(settings, answers),
        "caught_up": None if answers.comparison is None else not answers.is_missing,
        "finding": _finding(settings, answers),
        "behind_seconds": round(behind, 3) if answers.consumer else None,
        "problems": [user_message(error) for error in answers.errors],
    }


def _consumer_members(settings: Settings, consumer: ConsumerView | None) -> Members | None:
    if consumer is None:
        return None
    binding = consumer.binding
    return {
        "name": settings.consumer,
        "pending": binding.pending,
        "ack_pending": binding.position.ack_pending,
        "redelivered": consumer.redelivered,
        "pull_requests": consumer.pull_requests,
        "delivered": binding.position.delivered,
        "ack_floor": binding.position.ack_floor,
    }


def _database_members(settings: Settings, answers: _Answers) -> Members | None:
    if answers.stored is None or answers.counted is None:
        return None
    checkpoint, counted = answers.stored.checkpoint, answers.counted
    return {
        "url": settings.database,
        "committed_at": checkpoint.committed_at if checkpoint else None,
        "highest_sequence": checkpoint.highest_sequence if checkpoint else None,
        "caught_up_to": checkpoint.caught_up_to if checkpoint else None,
        **counted._asdict(),
        "rejected": min(counted.rejected, _MOST_REJECTED),
        "rejected_more": counted.rejected > _MOST_REJECTED,
    }


def _finding(settings: Settings, answers: _Answers) -> str:
    broker, comparison = answers.broker, answers.comparison
    if broker and not broker.stream:
        return f"stream {settings.stream} does not exist; create it, or use run --create-stream"
    if broker and not broker.consumer:
        return f"consumer {settings.consumer} does not exist; a worker creates it"
    if comparison is None:
        return "unknown"
    case = comparison.case.value
    if answers.is_missing:
        return (
            f"{case}: events that were acked on the broker are missing from the database; a worker "
            f"replays them from sequence {comparison.caught_up_to + 1}"
        )
    if comparison.stream_recreated:
        return "the stream was recreated; a worker starts a new checkpoint"
    return Case.CAUGHT_UP.value if comparison.case is Case.BEHIND else case


def _text(members: Members) -> str:
    parts = [f"problem: {safe(problem)}" for problem in members["problems"]]
    behind = members["behind_seconds"]
    if behind is not None:
        parts.append(f"{behind:.1f} s behind" if behind else "no events waiting")
    parts.append(f"state: {members['finding']}")
    if members["server"]:
        parts.append(f"server: nats-server {members['server']}")
    if stream := members["stream"]:
        parts.append(paragraph(f"stream {stream.pop('name')}", stream))
    if consumer := members["consumer"]:
        consumer["pull_requests"] = consumer["pull_requests"] or "none: no worker is pulling now"
        parts.append(paragraph(f"consumer {consumer.pop('name')}", consumer))
    if database := members["database"]:
        if database.pop("rejected_more"):
            database["rejected"] = f"at least {database['rejected']}"
        database["committed_at"] = database["committed_at"] or "never: no checkpoint yet"
        parts.append(paragraph(f"database {database.pop('url')}", database))
    return "\n".join(parts)
