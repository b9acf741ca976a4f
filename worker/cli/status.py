"""`projector status`: how far the worker is, whether one runs here or not."""

import time
from typing import Any

import click

from repo import checkpoint as checkpoints
from repo import queries as runs
from repo.checkpoint import Position, StoredCheckpoint
from repo.errors import RepositoryError
from repo.queries import Counted
from worker.cli.context import chosen_settings, open_of
from worker.cli.options import SECONDS, broker_command, json_option
from worker.cli.output import Members, json_text, told
from worker.cli.status_view import MOST_REJECTED, members_of, status_text
from worker.cli.tables import clear_screen
from worker.codec.timestamps import NANOSECONDS, format_instant
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError, exit_code
from worker.jetstream.client import BrokerClient
from worker.jetstream.inspect import (
    BrokerView,
    ConsumerView,
    StoredStart,
    look_at_broker,
    next_start,
)
from worker.jetstream.reconcile import look_for_missing
from worker.jetstream.reconciliation import Case, Comparison, compare
from worker.settings import Settings


@click.command(short_help="How far behind, what is pending, in step or not.")
@click.option(
    "--watch",
    type=SECONDS,
    is_flag=False,
    flag_value="2",
    metavar="[SECONDS]",
    help="Ask again every so often, 2 s without a value, until Ctrl-C. With --json: one line each.",
)
@json_option
@broker_command
def status(*, watch: float | None, as_json: bool, **options: Any) -> int:
    """Tell how far the projection is: asks broker and database, beside a worker or without one.

    \b
    projector status
    projector status --watch
    projector status --json | jq .consumer.pending

    With --json: {"stream": …, "consumer": {"pending": 0, "ack_pending": 0, "redelivered": 0, …},
    "database": {"committed_at": …, "rejected": 0, …}, "caught_up": true, "finding": …,
    "behind_seconds": 0.0, "problems": []}.

    Exit codes: 0 database and broker are there, and in step; 1 they are not in step, or there is no
    stream or no consumer; 64 a wrong option; 65 the database is damaged or none; 75 the broker or
    the database cannot be asked just now; 78 either is not set up. What can be told is told in any
    case.
    """
    settings = chosen_settings(options)
    try:
        while True:
            code = _tell(settings, as_json=as_json, fresh=watch is not None)
            if watch is None:
                return code
            time.sleep(watch)
    except KeyboardInterrupt:
        return EXIT_OK


def _tell(settings: Settings, *, as_json: bool, fresh: bool) -> int:
    members, code = _ask(settings)
    if as_json:
        click.echo(json_text(members))
        return code
    if fresh:
        clear_screen()
    click.echo(status_text(members))
    return code


class _Asked:
    """What broker and database told, and the errors of the ones that did not."""

    def __init__(self) -> None:
        self.broker: BrokerView | None = None
        self.recalled: StoredCheckpoint | None = None
        self.counted: Counted | None = None
        self.oldest: StoredStart | None = None
        self.comparison: Comparison | None = None
        self.is_missing = False
        self.database_asked = False
        self.errors: list[BrokerError | ConfigurationError | RepositoryError] = []


def _ask(settings: Settings) -> tuple[Members, int]:
    asked = _Asked()
    try:
        with BrokerClient(settings) as visit:
            # Broker first: a worker beside this cannot make it look farther than the database then.
            asked.broker = look_at_broker(visit, settings)
            _ask_database(settings, asked)
            if asked.broker.consumer is not None:
                _compare(visit, settings, asked.broker.consumer, asked)
    except (BrokerError, ConfigurationError) as error:
        asked.errors.append(error)
    if not asked.database_asked:
        _ask_database(settings, asked)
    return _members(settings, asked), _code(asked)


def _ask_database(settings: Settings, asked: _Asked) -> None:
    asked.database_asked = True
    position = Position(settings.stream, settings.consumer)
    now = format_instant(time.time_ns())
    try:
        with open_of(settings).reader() as reader:
            asked.recalled = reader.read(checkpoints.recall, position)
            asked.counted = reader.read(runs.count, now, MOST_REJECTED + 1)
    except (RepositoryError, ConfigurationError) as error:
        asked.errors.append(error)


def _compare(
    visit: BrokerClient, settings: Settings, consumer: ConsumerView, asked: _Asked
) -> None:
    if consumer.pending or consumer.ack_pending:
        asked.oldest = next_start(visit, settings.stream, consumer.floor + 1)
    if asked.recalled is None:
        return
    footing = consumer.binding.footing
    comparison = compare(asked.recalled, footing)
    looking = look_for_missing(visit.connection, settings.stream, comparison, footing)
    asked.comparison, asked.is_missing = visit.do(looking)


def _members(settings: Settings, asked: _Asked) -> Members:
    behind = None
    if asked.broker is not None and asked.broker.consumer is not None:
        behind = 0.0
        if asked.oldest is not None:
            behind = round((time.time_ns() - asked.oldest.recorded_at) / NANOSECONDS, 3)
    return {
        **members_of(settings, asked.broker, asked.recalled, asked.counted),
        "caught_up": None if asked.comparison is None else not asked.is_missing,
        "finding": _finding(asked),
        "behind_seconds": behind,
        "problems": [told(error) for error in asked.errors],
    }


def _finding(asked: _Asked) -> str:
    if asked.broker is not None and asked.broker.stream is None:
        return "there is no stream; the fleet's set-up makes it, or run --create-stream does"
    if asked.broker is not None and asked.broker.consumer is None:
        return "there is no consumer; a worker makes it, and projects all that the stream holds"
    if asked.comparison is None:
        return "unknown"
    if asked.is_missing:
        return (
            f"{asked.comparison.case.value}: starts that the broker counts as settled are not in "
            f"it; a worker replays them from sequence {asked.comparison.caught_up_to + 1} on"
        )
    if asked.comparison.stream_recreated:
        return "the stream was made anew; a worker begins a new checkpoint"
    return (
        Case.IN_STEP.value if asked.comparison.case is Case.OLDER else asked.comparison.case.value
    )


def _code(asked: _Asked) -> int:
    if asked.errors:
        return exit_code(asked.errors[0])
    broker = asked.broker
    is_there = broker is not None and broker.consumer is not None
    return EXIT_OK if is_there and not asked.is_missing else EXIT_PARTLY
