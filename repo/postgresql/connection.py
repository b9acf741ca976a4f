"""Connections and transactions: one connection a thread.

Behind a pooler, which gives each transaction to another session of the server, nothing outlives a
transaction; a session of one's own keeps its settings and prepared statements. A `Server` may be
shared by threads; a `Connection` belongs to the thread that opened it.
"""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from functools import cache
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

from repo.engine import Rows, Values
from repo.errors import ReadOnlyError, RepositoryError, UnavailableError
from repo.observer import NOBODY, Observer
from repo.postgresql.errors import TRANSLATED
from repo.postgresql.url import parse_url
from repo.statements import Statement, statement, texts

ENGINE = "postgresql"

_BEGIN_WRITE = statement("begin_write", ENGINE)
_PREPARE = statement("prepare_writing", ENGINE)
_COMMIT = statement("commit", ENGINE)
_ROLLBACK = statement("rollback", ENGINE)
_OPEN_SAVEPOINT = statement("open_savepoint", ENGINE)
_CHECK_CONSTRAINTS = statement("check_constraints", ENGINE)
_UNDO_SAVEPOINT = statement("undo_savepoint", ENGINE)
_RELEASE_SAVEPOINT = statement("release_savepoint", ENGINE)
_CAN_WRITE = statement("can_write", ENGINE)
_FORCE_GENERIC_PLAN = statement("force_generic_plan", ENGINE)
_FORGET_EXPLAINED = statement("forget_explained", ENGINE)
_GET_SESSION = statement("get_session", ENGINE)
_LOCK_FREE_EXECUTIONS = statement("lock_free_executions", ENGINE)
_FIND_EXECUTIONS = statement("find_executions", ENGINE)
_HOLD_COUNTS = statement("hold_counts", ENGINE)
_TRY_HOLD_COUNTS = statement("try_hold_counts", ENGINE)
_TAKE_UPKEEP_LOCK = statement("take_upkeep_lock", ENGINE)
_GET_PLACE = statement("get_place", ENGINE)

_COMMITTED = texts(ENGINE)[_COMMIT].removesuffix(";")

_ON_TABLES = re.compile(r"\b(FROM|INTO|UPDATE)\b")
_MARK = re.compile(r"%s|%\((\w+)\)s")
_TOKEN = re.compile(r"--[^\n]*|'[^']*'|::|\?|:(?P<name>\w+)|%|\n\s*(?=\n)")


class Server:
    """The server that a URL names, and how to connect to the database there.

    `busy_timeout` is how many seconds one attempt waits for another transaction's lock.
    """

    def __init__(self, url: str, *, busy_timeout: float = 1.0, observer: Observer = NOBODY) -> None:
        self.url = url
        self.parameters = parse_url(url)
        self.busy_timeout = busy_timeout
        self.observer = observer

    def connect(self) -> "Connection":
        """Connect for reading and writing."""
        return Connection(self.open(), self)

    @contextmanager
    def reading(self) -> Iterator["Connection"]:
        """Connect for reading only, and close the connection at the end."""
        driver = self.open(autocommit=False)
        driver.read_only = True
        with closing(Connection(driver, self)) as connection:
            yield connection

    def place(self) -> str:
        """Return the place of the database; raises UnavailableError without one."""
        with self.reading() as connection:
            return connection.place

    def check_writable(self) -> None:
        """Raise what prevents a write: UnreachableError, or ReadOnlyError on a standby."""
        with closing(self.connect()) as connection:
            if connection.fetch(_CAN_WRITE) != [(True,)]:
                raise ReadOnlyError(
                    "the server accepts no write: a standby, or read-only by setting"
                )

    def open(self, *, autocommit: bool = True) -> psycopg.Connection[tuple[Any, ...]]:
        """Return a connection of the driver, whose errors are not translated."""
        with TRANSLATED:
            driver = psycopg.connect(
                **self.parameters,  # type: ignore[arg-type]
                autocommit=autocommit,
                client_encoding="utf8",
                prepare_threshold=None,
            )
            try:
                # A prepared statement belongs to a session, and saves half of a small transaction's
                # time. A pooler, which shares sessions, reports a number of its own to its client.
                session = driver.execute(_code(_GET_SESSION)).fetchone()
                if session == (driver.info.backend_pid,):
                    driver.prepare_threshold = 0
                if not autocommit:
                    driver.rollback()
            except BaseException:
                driver.close()
                raise
        return driver


class Connection:
    """One thread's connection. It takes statements by name; errors are those of `repo.errors`.

    Behind a pooler each transaction may be given to another session, and to another server after a
    failover: `place` is then that of the last transaction. Any other connection ends with its
    server.
    """

    def __init__(self, driver: psycopg.Connection[tuple[Any, ...]], server: Server) -> None:
        self.driver = driver
        self._is_shared = driver.prepare_threshold is None
        self._is_prepared = False
        self._server = server
        self._place: str | None = None
        self._lock_timeout = f"{max(int(server.busy_timeout * 1000), 1)}ms"
        self._warnings: list[str] = []
        driver.add_notice_handler(self._note_warning)

    @property
    def place(self) -> str:
        """The place of the database that was opened."""
        if self._place is None:
            self._place = self.fetch(_GET_PLACE)[0][0]
        return self._place

    def close(self) -> None:
        """Close the connection; what was not committed is undone."""
        self.driver.close()

    def execute(self, name: Statement, values: Values = ()) -> int:
        """Run one statement and return how many rows it changed."""
        with TRANSLATED:
            return self.driver.execute(_code(name), values).rowcount

    def execute_many(self, name: Statement, rows: Sequence[Values]) -> int:
        """Run one statement for each of the rows and return how many rows it changed."""
        return sum(self.execute(name, row) for row in rows)

    def execute_all(self, many: Statement, one: Statement, rows: Rows) -> int:
        """Run a statement for each row: `many`, with an array for each column, for more than one.

        Returns how many rows were changed.
        """
        if len(rows) > 1:
            return self.execute(many, _columns(rows))
        return self.execute_many(one, rows)

    def fetch(self, name: Statement, values: Values = ()) -> list[tuple[Any, ...]]:
        """Run one query and return all rows that it finds."""
        with TRANSLATED:
            try:
                return self.driver.execute(_code(name), values).fetchall()
            finally:
                self._end_reading()

    def fetch_all(self, many: Statement, rows: Rows) -> Iterator[tuple[Any, ...]]:
        """Yield what a query finds for all given rows."""
        if rows:
            yield from self.fetch(many, _columns(rows))

    def plan(self, name: Statement) -> list[str]:
        """Return the lines of the server's plan for a statement; none if it is not about tables.

        Raises SchemaError if the statement does not fit the tables as they are.
        """
        code = _code(name)
        if not _ON_TABLES.search(code):
            return []
        numbers: dict[str, int] = {}
        code = _MARK.sub(lambda mark: _number(mark, numbers), code).replace("%%", "%")
        nothing = f"({', '.join(['NULL'] * len(numbers))})" if numbers else ""
        # The plan that serves any value, as far as the server can know without statistics of them.
        if self.driver.autocommit:
            self.execute(_BEGIN_WRITE)
        try:
            with TRANSLATED:
                self.driver.execute(_code(_FORCE_GENERIC_PLAN))
                self.driver.execute(f"PREPARE explained AS {code}".encode())
                rows = self.driver.execute(
                    f"EXPLAIN (COSTS OFF) EXECUTE explained{nothing}".encode()
                ).fetchall()
                self.driver.execute(_code(_FORGET_EXPLAINED))
        finally:
            if self._in_transaction():
                self.execute(_ROLLBACK)
        return [str(row[0]) for row in rows]

    def storable_text(self, text: str) -> str:
        """Return a text with its NUL characters, which the server takes in none, as \\x00."""
        return text.replace("\0", "\\x00")

    def is_current(self) -> bool:
        """Return whether the connection is open; the checkpoint shows which database it is."""
        return not self.driver.closed

    @contextmanager
    def write(self) -> Iterator[None]:
        """Run the body as one write transaction.

        Returns only when the server says that it is committed and that every standby it waits for
        has it; raises UnavailableError otherwise. On an error everything is undone and that first
        error is raised.
        """
        observer = self._server.observer
        if not self._is_shared and not self._is_prepared:
            self._prepare(for_transaction=False)
            self._is_prepared = True
        self.execute(_BEGIN_WRITE)
        observer.writing()
        try:
            if self._is_shared:
                self._prepare(for_transaction=True)
            yield
            began = time.monotonic()
            self._commit()
            observer.committed(time.monotonic() - began)
        except BaseException:
            if self._in_transaction():
                # A failing rollback must not hide its cause; closing undoes it all as well.
                with suppress(RepositoryError):
                    self.execute(_ROLLBACK)
            raise
        finally:
            observer.written()

    def _prepare(self, *, for_transaction: bool) -> None:
        """Set what writing needs, and note the place, for the session or for one transaction."""
        values = {"lock_timeout": self._lock_timeout, "for_transaction": for_transaction}
        self._place = self.fetch(_PREPARE, values)[0][0]

    def _commit(self) -> None:
        self._warnings.clear()
        with TRANSLATED:
            answer = self.driver.execute(_code(_COMMIT)).statusmessage
        if answer != _COMMITTED:  # of a transaction that had failed, without an error
            raise UnavailableError(f"the server answered {answer} to {_COMMITTED}")
        if self._warnings:  # committed, but a wait for the standby was cancelled
            raise UnavailableError(f"the commit is not certain: {'; '.join(self._warnings)}")

    def hold_counts(self, exec_ids: Sequence[str]) -> bool:
        """Until this transaction ends, let no other one count for the first time in executions.

        Returns whether another one may have done so meanwhile.
        """
        self.fetch(_HOLD_COUNTS, (_array(exec_ids),))
        return True

    def try_hold_counts(self, exec_ids: Sequence[str]) -> list[str]:
        """Do the same without waiting; return those that could be held, in order."""
        if not exec_ids:
            return []
        return sorted(one for (one,) in self.fetch(_TRY_HOLD_COUNTS, (_array(exec_ids),)))

    def held_executions(self, exec_ids: Sequence[str]) -> set[str]:
        """Return those of these executions that other transactions hold, in a transaction."""
        free = {one for (one,) in self.fetch(_LOCK_FREE_EXECUTIONS, (_array(exec_ids),))}
        there = {one for (one,) in self.fetch(_FIND_EXECUTIONS, (_array(exec_ids),))}
        return there - free

    def exclude_other_upkeep(self) -> None:
        """Keep the upkeep of other workers waiting until the transaction ends."""
        self.fetch(_TAKE_UPKEEP_LOCK)

    @contextmanager
    def savepoint(self, *, keep: bool = True) -> Iterator[None]:
        """Run the body so that an error undoes only the body; the error is raised.

        Unless `keep` is set, the body is undone even if it works.
        """
        self.execute(_OPEN_SAVEPOINT)
        try:
            yield
            self.execute(_CHECK_CONSTRAINTS)
        except BaseException:
            if self._in_transaction():
                self._close_savepoint(keep=False)
            raise
        self._close_savepoint(keep=keep)

    def _close_savepoint(self, *, keep: bool) -> None:
        if not keep:
            self.execute(_UNDO_SAVEPOINT)
        self.execute(_RELEASE_SAVEPOINT)

    def _in_transaction(self) -> bool:
        return self.driver.info.transaction_status in (
            TransactionStatus.INTRANS,
            TransactionStatus.INERROR,
        )

    def _end_reading(self) -> None:
        if not self.driver.autocommit and not self.driver.closed:
            self.driver.rollback()

    def _note_warning(self, notice: psycopg.errors.Diagnostic) -> None:
        if notice.severity_nonlocalized == "WARNING":
            self._warnings.append(notice.message_primary or "a warning")


def _columns(rows: Rows) -> list[str]:
    """Return the columns of rows, each as one array in the server's text form.

    The driver's own way takes half as long as the server needs for the whole statement.
    """
    return [_array(column) for column in zip(*rows, strict=True)]


def _array(values: Sequence[Any]) -> str:
    # https://www.postgresql.org/docs/current/arrays.html#ARRAYS-IO
    try:
        joined = '","'.join(values)
    except TypeError:  # a number, or None
        return f"{{{','.join(map(_element, values))}}}"
    if "\\" in joined or joined.count('"') > 2 * (len(values) - 1):
        return f"{{{','.join(map(_element, values))}}}"
    return f'{{"{joined}"}}'


def _element(value: str | int | None) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _number(mark: re.Match[str], numbers: dict[str, int]) -> str:
    """Return the server's own form of a placeholder; the same name has the same number."""
    name = mark[1] or f"{len(numbers)}"
    return f"${numbers.setdefault(name, len(numbers) + 1)}"


@cache
def _code(name: Statement) -> Any:
    """Return a statement in the driver's form, with its name where a list of sessions shows it."""

    def convert(token: re.Match[str]) -> str:
        text = token[0]
        if text.startswith("--") or text.isspace():
            return ""
        if text == "?":
            return "%s"
        if token["name"]:
            return f"%({token['name']})s"
        return text.replace("%", "%%")

    sql = _TOKEN.sub(convert, texts(ENGINE)[name]).strip().removesuffix(";")
    return f"/* {name} */ {sql}"
