"""The migrations in `sql/<engine>/migrations`, and how they are applied with yoyo.

They apply in a thread of their own: the caller's can thus handle signals and report progress while
a statement runs for long.
"""

import contextlib
import getpass
import glob
import io
import os
import shlex
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Collection
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yoyo

from repo.engine import Progress, Watch
from repo.errors import TransientError
from repo.retry import retry_policy

LOCK_TIMEOUT = 30.0
RETRY_FOR = 10.0
_PAUSE = 0.2
_TICK = 0.1
_LEAVE_TIMEOUT = 2.0


def break_lock_command(url: str) -> str:
    """Return the command that removes the lock which a killed yoyo has left; it asks nothing."""
    yoyo = Path(sys.executable).with_name("yoyo")
    program = shlex.quote(str(yoyo)) if yoyo.exists() else "yoyo"
    return f"{program} break-lock --batch --no-config-file --database {shlex.quote(url)}"


def migrations_folder(engine: str) -> Path:
    """Return the folder of the migrations, in a checkout or where the package is installed."""
    with as_file(files("sql").joinpath(engine, "migrations")) as folder:
        return folder


def all_migrations(engine: str) -> Any:
    """Return yoyo's list of an engine's migrations."""
    return yoyo.read_migrations(glob.escape(str(migrations_folder(engine))))


def known_migrations(engine: str) -> list[str]:
    """Return the ids of an engine's migrations, in the order in which they apply."""
    return [migration.id for migration in all_migrations(engine)]


class Migrated(ABC):
    """A database with migrations: which of them are applied. Reads only; yoyo's `list` writes.

    Every method raises a RepositoryError if the database exists and cannot be read.
    """

    engine: str

    @abstractmethod
    def marked_migrations(self) -> set[str]:
        """Return the ids that yoyo has marked as applied; none without a database."""

    def applied_migrations(self) -> list[str]:
        """Return the ids of the known migrations that are applied, in order."""
        marked = self.marked_migrations()
        return [migration for migration in known_migrations(self.engine) if migration in marked]

    def pending_migrations(self) -> list[str]:
        """Return the ids of the migrations that are not applied, in order."""
        marked = self.marked_migrations()
        return [migration for migration in known_migrations(self.engine) if migration not in marked]

    def unknown_migrations(self) -> list[str]:
        """Return the ids of applied migrations of another version."""
        return sorted(self.marked_migrations().difference(known_migrations(self.engine)))


class Migration(threading.Thread, ABC):
    """Applies every pending migration of one database, or rolls back those with the ids `undo`."""

    def __init__(self, step: str, undo: Collection[str] = ()) -> None:
        super().__init__(name="migration", daemon=True)
        self._undo = undo
        self.progress = Progress(step, time.monotonic())
        self.give_up = threading.Event()
        self._error: BaseException | None = None

    @abstractmethod
    def apply(self) -> None:
        """Apply what is pending, in this thread; errors are those of `repo.errors` or yoyo's."""

    @abstractmethod
    def interrupt(self) -> None:
        """End the statement that runs, from another thread, once `give_up` is set."""

    def has_ended(self, seconds: float) -> bool:
        """Wait up to some seconds for the end; raises the error of the migration."""
        self.join(seconds)
        if self.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def run(self) -> None:
        """Apply, retrying locks for some seconds; the error is raised by `has_ended`."""
        _name_the_user()
        try:
            # yoyo prints what a statement returns; standard output belongs to the commands.
            with contextlib.redirect_stdout(io.StringIO()):
                retry_policy(RETRY_FOR, self.give_up)(self.apply)
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            self._error = error

    def apply_with(self, backend: Any, engine: str) -> None:
        """Apply what is pending, or roll back, with yoyo's backend, whose lock is held."""
        known = all_migrations(engine)
        if self._undo:
            for migration in backend.to_rollback(known):  # the last one first
                if migration.id in self._undo:
                    self.show(f"rolling back {migration.id}")
                    backend.rollback_one(migration)
            return
        # Inside the lock: another process may have applied a migration meanwhile.
        pending = backend.to_apply(known)
        for number, migration in enumerate(pending, 1):
            self.show(f"applying {migration.id} ({number} of {len(pending)})")
            backend.apply_one(migration)

    def show(self, step: str) -> None:
        """Show what is being done."""
        if step != self.progress.step:
            self.progress = Progress(step, time.monotonic())

    def wait_for(self, step: str) -> None:
        """Show what is waited for, and wait a moment; raises TransientError after a while."""
        self.show(step)
        if time.monotonic() - self.progress.began > LOCK_TIMEOUT or self.give_up.wait(_PAUSE):
            raise TransientError(step)


def run_migration(migration: Migration, watch: Watch) -> None:
    """Run a migration and return when it is complete.

    `watch` is called several times a second; if it returns True, the unfinished migration is
    undone. Raises TransientError then, and where another process migrates or keeps the lock;
    otherwise a RepositoryError, or an error of yoyo.
    """
    migration.start()
    try:
        while not migration.has_ended(_TICK):
            if watch(migration.progress):
                raise TransientError(f"given up: {migration.progress.step}")
    finally:
        migration.give_up.set()
        if migration.is_alive():
            migration.interrupt()
        migration.join(_LEAVE_TIMEOUT)


def _name_the_user() -> None:
    # yoyo notes who migrated; without any name it applies a migration and cannot mark it.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
