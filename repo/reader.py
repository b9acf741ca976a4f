"""Reading for commands: one read-only connection that retries while the database is locked."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Concatenate, ParamSpec, Self, TypeVar

from repo import Connection, Database
from repo.retry import retry_policy

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Reader:
    """Runs queries of this package; belongs to one thread and cannot write.

    No transaction is held between two queries, so that a slow reader of their results never makes
    the write-ahead log grow.
    """

    def __init__(self, database: Database, *, retry_for: float) -> None:
        """Open the database, which must exist; locks are retried for `retry_for` seconds."""
        self._retry = retry_policy(retry_for)
        self._open = ExitStack()
        self._connection: Connection = self._retry(
            lambda: self._open.enter_context(database.reading())
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def read(
        self,
        query: Callable[Concatenate[Connection, _Arguments], _Result],
        *arguments: _Arguments.args,
        **named: _Arguments.kwargs,
    ) -> _Result:
        """Return what a query returns; raises TransientError when every attempt met a lock."""
        return self._retry(query, self._connection, *arguments, **named)
