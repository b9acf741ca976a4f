"""Reading for commands: one read-only connection, patient with locks."""

import threading
from collections.abc import Callable
from contextlib import ExitStack
from typing import Concatenate, ParamSpec, Self, TypeVar

from repo.retry import retry_policy
from repo.sqlite.database import Connection, Database

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class Reader:
    """Runs queries of this package; belongs to one thread and cannot write.

    No transaction is held between two queries, so that a slow reader of their results holds back
    no checkpoint.
    """

    def __init__(self, database: Database, *, retry_for: float) -> None:
        """Open the file, which must exist; `retry_for` is the patience with locks in seconds."""
        self._retry = retry_policy(retry_for, threading.Event())
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
