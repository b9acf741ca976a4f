"""A private PostgreSQL server for the tests: one for each process that runs tests.

It is Debian's, runs as an unprivileged user, listens on a socket in its own folder only, and never
syncs. Its databases are copies of one to which the migrations are applied.
"""

import atexit
import functools
import itertools
import os
import pwd
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import psycopg
import pytest

from repo import open_database
from tests.support.rows import Row, Rows
from tests.support.waiting import eventually

_INSTALLED = Path("/usr/lib/postgresql")
_UNPRIVILEGED = "nobody"
_SETTINGS = {
    "listen_addresses": "''",
    "fsync": "off",
    "full_page_writes": "off",
    "max_connections": "50",
    "shared_buffers": "16MB",
    "max_prepared_transactions": "2",
}
_numbers = itertools.count()
_TYPE = re.compile(r"typeof\((\w+)\)")


def programs() -> Path | None:
    """Return the folder of the newest server's programs, or None where none is installed."""
    if chosen := os.environ.get("POSTGRESQL_BIN"):
        return Path(chosen)
    found = sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


def skip_without(program: str) -> NoReturn:
    """Skip the test that needs a program; raises RuntimeError in continuous integration."""
    problem = f"{program} is missing; run scripts/setup test"
    if os.environ.get("CI"):
        raise RuntimeError(problem)
    pytest.skip(problem)


class Cluster:
    """A server and its data, in a temporary folder.

    With `copy_of` it is a standby that streams from that server.
    """

    def __init__(
        self, settings: Mapping[str, str] | None = None, *, copy_of: "Cluster | None" = None
    ) -> None:
        bin_folder = programs()
        if bin_folder is None:
            skip_without("PostgreSQL")
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self.as_user: dict[str, int] = {}
        if os.getuid() == 0:  # which the server refuses to run as
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self.as_user = {"user": user.pw_uid, "group": user.pw_gid}
        self.data = self.folder / "data"
        if copy_of is None:
            self._run("initdb", "-D", self.data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
        else:
            source = ("-h", copy_of.folder, "-U", "tester")
            self._run("pg_basebackup", "-D", self.data, *source, "-R", "-c", "fast")
        with (self.data / "postgresql.conf").open("a") as file:
            for name, value in {**_SETTINGS, **(settings or {})}.items():
                file.write(f"{name} = {value}\n")
            file.write(f"unix_socket_directories = '{self.folder}'\n")
        self.start()

    def write(self, name: str, text: str) -> None:
        """Write a file in the folder of the data, which only the server may read."""
        file = self.data / name
        file.write_text(text)
        file.chmod(0o600)
        if self.as_user:
            os.chown(file, self.as_user["user"], self.as_user["group"])

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server if it runs."""
        subprocess.run(
            [self._bin / "pg_ctl", "-D", self.data, "-m", mode, "-w", "stop"],
            check=False,
            capture_output=True,
            **self.as_user,  # type: ignore[call-overload]
        )

    def kill(self) -> None:
        """Kill the server's first process, as a crash does."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

    def promote(self) -> None:
        """Make a standby the primary, on a timeline of its own."""
        self._run("pg_ctl", "-D", self.data, "-w", "promote")

    def remove(self) -> None:
        """Stop the server and delete all of it."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str = "postgres") -> str:
        """Return the URL of a database."""
        return f"postgresql://tester@/{database}?host={self.folder}"

    def ask(self, sql: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run a statement outside any transaction, and return its rows."""
        with psycopg.connect(
            host=str(self.folder), dbname=database, user="tester", autocommit=True
        ) as one:
            cursor = one.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def drop_database(self, name: str) -> None:
        """Drop a database and end its connections."""
        self.ask(f"DROP DATABASE {name} WITH (FORCE)")

    def create_database(self) -> str:
        """Return the name of a new database with the schema of this version."""
        name = f"db_{next(_numbers)}"
        self.ask(f"CREATE DATABASE {name} TEMPLATE {self._template} STRATEGY file_copy")
        return name

    @functools.cached_property
    def _template(self) -> str:
        self.ask("CREATE DATABASE migrated TEMPLATE template0")
        open_database(self.url("migrated")).migrate()
        return "migrated"

    def _run(self, program: str, *arguments: object) -> None:
        # Not to a pipe: a server that is started would keep it open.
        with (self.folder / f"{program}.log").open("ab") as log:
            done = subprocess.run(
                [self._bin / program, *map(str, arguments)],
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd="/",
                **self.as_user,  # type: ignore[call-overload]
            )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {Path(log.name).read_text('utf-8')}")


class Pooler:
    """pgbouncer in front of a server, in transaction pooling: sessions are shared."""

    def __init__(self, server: Cluster) -> None:
        program = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            skip_without("pgbouncer")
        self.folder = server.folder / "pooler"
        self.folder.mkdir()
        self._file = self.folder / "pgbouncer.ini"
        (self.folder / "users").write_text('"tester" ""\n')
        if server.as_user:
            os.chown(self.folder, server.as_user["user"], server.as_user["group"])
        self.point_to(server)
        self._process = subprocess.Popen(
            [program, self._file],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **server.as_user,  # type: ignore[call-overload]
        )
        eventually((self.folder / ".s.PGSQL.6432").exists, 10)

    def point_to(self, server: Cluster) -> None:
        """Name the server that new sessions are made with; `reload` applies it."""
        self._file.write_text(
            f"[databases]\n* = host={server.folder}\n[pgbouncer]\npool_mode = transaction\n"
            f"unix_socket_dir = {self.folder}\nlisten_addr =\nauth_type = trust\n"
            f"auth_file = {self.folder}/users\nadmin_users = tester\nserver_login_retry = 1\n"
        )

    def reload(self) -> None:
        """Read the file again."""
        self._process.send_signal(signal.SIGHUP)

    def url(self, database: str) -> str:
        """Return the URL of a database behind the pooler."""
        return f"postgresql://tester@:6432/{database}?host={self.folder}"

    def stop(self) -> None:
        """End the pooler."""
        self._process.kill()
        self._process.wait()


@functools.cache
def cluster() -> Cluster:
    """Return this process's server, which is started when it is first asked for."""
    started = Cluster()
    atexit.register(started.remove)
    return started


def translated(sql: str) -> str:
    """Write a statement of a test, which is SQLite's, as this server takes it."""
    sql = sql.replace("%", "%%") if "?" in sql else sql
    sql = sql.replace("?", "%s").replace("ORDER BY rowid", "ORDER BY ctid")
    sql = _TYPE.sub(r"CASE pg_typeof(\1)::text WHEN 'bytea' THEN 'blob' ELSE 'text' END", sql)
    # The views for people depend on the tables.
    sql = re.sub(r"(DROP (?:TABLE|COLUMN) \w+)$", r"\1 CASCADE", sql)
    sql = sql.replace("max(caught_up_to, ", "greatest(checkpoints.caught_up_to, ")
    return sql.replace("ON CONFLICT DO UPDATE", "ON CONFLICT (stream, consumer) DO UPDATE")


class PostgresRows(Rows):
    """A database of a private server as other programs see it; `path` is only where logs go."""

    engine = "postgresql"

    def __init__(self, path: Path, server: Cluster, name: str) -> None:
        super().__init__(path)
        self._server = server
        self.name = name

    @property
    def url(self) -> str:
        return self._server.url(self.name)

    def move_to(self, server: Cluster) -> None:
        """Look at the same database of another server."""
        self._server = server

    def query(self, sql: str, *values: object) -> list[Row]:
        return eventually(lambda: self._try_query(sql, values), 30)[0]

    def _try_query(self, sql: str, values: Sequence[object]) -> tuple[list[Row]] | None:
        """Return the rows, in a tuple; None where the server ends the session, as it recovers."""
        try:
            return (self._query(sql, values),)
        except psycopg.OperationalError:
            return None

    def _query(self, sql: str, values: Sequence[object]) -> list[Row]:
        with self._open() as connection:
            cursor = connection.execute(translated(sql).encode(), values or None)
            assert cursor.description is not None
            names = [column.name for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    @contextmanager
    def locked(self) -> Iterator[None]:
        with self._open() as connection:
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE execution_results IN SHARE MODE")
            yield
            connection.execute("ROLLBACK")

    def write(self, sql: str, *values: object) -> None:
        with self._open() as connection:
            connection.execute(translated(sql).encode(), values or None)

    def insert(self, table: str, rows: Sequence[Mapping[str, object]]) -> None:
        names = ", ".join(rows[0])
        sql = f"INSERT INTO {table} ({names}) VALUES ({', '.join(['%s'] * len(rows[0]))})"
        with self._open() as connection, connection.cursor() as cursor:
            cursor.executemany(sql.encode(), [tuple(row.values()) for row in rows])

    def refuse_updates(self, table: str) -> None:
        self.write(
            "CREATE FUNCTION frozen() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'frozen'; END $$"
        )
        self.write(
            f"CREATE TRIGGER frozen BEFORE UPDATE ON {table} FOR EACH ROW EXECUTE FUNCTION frozen()"
        )

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        return eventually(self._try_open, 30)

    def _try_open(self) -> psycopg.Connection[tuple[Any, ...]] | None:
        """Connect; returns None while the server starts, or recovers."""
        try:
            return psycopg.connect(
                host=str(self._server.folder), dbname=self.name, user="tester", autocommit=True
            )
        except psycopg.OperationalError:
            return None
