"""What ends the worker or a session with the broker, and the exit codes of the process.

WorkerError
├── SettingError        an option has a value that cannot be used: exit 64
├── ConfigurationError  the broker or the database is not set up for this worker: exit 78
├── DatabaseUnavailable        the database takes nothing just now: pause, then try again
│   └── DatabaseBroken  it is not just locked: the file, the disk, the schema
└── BrokerError         the session with the broker is over: make a new one
    └── PullLost        only the pull is over: bind and pull again on the same connection
        ├── ConnectionLost  with the connection, which comes back by itself
        └── NoResponse      nothing comes back: after a few times a new connection is tried

What lets the worker wait has a `cause`, for those who look from outside.
"""

from repo.errors import CorruptDatabaseError, DiskError, RepositoryError, TransientError

# What kind of thing is in the way.
STARTING = "starting"
BROKER_AWAY = "broker_away"
PERMISSION_DENIED = "permission_denied"
STREAM_MISSING = "stream_missing"
PULL_LOST = "pull_lost"
DATABASE_BLOCKED = "database_blocked"

# sysexits.h, so that a unit file can tell what a restart may mend.
EXIT_OK = 0
EXIT_PARTLY = 1
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_SOFTWARE = 70
EXIT_TEMPORARY = 75
EXIT_CONFIGURATION = 78


class WorkerError(Exception):
    """The root of this package's errors."""


class SettingError(WorkerError):
    """An option or its variable has a value that cannot be used."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class ConfigurationError(WorkerError):
    """Only a person can mend it: a restart would find the same."""


class DatabaseUnavailable(WorkerError):
    """Nothing can be written for now: the database is locked, full, or not there."""

    cause = DATABASE_BLOCKED


class DatabaseBroken(DatabaseUnavailable):
    """The file, the disk or the schema is at fault; another worker's may be well."""


class BrokerError(WorkerError):
    """The connection is of no more use."""

    cause = BROKER_AWAY


class PullLost(BrokerError):
    """The consumer does not answer any more, or is gone."""

    cause = PULL_LOST


class ConnectionLost(PullLost):
    """The connection went away; whatever was asked over it is not answered any more."""

    cause = BROKER_AWAY


class NoResponse(PullLost):
    """A request got no answer in time: a right is missing, or the connection is deaf."""


def unanswered(problem: str, error: BaseException) -> PullLost:
    """Return the error for a request that failed, with `error` as its cause."""
    lost = NoResponse(problem) if isinstance(error, TimeoutError) else PullLost(problem)
    lost.__cause__ = error
    return lost


def exit_code(error: BaseException) -> int:
    """Return the exit code for what ended the worker or a command."""
    if isinstance(error, SettingError):
        return EXIT_USAGE
    if isinstance(error, ConfigurationError):
        return EXIT_CONFIGURATION
    if isinstance(error, CorruptDatabaseError):
        return EXIT_DATA
    if isinstance(error, BrokerError | TransientError | DiskError):
        return EXIT_TEMPORARY
    if isinstance(error, RepositoryError):  # rights, tables, rules of others: a person's to mend
        return EXIT_CONFIGURATION
    return EXIT_SOFTWARE


def describe(error: BaseException) -> str:
    """Return an error and the chain of its causes on one line."""
    chain: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(chain) < 10:
        text = str(seen)
        chain.append(f"{type(seen).__name__}: {text}" if text else type(seen).__name__)
        seen = seen.__cause__
    return " <- ".join(chain)
