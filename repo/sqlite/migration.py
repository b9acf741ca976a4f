"""Apply the pending migrations with yoyo, in a thread of their own.

The caller's thread can thus handle signals and report progress while a statement runs for long.
"""

import contextlib
import getpass
import io
import os
import threading
import time
from typing import Any

import yoyo

from repo.engine import Progress, Watch
from repo.errors import TransientError
from repo.retry import retry_policy
from repo.sqlite.connection import DatabaseFile
from repo.sqlite.errors import TRANSLATED
from repo.sqlite.migration_lock import lock_row, sole_migration
from repo.sqlite.schema import all_migrations

_LOCK_TIMEOUT = 30.0
_RETRY_FOR = 10.0
_PAUSE = 0.2
_TICK = 0.1
_LEAVE_TIMEOUT = 2.0
# How often a statement looks whether to give up. Those that undo and unlock are shorter than this.
_STEPS_OF_A_STATEMENT = 10_000


def migrate(file: DatabaseFile, url: str, watch: Watch = lambda _: False) -> None:
    """Apply every pending migration, creating a missing file.

    `watch` is called several times a second; if it returns True, the unfinished migration is
    undone. Raises TransientError then, and where another process migrates or keeps the lock;
    otherwise a RepositoryError, or an error of yoyo.

    No connection of this process may be open: it would lose its locks at the end.
    """
    migration = _Migration(file, url)
    migration.start()
    try:
        while not migration.has_ended(_TICK):
            if watch(migration.progress):
                raise TransientError(f"given up: {migration.progress.step}")
    finally:
        migration.give_up.set()
        migration.join(_LEAVE_TIMEOUT)


class _Migration(threading.Thread):
    def __init__(self, file: DatabaseFile, url: str) -> None:
        super().__init__(name="migration", daemon=True)
        self.progress = Progress("opening the database", time.monotonic())
        self.give_up = threading.Event()
        self._path = file.path
        self._url = url
        self._error: BaseException | None = None

    def has_ended(self, seconds: float) -> bool:
        """Wait up to some seconds for the end; raises the error of the migration."""
        self.join(seconds)
        if self.is_alive():
            return False
        if self._error is not None:
            raise self._error
        return True

    def run(self) -> None:
        _name_the_user()
        try:
            # yoyo reads before it marks a migration, and a commit of another program in between
            # rejects that at once.
            retry_policy(_RETRY_FOR, self.give_up)(self._apply)
        except BaseException as error:  # noqa: BLE001 (raised in the thread that waits)
            self._error = error

    def _apply(self) -> None:
        # yoyo prints what a statement returns; standard output belongs to the commands.
        with (
            TRANSLATED,
            contextlib.redirect_stdout(io.StringIO()),
            sole_migration(self._path, self._wait),
            self._interruptible(yoyo.get_backend(self._url)) as backend,
            lock_row(backend, self._path, self._wait),
        ):
            # Inside the lock: another process may have applied a migration meanwhile.
            pending = backend.to_apply(all_migrations())
            for number, migration in enumerate(pending, 1):
                self._show(f"applying {migration.id} ({number} of {len(pending)})")
                backend.apply_one(migration)

    def _interruptible(self, backend: Any) -> Any:
        """Let the statements of a backend, and of its copies, end when the migration gives up."""
        backend.connection.set_progress_handler(self.give_up.is_set, _STEPS_OF_A_STATEMENT)
        copy = backend.copy
        backend.copy = lambda: self._interruptible(copy())
        return backend

    def _show(self, step: str) -> None:
        if step != self.progress.step:
            self.progress = Progress(step, time.monotonic())

    def _wait(self, holder: str) -> None:
        self._show(f"waiting for {holder} to release the lock of {self._path}")
        step, began = self.progress
        if time.monotonic() - began > _LOCK_TIMEOUT or self.give_up.wait(_PAUSE):
            raise TransientError(step)


def _name_the_user() -> None:
    # yoyo notes who migrated; without any name it applies a migration and cannot mark it.
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["USER"] = str(os.getuid())
