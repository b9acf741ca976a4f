"""A private PostgreSQL server for the tests: one for each process that runs tests.

It is Debian's, runs as an unprivileged user, listens on a socket in its own folder only, and never
syncs. Its databases are copies of one to which the migrations are applied.
"""

import atexit
import functools
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import psycopg
import pytest

from repo import open_database

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


def programs() -> Path | None:
    """Return the folder of the newest server's programs, or None where none is installed."""
    if chosen := os.environ.get("POSTGRESQL_BIN"):
        return Path(chosen)
    found = sorted(_INSTALLED.glob("*/bin/postgres"), key=lambda path: int(path.parts[-3]))
    return found[-1].parent if found else None


class Cluster:
    """A server and its data, in a temporary folder."""

    def __init__(self, **settings: str) -> None:
        bin_folder = programs()
        if bin_folder is None:
            # Asked for where it must not be missing, as in continuous integration.
            if os.environ.get("CI"):
                raise RuntimeError("PostgreSQL is missing; run scripts/setup test")
            pytest.skip("PostgreSQL is missing; run scripts/setup test")
        self._bin = bin_folder
        self.folder = Path(tempfile.mkdtemp(prefix="pg-", dir="/tmp"))
        self._as_user = {}
        if os.getuid() == 0:  # which the server refuses to run as
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(self.folder, user.pw_uid, user.pw_gid)
            self._as_user = {"user": user.pw_uid, "group": user.pw_gid}
        self.data = self.folder / "data"
        self._run("initdb", "-D", self.data, "-U", "tester", "-A", "trust", "-N", "-E", "UTF8")
        with (self.data / "postgresql.conf").open("a") as file:
            for name, value in {**_SETTINGS, **settings}.items():
                file.write(f"{name} = {value}\n")
            file.write(f"unix_socket_directories = '{self.folder}'\n")
        self.start()

    def start(self) -> None:
        """Start the server and wait until it answers."""
        self._run("pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop the server if it runs."""
        subprocess.run(
            [self._bin / "pg_ctl", "-D", self.data, "-m", mode, "-w", "stop"],
            check=False,
            capture_output=True,
            **self._as_user,  # type: ignore[call-overload]
        )

    def kill(self) -> None:
        """Kill the server's first process, as a crash does."""
        os.kill(int((self.data / "postmaster.pid").read_text().split()[0]), signal.SIGKILL)

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
        done = (
            subprocess.run(
                [self._bin / program, *map(str, arguments)],
                check=False,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd="/",
                **self._as_user,  # type: ignore[call-overload]
            )
            if program != "pg_ctl"
            else subprocess.run(
                [self._bin / program, *map(str, arguments)],
                check=False,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                stdin=subprocess.DEVNULL,
                text=True,
                cwd="/",
                **self._as_user,  # type: ignore[call-overload]
            )
        )
        if done.returncode:
            raise RuntimeError(f"{program} failed: {done.stdout}")


@functools.cache
def cluster() -> Cluster:
    """Return this process's server, which is started when it is first asked for."""
    started = Cluster()
    atexit.register(started.remove)
    return started
