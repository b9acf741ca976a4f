"""What ends the worker or a session with the broker, and the exit codes of the process.

WorkerError
├── SettingError         an option has a value that cannot be used: exit 64
├── ConfigurationError   the broker or the database is not set up for this worker: exit 78
├── OutputError          standard output cannot be written: exit 75
├── DatabaseUnavailable  the database took no batch: pause, then try again
└── BrokerError          the session with the broker is over: start another one
    └── PullLost         only the pull is over: bind and pull again on the same connection
        ├── ConnectionLost  with the connection, which comes back by itself
        └── NoResponse      a request was not answered: after a few of them, connect again

An error that makes the worker wait has a `cause`: the state that health and metrics show.
"""

from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    NotSupported,
    RepositoryError,
    TransientError,
    UnreachableError,
)

# Why the worker waits.
STARTING = "starting"
BROKER_UNREACHABLE = "broker_unreachable"
PERMISSION_DENIED = "permission_denied"
STREAM_MISSING = "stream_missing"
PULL_LOST = "pull_lost"
DATABASE_BLOCKED = "database_blocked"

# sysexits.h, so that a unit file can tell systemd when a restart may help.
EXIT_OK = 0
EXIT_PARTLY = 1
EXIT_USAGE = 64
EXIT_DATA = 65
EXIT_SOFTWARE = 70
EXIT_TEMPORARY = 75
EXIT_CONFIGURATION = 78
EXIT_INTERRUPTED = 130  # 128 and SIGINT, as a shell has it


class WorkerError(Exception):
    """The root of this package's errors."""


class SettingError(WorkerError):
    """An option or its variable has a value that cannot be used."""

    def __init__(self, option: str, problem: str) -> None:
        super().__init__(f"{option}: {problem}")
        self.option = option
        self.problem = problem


class ConfigurationError(WorkerError):
    """Only a person can fix it: a restart would find the same."""


class OutputError(WorkerError):
    """Standard output cannot be written: it is closed, or its disk is full."""


class DatabaseUnavailable(WorkerError):
    """The database took no batch: it is locked, full, or not there."""


class BrokerError(WorkerError):
    """The connection is of no more use."""

    cause = BROKER_UNREACHABLE


class PullLost(BrokerError):
    """The consumer does not answer any more, or is gone."""

    cause = PULL_LOST


class ConnectionLost(PullLost):
    """The connection was lost; requests sent over it are not answered any more."""

    cause = BROKER_UNREACHABLE


class NoResponse(PullLost):
    """A request got no answer in time: a permission is missing, or the connection is dead."""


def no_response(problem: str, error: BaseException) -> PullLost:
    """Return the error for a request that failed, with `error` as its cause."""
    lost = NoResponse(problem) if isinstance(error, TimeoutError) else PullLost(problem)
    lost.__cause__ = error
    return lost


def exit_code(error: BaseException) -> int:
    """Return the exit code for the error that ended the worker or a command."""
    if isinstance(error, SettingError | NotSupported):
        return EXIT_USAGE
    if isinstance(error, ConfigurationError):
        return EXIT_CONFIGURATION
    if isinstance(error, CorruptDatabaseError):
        return EXIT_DATA
    if isinstance(error, BrokerError | TransientError | DiskError | UnreachableError | OutputError):
        return EXIT_TEMPORARY
    if isinstance(error, RepositoryError):  # rights, tables, constraints: a person has to fix them
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
