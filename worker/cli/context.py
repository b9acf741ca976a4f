"""How a command reaches the database and the stream, once its log is set up."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

from repo import open_database as open_url
from repo.reader import Reader
from repo.repository import Repository
from repo.retry import retry_policy
from repo.statements import Description
from worker.cli.options import build_settings, chosen_database
from worker.cli.output import user_message
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.inspect import inspect_broker
from worker.jetstream.manifest_sync import read_manifests
from worker.jetstream.stream_reader import StreamReader
from worker.logs import JSON, TEXT, set_up_logging
from worker.projections.manifests import ManifestCache
from worker.projections.starts import STARTS
from worker.schema import check_schema
from worker.settings import Settings


def log_to_standard_error(options: dict[str, Any]) -> None:
    """Set up the log from --log-level and --log-format, and remove them from the options."""
    level, form = options.pop("log_level"), options.pop("log_format")
    set_up_logging(level, form or (TEXT if sys.stderr.isatty() else JSON))


def chosen_settings(options: dict[str, Any]) -> Settings:
    """Set up the log and return the settings of a command; raises SettingError."""
    log_to_standard_error(options)
    return build_settings(options, os.environ)


# --- the database ---


class CheckedDatabase:
    """A database in which every migration is applied."""

    def __init__(self, url: str | None, *, busy_timeout: float, retry_for: float) -> None:
        """Check the schema; both times are in seconds.

        Raises SettingError if no database is named, ConfigurationError if migrations are pending,
        and a RepositoryError if the file cannot be read.
        """
        self._retry_for = retry_for
        self._database = open_url(chosen_database(url), busy_timeout=busy_timeout)
        retry_policy(retry_for, threading.Event())(check_schema, self._database, apply=False)

    def reader(self) -> Reader:
        """Return a reader to use in a `with` statement; it cannot write."""
        return Reader(self._database, retry_for=self._retry_for)

    def statements(self) -> list[Description]:
        """Return every SQL statement with its comments."""
        return self._database.statements()

    def repository(self) -> Repository[Any]:
        """Return a repository to use in a `with` statement; it connects at its first write."""
        return Repository(
            *(self._database, STARTS.writer),
            retry_for=self._retry_for,
            give_up=threading.Event(),
        )


def open_database(options: dict[str, Any]) -> CheckedDatabase:
    """Set up the log and check the database of a command with the options `database_command`."""
    log_to_standard_error(options)
    return CheckedDatabase(options.pop("database"), **options)


def database_of(settings: Settings) -> CheckedDatabase:
    """Check the database of these settings; raises as `CheckedDatabase` does."""
    return CheckedDatabase(
        settings.database, busy_timeout=settings.busy_timeout, retry_for=settings.retry_for
    )


# --- the stream ---


class OpenStream(NamedTuple):
    """A stream to read, and the consumer's ack floor before the read: 0 without a consumer."""

    reader: StreamReader
    ack_floor: int
    manifests: ManifestCache


@contextmanager
def open_stream(
    settings: Settings,
    *,
    since: int | None = None,
    without_deadlines: bool = False,
    problems: list[str] | None = None,
) -> Iterator[OpenStream]:
    """Open the stream for reading, from `since` in nanoseconds since 1970.

    Raises BrokerError if the broker or the bucket cannot be read now, and ConfigurationError if the
    stream or the bucket does not exist. With a list of `problems`, the bucket's error is appended
    there instead.
    """
    manifests = ManifestCache()
    with BrokerClient(settings) as client:
        view = inspect_broker(client, settings)
        if view.stream is None:
            raise ConfigurationError(f"stream {settings.stream} does not exist")
        if not without_deadlines:
            _read_manifests(client, settings, manifests, problems)
        ack_floor = view.consumer.binding.position.ack_floor if view.consumer else 0
        last = view.stream.last_sequence
        filter_subject = STARTS.filter_subject
        with StreamReader(client, settings.stream, filter_subject, last, since=since) as reader:
            yield OpenStream(reader, ack_floor, manifests)


def _read_manifests(
    client: BrokerClient, settings: Settings, manifests: ManifestCache, problems: list[str] | None
) -> None:
    if problems is None:
        with suggesting_without_deadlines():
            read_manifests(client, settings.bucket, manifests)
        return
    try:
        read_manifests(client, settings.bucket, manifests)
    except (BrokerError, ConfigurationError) as error:
        problems.append(user_message(error))


@contextmanager
def suggesting_without_deadlines() -> Iterator[None]:
    """Add the option --without-deadlines to the error of manifests that cannot be read."""
    try:
        yield
    except (BrokerError, ConfigurationError) as error:
        raise type(error)(
            "deadlines cannot be computed; pass --without-deadlines to continue without them: "
            f"{error}"
        ) from error.__cause__
