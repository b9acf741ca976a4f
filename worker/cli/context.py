"""How a command reaches the database and the stream, once its log is set up."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from tenacity import Retrying

from repo import Database
from repo import open_database as open_url
from repo.reader import Reader
from repo.repository import Repository
from repo.retry import retry_policy
from repo.statements import Description
from worker.cli.options import build_settings, chosen_database
from worker.cli.output import user_message
from worker.errors import BrokerError, ConfigurationError
from worker.jetstream.client import BrokerClient
from worker.jetstream.clock import broker_time
from worker.jetstream.inspect import inspect_broker
from worker.jetstream.manifest_sync import read_manifests
from worker.jetstream.stream import missing_stream
from worker.jetstream.stream_reader import StreamReader
from worker.logs import JSON, TEXT, set_up_logging
from worker.projections.manifests import ManifestCache
from worker.projections.starts import STARTS
from worker.schema import check_schema
from worker.settings import Settings, Since


def set_up_log(options: dict[str, Any]) -> None:
    """Set up the log from --log-level and --log-format, and remove them from the options."""
    level, form = options.pop("log_level"), options.pop("log_format")
    set_up_logging(level, form or (TEXT if sys.stderr.isatty() else JSON))


def chosen_settings(options: dict[str, Any]) -> Settings:
    """Set up the log and return the settings of a command; raises SettingError."""
    set_up_log(options)
    return build_settings(options)


def unchecked_database(options: dict[str, Any]) -> tuple[Database, Retrying]:
    """Set up the log; return the database of a command, and how to retry its locks."""
    set_up_log(options)
    database = open_url(chosen_database(options["database"]), busy_timeout=options["busy_timeout"])
    return database, retry_policy(options["retry_for"], threading.Event())


class CheckedDatabase:
    """A database in which every migration is applied."""

    def __init__(self, database: Database, retry_for: float) -> None:
        """Check the schema; locks are retried for `retry_for` seconds.

        Raises ConfigurationError if migrations are pending, and a RepositoryError if the file
        cannot be read.
        """
        self._retry_for = retry_for
        self._database = database
        retry_policy(retry_for, threading.Event())(check_schema, database, apply=False)

    def reader(self) -> Reader:
        """Return a reader to use in a `with` statement; it cannot write."""
        return Reader(self._database, retry_for=self._retry_for)

    def place(self) -> str:
        """Return what names this very database; see the table checkpoints."""
        return self._database.place()

    def statements(self) -> list[Description]:
        """Return every SQL statement with its comments."""
        return self._database.statements()

    def repository(self) -> Repository[Any]:
        """Return a repository to use in a `with` statement; it connects at its first write."""
        places = self._database, STARTS.writer(None)
        return Repository(*places, retry_for=self._retry_for, give_up=threading.Event())


def open_database(options: dict[str, Any]) -> CheckedDatabase:
    """Set up the log and check the database of a `database_command`."""
    return CheckedDatabase(unchecked_database(options)[0], options["retry_for"])


def database_of(settings: Settings) -> CheckedDatabase:
    """Check the database of these settings; raises as `CheckedDatabase` does."""
    database = open_url(settings.database, busy_timeout=settings.busy_timeout)
    return CheckedDatabase(database, settings.retry_for)


def told_time(client: BrokerClient, settings: Settings) -> int | None:
    """Return what the broker's clock shows, or None where the broker does not tell it."""
    with suppress(BrokerError):
        return client.do(broker_time(client.connection, settings, STARTS.read_filter))
    return None


class OpenStream(NamedTuple):
    """A stream to read, and the consumer's ack floor before the read: 0 without a consumer.

    `now` is what the broker's clock shows, if it is read from a time on.
    """

    reader: StreamReader
    ack_floor: int
    manifests: ManifestCache
    now: int | None


@contextmanager
def open_stream(
    settings: Settings,
    *,
    since: Since | None = None,
    without_deadlines: bool = False,
    problems: list[str] | None = None,
) -> Iterator[OpenStream]:
    """Open the stream for reading, from `since` on, by the broker's clock.

    Raises BrokerError if the broker or the bucket cannot be read now, and ConfigurationError if the
    stream or the bucket does not exist. With a list of `problems`, the bucket's error is appended
    there instead.
    """
    manifests = ManifestCache()
    with BrokerClient(settings) as client:
        view = inspect_broker(client, settings)
        if view.stream is None:
            raise ConfigurationError(missing_stream(settings, view.domain))
        if not without_deadlines:
            with handling_missing_manifests(problems):
                read_manifests(client, settings.bucket, manifests)
        ack_floor = view.consumer.ack_floor.stream_seq if view.consumer else 0
        place = settings.stream, STARTS.read_filter, view.stream.last_sequence
        now = told_time(client, settings) if since is not None else None
        start = since.before(now) if since is not None else None
        with StreamReader(client, *place, since=start) as reader:
            yield OpenStream(reader, ack_floor, manifests, now)


@contextmanager
def handling_missing_manifests(problems: list[str] | None = None) -> Iterator[None]:
    """Append the error of manifests that cannot be read to `problems`.

    Without that list, raise it with the option --without-deadlines in its text.
    """
    try:
        yield
    except (BrokerError, ConfigurationError) as error:
        if problems is None:
            text = "deadlines cannot be computed; pass --without-deadlines to continue without them"
            raise type(error)(f"{text}: {error}") from error.__cause__
        problems.append(user_message(error))
