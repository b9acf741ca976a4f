"""What an engine gives to the rest of the program: a database, and connections to it."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from repo.findings import Finding
from repo.observer import Observer
from repo.statements import Description, Statement

Values = Sequence[Any] | Mapping[str, Any]
"""What a statement binds, by position or by name."""

Rows = Sequence[Sequence[Any]]


class Progress(NamedTuple):
    """What a migration is doing, and since when in monotonic seconds."""

    step: str
    began: float


Watch = Callable[[Progress], bool]
"""Called while a migration runs; returns True to give it up."""


class Usage(NamedTuple):
    """One figure of a database: a metric's name and help, and bytes; None where it is unknown."""

    name: str
    text: str
    size: int | None


class LockHolder(NamedTuple):
    """Who prevents others from writing: a process or session, and its program where known."""

    pid: int
    program: str | None


class Connection(Protocol):
    """One thread's connection. It takes statements by name; errors are those of `repo.errors`.

    `place` names the database that was opened; a copy of it has another one.
    """

    @property
    def place(self) -> str:
        """The place of the database that was opened."""

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""

    def execute(self, name: Statement, values: Values = ()) -> int:
        """Run one statement and return how many rows it changed."""

    def execute_many(self, name: Statement, rows: Sequence[Values]) -> int:
        """Run one statement for each of the rows and return how many rows it changed."""

    def execute_all(self, many: Statement, one: Statement, rows: Rows) -> int:
        """Run a statement for each row, with `many` for many of them at once.

        Returns how many rows were changed.
        """

    def fetch(self, name: Statement, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run one query and return all rows that it finds."""

    def fetch_all(self, many: Statement, rows: Rows) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds for all given rows, many at once.

        The last given row may be repeated to fill up a statement.
        """

    def plan(self, name: Statement) -> list[str]:
        """Return the steps of the engine's plan for a statement; none if it is not about tables.

        Raises SchemaError if the statement does not fit the tables as they are.
        """

    def storable_text(self, text: str) -> str:
        """Return a text with the characters that this engine cannot store replaced.

        For what says where a message came from and why it was rejected, never for what is in it.
        """

    def is_current(self) -> bool:
        """Return whether this is still a connection to the database that the URL names."""

    def write(self) -> AbstractContextManager[None]:
        """Run the body as one write transaction.

        Returns only when the commit is known to be in the very database that the URL names; raises
        UnavailableError otherwise. On an error everything is undone and that first error is raised.
        """

    def hold_counts(self, exec_ids: Sequence[str]) -> bool:
        """Until this transaction ends, let no other one count for the first time in executions.

        Returns whether another one may have done so meanwhile. For executions whose rows do not
        exist yet, or hold no counts: a row that exists and holds some is locked itself.
        """

    def try_hold_counts(self, exec_ids: Sequence[str]) -> list[str]:
        """Do the same without waiting; return those that could be held, in order."""

    def held_executions(self, exec_ids: Sequence[str]) -> set[str]:
        """Return those of these executions that other transactions hold, in a transaction."""

    def exclude_other_upkeep(self) -> None:
        """Keep the upkeep of other workers waiting until the transaction ends."""

    def savepoint(self, *, keep: bool = True) -> AbstractContextManager[None]:
        """Run the body so that an error undoes only the body; the error is raised.

        Raises TransactionAborted instead if the rejection has undone the whole transaction. Unless
        `keep` is set, the body is undone even if it works.
        """


class Database(Protocol):
    """A database that a URL names."""

    engine: str
    driver: str
    driver_version: str
    url: str
    busy_timeout: float
    observer: Observer

    def connect(self) -> Connection:
        """Open the database, which must exist, for reading and writing."""

    def reading(self) -> AbstractContextManager[Connection]:
        """Open the database, which must exist, for reading only, and close it at the end."""

    def place(self) -> str:
        """Return the place that the URL names now; raises UnavailableError without one."""

    def check_writable(self) -> None:
        """Take and release a lock, if the database exists; raises what prevents a write."""

    def applied_migrations(self) -> list[str]:
        """Return the ids of the known migrations that are applied, in order."""

    def pending_migrations(self) -> list[str]:
        """Return the ids of the migrations that are not applied, in order."""

    def unknown_migrations(self) -> list[str]:
        """Return the ids of applied migrations of another version."""

    def migration_sql(self) -> list[str]:
        """Return the statements that `migrate` would run on this very database."""

    def migrate(self, watch: Watch = lambda _: False) -> None:
        """Apply every pending migration."""

    def roll_back(self, undo: Collection[str], watch: Watch = lambda _: False) -> None:
        """Roll back these applied migrations, the last one first."""

    def check(self, *, thorough: bool, retry_for: float) -> Iterator[Finding]:
        """Yield what is found when the database is checked."""

    def back_up(self, target: Path) -> Path:
        """Write a copy to a file, or to a new one in a folder; returns the file."""

    def restore(self, source: Path) -> Path | None:
        """Put a copy into the database's place; returns where the former one is, if any."""

    def statements(self) -> list[Description]:
        """Return every statement of this engine with its comments."""

    def log_warnings(self) -> None:
        """Log what works, but not as it should."""

    def lock_holders(self) -> list[LockHolder]:
        """Return who has a lock that keeps others waiting at this moment, where that is known."""

    def usage(self) -> list[Usage]:
        """Return the sizes that metrics show of this engine."""
