"""Migrations from outside the package: yoyo's library, and what stands in the file afterwards."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import yoyo

from repo.migrations import migrations_folder
from tests.repo.rows import Db
from tests.support.commands import others_environment


def apply_some(db: Db, some: Sequence[str]) -> None:
    """Apply some migrations with yoyo's library."""
    migrations = yoyo.read_migrations(str(migrations_folder("sqlite")))
    chosen = migrations.filter(lambda migration: migration.id in some)
    with yoyo.get_backend(db.url) as backend, backend.lock():
        backend.apply_migrations(backend.to_apply(chosen))


def roll_back_all(db: Db) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder("sqlite")))
    with yoyo.get_backend(db.url) as backend, backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))


def schema_of(db: Db) -> dict[str, str | None]:
    """Return the definition of each object by its name, without yoyo's own."""
    return dict(
        db.ask(
            "SELECT name, sql FROM sqlite_schema WHERE tbl_name NOT LIKE '%yoyo%'"
            " AND name <> 'sqlite_sequence'"  # the engine's own, which cannot be dropped
        )
    )


def state_of(db: Db) -> tuple[bytes, int] | None:
    """Return the content and the time of the last change; None for a missing file."""
    return (db.path.read_bytes(), db.path.stat().st_mtime_ns) if db.path.exists() else None


def run_command(program: str | Path, *arguments: str, cwd: Path) -> str:
    """Run a program in a folder, with success, and return its output."""
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
        env=others_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
