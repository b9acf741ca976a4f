"""`projector check`: does everything that a worker needs exist and work?"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import click

from repo import Database, open_database
from repo import checkpoint as checkpoints
from repo.checkpoint import Position
from repo.errors import RepositoryError
from repo.findings import Finding, Level
from worker.cli.context import chosen_settings
from worker.cli.doubts import find_doubts
from worker.cli.help import command
from worker.cli.options import json_option
from worker.cli.output import json_text, safe, user_message
from worker.cli.worker_options import worker_options
from worker.codec.timestamps import NANOSECONDS, parse_stored
from worker.errors import EXIT_OK, EXIT_PARTLY, BrokerError, ConfigurationError, WorkerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.consumer import Binding, check_usable, differences, wanted_consumer
from worker.jetstream.inspect import inspect_broker, workers
from worker.jetstream.manifest_sync import read_manifests
from worker.jetstream.permissions import (
    create_stream_permissions,
    missing_permissions,
    reading_permissions,
    worker_permissions,
)
from worker.jetstream.presence import Peer, elsewhere
from worker.jetstream.stream import missing_stream
from worker.projections.base import Projection
from worker.projections.manifests import ManifestCache
from worker.schema import check_schema
from worker.settings import Settings
from worker.status.health import CONSUMER_SHARED

_NAGIOS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_UNKNOWN = 3
# Seconds: as long as the fleet's stream keeps a message.
_REPORT_LOST_FOR = 7 * 24 * 3600


@command(short_help="Check everything that a worker needs.")
@worker_options
@click.option("--thorough", is_flag=True, help="Also read the whole database, to find corruption.")
@click.option(
    "--nagios",
    is_flag=True,
    help="Print one line first, for monitoring; exit with 0 ok, 1 warning, 2 critical, 3 unknown.",
)
@json_option
def check(*, thorough: bool, nagios: bool, as_json: bool, **options: Any) -> int:
    """Check the settings, the database, its disk, and the broker with every permission on it.

    \b
    projector check
    ExecStartPre=-/opt/projector/bin/projector check
    projector check --nagios

    It takes every option of `run`, creates and changes nothing, and works before a worker starts or
    beside one. To test permissions it sends the broker messages without effect. Keep the - in a
    unit file: without it an error fails the start, and systemd restarts the unit forever.

    With --json: {"findings": [{"name": "permissions", "level": "error", "text": …}, …], "level":
    "error"}. The levels are ok, warning and error.

    Exit codes: 0 no error, warnings at most; 1 an error; with --nagios only 0 to 3.
    """
    # Every problem is a finding; it need not be logged as well.
    options["log_level"] = "critical"
    doubts = find_doubts(options)
    settings = chosen_settings(options)
    findings = []
    for finding in chain(_settings(doubts), find_all(settings, thorough=thorough)):
        findings.append(finding)
        if not (nagios or as_json):
            click.echo(_line(finding))
    worst = max(finding.level for finding in findings)
    if as_json:
        listed = [{**one._asdict(), "level": _word(one.level)} for one in findings]
        click.echo(json_text({"findings": listed, "level": _word(worst)}))
    elif nagios:
        click.echo(_nagios_lines(findings, worst))
    code = EXIT_PARTLY if worst is Level.ERROR else EXIT_OK
    return int(worst) if nagios else code


def _settings(doubts: Sequence[str]) -> Iterator[Finding]:
    level = Level.WARNING if doubts else Level.OK
    yield Finding("settings", level, "; ".join(doubts) or "valid")


def find_all(settings: Settings, *, thorough: bool) -> Iterator[Finding]:
    """Check everything, and yield each finding as soon as it is known."""
    database = open_database(settings.database, busy_timeout=settings.busy_timeout)
    yield from _guarded("schema", lambda: _schema(database, settings))
    yield from database.check(thorough=thorough, retry_for=settings.retry_for)
    yield from _guarded("broker", lambda: _broker(settings))


def _schema(database: Database, settings: Settings) -> Iterator[Finding]:
    try:
        check_schema(database, apply=False)
    except ConfigurationError as error:
        if not settings.migrate:
            raise
        yield Finding("schema", Level.OK, f"--migrate will fix: {error}")
        return
    if unknown := database.unknown_migrations():
        text = f"a newer version applied {', '.join(unknown)}; upgrade this one"
        yield Finding("schema", Level.WARNING, text)
    else:
        yield Finding("schema", Level.OK, "every migration is applied")


def _broker(settings: Settings) -> Iterator[Finding]:
    with BrokerClient(settings) as client:
        encrypted = "encrypted" if settings.tls.required else "not encrypted"
        text = f"connected to nats-server {client.connection.server()}, {encrypted}"
        if domain := client.connection.domain:
            text += f", JetStream domain {domain}"
        yield Finding("broker", Level.OK, text)
        yield from _permissions(client, settings)
        for projection in settings.chosen:
            place = client, settings.of(projection)
            look = partial(_stream, *place, projection)
            yield from _guarded("stream", look)
            yield from _guarded("workers", partial(_workers, *place))
        yield from _guarded("manifests", lambda: _manifests(client, settings))


def _permissions(client: BrokerClient, settings: Settings) -> Iterator[Finding]:
    needed = worker_permissions(settings)
    if settings.create_stream:
        needed += create_stream_permissions(settings)
    missing = missing_permissions(client, settings, needed)
    for right in missing:
        verb = "subscribe to" if right.subscribe else "publish to"
        text = f"user may not {verb} {right.subject} (needed to {right.purpose})"
        level = Level.WARNING if right.is_optional else Level.ERROR
        yield Finding("permissions", level, text)
    if not missing:
        text = f"all {len(needed)} that a worker needs"
        if missing_permissions(client, settings, reading_permissions(settings)):
            text += "; verify, rebuild and explain need more"
        yield Finding("permissions", Level.OK, text)


def _stream(
    client: BrokerClient, settings: Settings, projection: Projection[Any, Any]
) -> Iterator[Finding]:
    view = inspect_broker(client, settings)
    if view.stream is None:
        level = Level.OK if settings.create_stream else Level.ERROR
        yield Finding("stream", level, missing_stream(settings, view.domain))
        return
    yield Finding("stream", Level.OK, f"{settings.stream} has {view.stream.messages} messages")
    if view.consumer is not None:
        yield _consumer(view.consumer, settings, projection, view.max_payload)
    else:
        text = f"{settings.consumer} does not exist yet; a worker creates it"
        yield Finding("consumer", Level.OK, text)


def _consumer(
    binding: Binding, settings: Settings, projection: Projection[Any, Any], max_payload: int
) -> Finding:
    try:
        check_usable(settings, projection, binding.config, max_payload)
    except ConfigurationError as error:
        return Finding("consumer", Level.ERROR, str(error))
    wanted = wanted_consumer(settings, projection)
    different = differences(wanted, binding.config).items()
    if different:
        listed = [f"{name} is {found}, expected {ours}" for name, (ours, found) in different]
        text = f"{settings.consumer}: {', '.join(listed)}; a worker uses it unchanged"
        return Finding("consumer", Level.WARNING, text)
    return Finding("consumer", Level.OK, f"{settings.consumer} is as a worker creates it")


def _workers(client: BrokerClient, settings: Settings) -> Iterator[Finding]:
    """Yield a database that another worker uses for the same consumer, and what was lost."""
    database = open_database(settings.database)
    found = workers(client, settings)
    place = database.place()
    foreign = elsewhere(found, place)
    shared = [one for one in found if one.state == CONSUMER_SHARED]
    if foreign:
        text = (
            f"a worker on {foreign[0]} projects consumer {settings.consumer} into another "
            "database; give one of the two a consumer of its own with --consumer"
        )
        yield Finding("workers", Level.ERROR, text)
    elif shared:
        text = f"another program receives messages of consumer {settings.consumer}"
        yield Finding("workers", Level.ERROR, f"{text}, says the worker on {shared[0]}")
    else:
        yield _running(client, settings, found)
    with database.reading() as connection:
        stored = checkpoints.read(connection, Position(settings.stream, settings.consumer))
    if stored is not None and stored.lost.at is not None:
        age = (time.time_ns() - parse_stored(stored.lost.at)) / NANOSECONDS
        if age < _REPORT_LOST_FOR:
            text = (
                f"the stream lost {stored.lost.sequences} sequences before they were read, the "
                f"last one {stored.lost.up_to}, noticed at {stored.lost.at}"
            )
            yield Finding("lost", Level.WARNING, text)


def _running(client: BrokerClient, settings: Settings, found: Sequence[Peer]) -> Finding:
    """Return which workers run; a warning if messages wait and no program pulls them."""
    if found:
        listed = "; ".join(f"{one}, {one.state}" for one in found)
        return Finding("workers", Level.OK, listed)
    consumer = inspect_broker(client, settings).consumer
    if consumer is not None and consumer.has_work and not consumer.pull_requests:
        text = f"none runs: {consumer.not_acked} messages wait, and no program pulls them"
        return Finding("workers", Level.WARNING, text)
    return Finding("workers", Level.OK, "none runs, or this user may not see them")


def _manifests(client: BrokerClient, settings: Settings) -> Iterator[Finding]:
    manifests = ManifestCache()
    try:
        without_key = read_manifests(client, settings.bucket, manifests)
    except (BrokerError, ConfigurationError) as error:
        text = f"runs will have no deadlines: {user_message(error)}"
        yield Finding("manifests", Level.WARNING, text)
        return
    without = manifests.without_timeout()
    text = f"{len(manifests)} in bucket {settings.bucket}"
    no_key = without_key and not len(manifests)
    if no_key:
        text += f"; none of its {without_key} messages is that of a key ($KV.<bucket>.<key>)"
    elif without:
        text += f", {len(without)} without a readable timeout, such as {without[0]}"
    yield Finding("manifests", Level.WARNING if without or no_key else Level.OK, text)


def _guarded(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    """Yield what a look finds; its error is a finding as well."""
    try:
        yield from look()
    except (RepositoryError, WorkerError) as error:
        yield Finding(name, Level.ERROR, user_message(error))


def unknown_to_nagios(error: Exception) -> int:
    """Print the error that prevents a check as one line, and return the exit code for it."""
    if isinstance(error, click.UsageError):
        reason = error.format_message()
    elif isinstance(error, WorkerError | RepositoryError):
        reason = user_message(error)
    else:  # its text may hold anything, even a secret
        reason = f"a bug ({type(error).__name__}); run without --nagios for the traceback"
    click.echo(_nagios_line(f"PROJECTOR {_NAGIOS[_UNKNOWN]}: {reason}"))
    return _UNKNOWN


def _line(finding: Finding) -> str:
    return f"{_word(finding.level):8} {finding.name:11} {safe(finding.text)}"


def _word(level: Level) -> str:
    return level.name.lower()


def _nagios_lines(findings: Sequence[Finding], worst: Level) -> str:
    problems = [f"{finding.name}: {finding.text}" for finding in findings if finding.level is worst]
    summary = "; ".join(problems) if worst else f"{len(findings)} checks"
    lines = [f"PROJECTOR {_NAGIOS[worst]}: {summary}", *map(_line, findings)]
    return "\n".join(map(_nagios_line, lines))


def _nagios_line(text: str) -> str:
    # A | would begin performance data.
    return safe(text).replace("|", "/")
