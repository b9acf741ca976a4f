"""Migrations from outside the package: yoyo's library, and what stands in the file afterwards."""

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import yoyo

from repo.sqlite.schema import migrations_folder
from tests.repo.rows import ask, url
from tests.support.waiting import eventually


def apply_some(path: Path, some: Sequence[str]) -> None:
    """Apply some migrations with yoyo's library."""
    migrations = yoyo.read_migrations(str(migrations_folder()))
    chosen = migrations.filter(lambda migration: migration.id in some)
    with yoyo.get_backend(url(path)) as backend, backend.lock():
        backend.apply_migrations(backend.to_apply(chosen))


def roll_back_all(path: Path) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder()))
    with yoyo.get_backend(url(path)) as backend, backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))


def schema_of(path: Path) -> dict[str, str | None]:
    """Return the definition of each object by its name, without yoyo's own."""
    return dict(
        ask(
            path,
            "SELECT name, sql FROM sqlite_schema WHERE tbl_name NOT LIKE '%yoyo%'"
            " AND name <> 'sqlite_sequence'",  # the engine's own, which cannot be dropped
        )
    )


@contextmanager
def committing(path: Path, sql: str) -> Iterator[list[int]]:
    """Commit all the time, as another program; yields the numbers that were written so far."""
    ending = threading.Event()
    written: list[int] = []

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            while not ending.wait(0.001):  # without a pause no other program ever gets the lock
                connection.execute(sql, (len(written),))
                written.append(len(written))

    with ThreadPoolExecutor(1) as executor:
        writing = executor.submit(write)
        try:
            eventually(lambda: written, 50)
            yield written
        finally:
            ending.set()
        writing.result()
