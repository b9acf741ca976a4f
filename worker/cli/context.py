"""How a command reaches the database and the stream, once its log is set up."""

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any, NamedTuple, Self

from tenacity import Retrying

from repo import Database
from repo import open_database as open_url
from repo.checkpoint import Position
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
from worker.jetstream.stream import StreamState, missing_stream
from worker.jetstream.stream_reader import StreamReader
from worker.logs import JSON, TEXT, set_up_logging
from worker.projections.base import Projection
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

    def repository(
        self, projection: Projection[Any, Any] = STARTS, position: Position | None = None
    ) -> Repository[Any]:
        """Return a repository to use in a `with` statement; it connects at its first write.

        `position` is that of a checkpoint up to which the rows are counted already, if any.
        """
        places = self._database, projection.writer(position)
        return Repository(*places, retry_for=self._retry_for, give_up=threading.Event())


def open_database(options: dict[str, Any]) -> CheckedDatabase:
    """Set up the log and check the database of a `database_command`."""
    return CheckedDatabase(unchecked_database(options)[0], options["retry_for"])


def database_of(settings: Settings) -> CheckedDatabase:
    """Check the database of these settings; raises as `CheckedDatabase` does."""
    database = open_url(settings.database, busy_timeout=settings.busy_timeout)
    return CheckedDatabase(database, settings.retry_for)


def told_time(client: BrokerClient, settings: Settings) -> int | None:
    """Return what the broker's clock shows, or None if unknown."""
    with suppress(BrokerError):
        return client.do(broker_time(client.connection, settings, STARTS.read_filter))
    return None


class CommandBroker:
    """A connection to the broker that opens at the first question, inside `with`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._opened = ExitStack()
        self._client: BrokerClient | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    @contextmanager
    def connected(self) -> Iterator[BrokerClient]:
        """Run the body with the open connection; raises as `client`. An error closes it."""
        try:
            yield self.client()
        except BrokerError:
            self._opened.close()
            self._client = None
            raise

    def client(self) -> BrokerClient:
        """Return the open connection; raises BrokerError or ConfigurationError without one."""
        if self._client is None:
            self._client = self._opened.enter_context(BrokerClient(self._settings))
        return self._client


class OpenStream(NamedTuple):
    """A projection's stream to read, and its consumer's ack floor before: 0 without a consumer."""

    projection: Projection[Any, Any]
    settings: Settings
    state: StreamState
    reader: StreamReader
    ack_floor: int

    @property
    def position(self) -> Position:
        """What its checkpoint is kept under."""
        return Position(self.settings.stream, self.settings.consumer)


@contextmanager
def open_stream(
    client: BrokerClient,
    settings: Settings,
    projection: Projection[Any, Any],
    *,
    since: int | None = None,
    subjects: str | None = None,
) -> Iterator[OpenStream]:
    """Open a projection's stream for reading, from `since` in nanoseconds since 1970.

    It reads what the projection reads, or only these `subjects`. Raises BrokerError if the broker
    cannot be read now, and ConfigurationError if the stream does not exist.
    """
    settings = settings.of(projection)
    view = inspect_broker(client, settings)
    if view.stream is None:
        raise ConfigurationError(missing_stream(settings, view.domain))
    ack_floor = view.consumer.ack_floor.stream_seq if view.consumer else 0
    place = settings.stream, subjects or projection.read_filter, view.stream.last_sequence
    with StreamReader(client, *place, since=since) as reader:
        yield OpenStream(projection, settings, view.stream, reader, ack_floor)


class OpenStreams(NamedTuple):
    """The streams of the chosen projections, starts first, and the manifests."""

    client: BrokerClient
    manifests: ManifestCache
    streams: list[OpenStream]

    @property
    def expected(self) -> int:
        """About how many messages they hold."""
        return sum(stream.reader.expected for stream in self.streams)


@contextmanager
def open_streams(
    settings: Settings, *, since: Since | None, without_deadlines: bool
) -> Iterator[OpenStreams]:
    """Open the streams of the chosen projections as `open_stream` does, by the broker's clock.

    Raises the same errors, also if the manifests cannot be read.
    """
    manifests = ManifestCache()
    with BrokerClient(settings) as client, ExitStack() as opened:
        start = None if since is None else since.before(told_time(client, settings))
        streams = [
            opened.enter_context(open_stream(client, settings, projection, since=start))
            for projection in settings.chosen
        ]
        if STARTS in settings.chosen and not without_deadlines:
            with handling_missing_manifests():
                read_manifests(client, settings.bucket, manifests)
        yield OpenStreams(client, manifests, streams)


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
