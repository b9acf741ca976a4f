"""What can go wrong in the database, by what has to be done about it.

The engine's package translates its driver's errors into these; the cause is kept.
"""

from collections.abc import Callable


class RepositoryError(Exception):
    """The root of this package's errors. `summary` says in a few words what is wrong."""

    summary = "a constraint of the database rejects the change"


class TransientError(RepositoryError):
    """Another connection holds the lock, or interrupted the statement: roll back, retry soon."""

    summary = "the database is locked by another program"


class ExecutionsBusy(TransientError):
    """Another transaction holds an execution that is to be counted in; which one is not known."""


class RowsHeld(TransientError):
    """Another transaction holds the executions of the rows with these indexes; none is written.

    A batch is not tried again as it is: one execution must not hold up the runs of all.
    """

    def __init__(self, indexes: frozenset[int]) -> None:
        super().__init__(f"another program holds the executions of {len(indexes)} runs")
        self.indexes = indexes


class UnavailableError(RepositoryError):
    """The database takes no row now: read-only, replaced, no rights. Reopen it later."""

    summary = "the database cannot be used"


class UnreachableError(UnavailableError):
    """The server of the database does not answer, accepts no connection or ended this one."""

    summary = "the database server cannot be reached"


class ReadOnlyError(UnavailableError):
    """Nothing can be written: a file's or folder's mode does not allow it, or a server's state."""

    summary = "the database cannot be written to"


class DiskError(UnavailableError):
    """A disk is full or has an I/O error, which may pass by itself: the database's or another."""

    summary = "a disk is full or does not respond"


class SchemaError(UnavailableError):
    """A table or column is missing, or the schema rejects every row."""

    summary = "the tables do not match this version"


class TransactionAborted(RepositoryError):
    """A trigger rejected a statement and rolled the whole transaction back."""


class RowRejected(RepositoryError):
    """A constraint or trigger rejects this row: reject its message."""


class CorruptDatabaseError(RepositoryError):
    """The database is corrupt or not a database: stop, since writing would make it worse."""

    summary = "the database is corrupt, or the file is not a database"


class DriverMissing(RepositoryError):
    """The package that talks to this kind of database is not installed."""

    summary = "a package is missing"


class NotSupported(RepositoryError):
    """The engine has its own way to do this, which the text names."""

    summary = "not a task of this program"


class MustWait(Exception):
    """The row with this index, and those behind it, may not be written yet; nothing was written."""

    def __init__(self, index: int) -> None:
        super().__init__(index)
        self.index = index


class Translated:
    """Raises what `translate` returns for an error of its body, if it returns anything.

    A generator would cost more than many a statement.
    """

    def __init__(self, translate: Callable[[BaseException], RepositoryError | None]) -> None:
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if error is not None and (translation := self._translate(error)) is not None:
            raise translation from error
