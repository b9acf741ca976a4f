"""Is everything there that a worker needs? One finding for each thing that could be amiss."""

import threading
from collections.abc import Callable, Iterator
from enum import IntEnum
from typing import NamedTuple

from repo.errors import RepositoryError
from repo.retry import retry_policy
from repo.sqlite.database import ENGINE, ENGINE_VERSION, Database
from repo.sqlite.disk import damage, look_at
from repo.sqlite.files import is_there
from worker.cli.output import user_message
from worker.errors import BrokerError, ConfigurationError, WorkerError
from worker.jetstream.client import BrokerClient
from worker.jetstream.inspect import ConsumerView, differing, look_at_broker, refusal
from worker.jetstream.manifest_loader import read_manifests
from worker.jetstream.permission_probe import lacking
from worker.jetstream.permissions import create_stream_rights, reading_rights, worker_rights
from worker.projections.manifests import ManifestCache
from worker.schema import check_schema
from worker.settings import Settings

_MEBIBYTE = 1024 * 1024
_LEAST_FREE = 100 * _MEBIBYTE
_LITTLE_FREE = 1024 * _MEBIBYTE


class Level(IntEnum):
    """How bad a finding is."""

    OK = 0
    WARNING = 1
    PROBLEM = 2


class Finding(NamedTuple):
    """What was looked at, and what was found."""

    name: str
    level: Level
    text: str


def find_all(settings: Settings, *, thorough: bool) -> Iterator[Finding]:
    """Look at everything, and yield what was found as soon as it is."""
    yield from _database(settings, thorough=thorough)
    try:
        with BrokerClient(settings) as visit:
            yield from _broker(visit, settings)
    except (BrokerError, ConfigurationError) as error:
        yield Finding("broker", Level.PROBLEM, user_message(error))


# --- the database ---


def _database(settings: Settings, *, thorough: bool) -> Iterator[Finding]:
    database = Database(settings.database, busy_timeout=settings.busy_timeout)
    yield _tried("schema", "every migration is applied", lambda: _schema(database, settings))
    yield _tried("disk", "", lambda: _disk(database))
    yield from _each("database", lambda: _file(database, settings, thorough=thorough))


def _file(database: Database, settings: Settings, *, thorough: bool) -> Iterator[Finding]:
    if is_there(database.path):
        yield _tried("database", "", lambda: _writable(database, settings))
        if thorough:
            yield _tried("pages", "no damage", lambda: _pages(database))


def _schema(database: Database, settings: Settings) -> Finding | None:
    try:
        check_schema(database, apply=False)
    except ConfigurationError as error:
        if not settings.migrate:
            raise
        return Finding("schema", Level.OK, f"--migrate will do: {error}")
    return None


def _disk(database: Database) -> Finding:
    place = look_at(database.path)
    free = f"{place.free_bytes // _MEBIBYTE} MiB free ({place.free_share:.0%})"
    kind = place.kind or "of an unknown kind"
    if place.is_network:
        text = f"{kind} is another machine's disk, on which the database breaks: use a local one"
        return Finding("disk", Level.PROBLEM, text)
    if place.free_bytes < _LEAST_FREE:
        return Finding("disk", Level.PROBLEM, f"{free}: nearly full")
    if place.is_volatile:
        return Finding("disk", Level.WARNING, f"{kind}, {free}: empty after a restart")
    level = Level.WARNING if place.free_bytes < _LITTLE_FREE else Level.OK
    return Finding("disk", level, f"{kind}, {free}")


def _writable(database: Database, settings: Settings) -> Finding:
    retry_policy(settings.retry_for, threading.Event())(database.check_writable)
    with database.reading() as connection:
        mode = connection.journal_mode()
    text = f"{database.url} can be written to, {ENGINE} {ENGINE_VERSION}, journal mode {mode}"
    if mode != "wal":
        return Finding("database", Level.WARNING, f"{text}: expected wal, readers will block")
    return Finding("database", Level.OK, text)


def _pages(database: Database) -> Finding | None:
    with database.reading() as connection:
        found = damage(connection)
    return Finding("pages", Level.PROBLEM, f"damaged: {found}") if found else None


# --- the broker ---


def _broker(visit: BrokerClient, settings: Settings) -> Iterator[Finding]:
    encrypted = "encrypted" if settings.tls.required else "not encrypted"
    server = visit.connection.server()
    yield Finding("broker", Level.OK, f"nats-server {server} answers, {encrypted}")
    yield from _rights(visit, settings)
    yield from _each("stream", lambda: _stream(visit, settings))
    yield from _each("manifests", lambda: _manifests(visit, settings))


def _rights(visit: BrokerClient, settings: Settings) -> Iterator[Finding]:
    wanted = worker_rights(settings.stream, settings.consumer, settings.bucket)
    if settings.create_stream:
        wanted += create_stream_rights(settings.stream)
    missing = lacking(visit, wanted)
    for right in missing:
        verb = "subscribe to" if right.subscribe else "publish to"
        text = f"the account may not {verb} {right.subject} ({right.purpose})"
        yield Finding("rights", Level.PROBLEM, text)
    if missing:
        return
    text = f"all {len(wanted)} that a worker needs"
    if lacking(visit, reading_rights(settings.stream)):
        text += "; not the ones of verify, rebuild and explain"
    yield Finding("rights", Level.OK, text)


def _stream(visit: BrokerClient, settings: Settings) -> Iterator[Finding]:
    view = look_at_broker(visit, settings)
    if view.stream is None:
        level = Level.OK if settings.create_stream else Level.PROBLEM
        how = "--create-stream will make it" if settings.create_stream else "the fleet's set-up, "
        how += "" if settings.create_stream else "or --create-stream, makes it"
        yield Finding("stream", level, f"there is no stream {settings.stream}: {how}")
        return
    text = f"{settings.stream} is there, {view.stream.messages} messages"
    yield Finding("stream", Level.OK, text)
    if view.consumer is None:
        text = f"{settings.consumer} is not there yet: a worker makes it"
        yield Finding("consumer", Level.OK, text)
        return
    yield _consumer(view.consumer, settings)


def _consumer(consumer: ConsumerView, settings: Settings) -> Finding:
    if refused := refusal(consumer, settings):
        return Finding("consumer", Level.PROBLEM, refused)
    different = differing(consumer, settings)
    if different:
        listed = ", ".join(
            f"{name} is {found}, expected {wanted}" for name, (wanted, found) in different.items()
        )
        return Finding("consumer", Level.WARNING, f"{settings.consumer}: {listed}; it stays so")
    return Finding("consumer", Level.OK, f"{settings.consumer} is as a worker makes it")


def _manifests(visit: BrokerClient, settings: Settings) -> Iterator[Finding]:
    manifests = ManifestCache()
    try:
        read_manifests(visit, settings.bucket, manifests)
    except (BrokerError, ConfigurationError) as error:
        text = f"runs will have no deadlines: {user_message(error)}"
        yield Finding("manifests", Level.WARNING, text)
        return
    without = manifests.without_timeout()
    text = f"{len(manifests)} in the bucket {settings.bucket}"
    if without:
        text += f", {len(without)} without a timeout that can be read, such as {without[0]}"
    yield Finding("manifests", Level.WARNING if without else Level.OK, text)


def _tried(name: str, text: str, look: Callable[[], Finding | None]) -> Finding:
    """Return what a look found, nothing meaning `text`; its error is a finding as well."""
    try:
        return look() or Finding(name, Level.OK, text)
    except (RepositoryError, WorkerError) as error:
        return Finding(name, Level.PROBLEM, user_message(error))


def _each(name: str, look: Callable[[], Iterator[Finding]]) -> Iterator[Finding]:
    try:
        yield from look()
    except (RepositoryError, WorkerError) as error:
        yield Finding(name, Level.PROBLEM, user_message(error))
