"""Apply the pending migrations to a server's database; see `repo.migrations`.

yoyo's own lock is a committed row, which stays if its process is killed. Here the row is inserted
in a transaction that stays open meanwhile and is then undone: it excludes yoyo's commands as well,
and ends with its connection.
"""

from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
from yoyo.backends.core.postgresql import PostgresqlPsycopgBackend
from yoyo.connections import parse_uri

from repo.engine import Watch
from repo.errors import RowRejected, TransientError
from repo.migrations import Migration, break_lock_command, run_migration
from repo.postgresql.connection import ENGINE, Connection, Server
from repo.postgresql.errors import TRANSLATED
from repo.statements import statement

_TAKE_LOCK = statement("take_migration_lock", ENGINE)
_GET_LOCK = statement("get_migration_lock", ENGINE)
_SET_LOCK_TIMEOUT = statement("set_migration_lock_timeout", ENGINE)
_BEGIN = statement("begin_write", ENGINE)
_ROLLBACK = statement("rollback", ENGINE)


def migrate(server: Server, watch: Watch = lambda _: False, undo: Collection[str] = ()) -> None:
    """Apply every pending migration, or roll back those in `undo`; `run_migration` has the rest."""
    run_migration(_ServerMigration(server, undo), watch)


class _Backend(PostgresqlPsycopgBackend):  # type: ignore[misc]
    """yoyo's backend on this engine's connections, which take every form of URL."""

    def __init__(self, server: Server, opened: list[psycopg.Connection[Any]]) -> None:
        self._server, self._opened = server, opened
        super().__init__(parse_uri("postgresql+psycopg:///"), "_yoyo_migration")

    def connect(self, _: object) -> Any:
        connection = self._server.open()
        self._opened.append(connection)
        return connection

    def copy(self) -> "_Backend":
        return _Backend(self._server, self._opened)


class _ServerMigration(Migration):
    def __init__(self, server: Server, undo: Collection[str]) -> None:
        super().__init__("connecting to the server", undo)
        self._server = server
        self._opened: list[psycopg.Connection[Any]] = []

    def apply(self) -> None:
        with TRANSLATED, _Backend(self._server, self._opened) as backend:
            backend.init_database()
            with self._locked():
                backend._is_locked = True  # yoyo would take its own lock, and wait for this one
                self.apply_with(backend, ENGINE)

    def interrupt(self) -> None:
        for connection in list(self._opened):
            with suppress(psycopg.Error):
                connection.cancel()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with closing(self._server.connect()) as connection:
            while not self._try_lock(connection):
                self.wait_for(f"waiting for {self._holder(connection)}")
            yield
            connection.execute(_ROLLBACK)

    def _try_lock(self, connection: Connection) -> bool:
        connection.execute(_BEGIN)
        try:
            connection.fetch(_SET_LOCK_TIMEOUT)
            connection.execute(_TAKE_LOCK)
        except (TransientError, RowRejected):
            connection.execute(_ROLLBACK)
            return False
        return True

    def _url_of_yoyo(self) -> str:
        _, _, rest = self._server.url.partition(":")
        return f"postgresql+psycopg:{rest}"

    def _holder(self, connection: Connection) -> str:
        found = connection.fetch(_GET_LOCK)
        if not found:
            return "another process, which is migrating"
        pid, since = found[0]
        return (
            f"process {pid}, which has been migrating since {since:%Y-%m-%dT%H:%M:%SZ}; if it is "
            f"dead, run: {break_lock_command(self._url_of_yoyo())}"
        )
