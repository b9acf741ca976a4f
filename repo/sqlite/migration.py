"""Apply the pending migrations to a database file; see `repo.migrations`."""

from collections.abc import Collection
from typing import Any

import yoyo

from repo.engine import Watch
from repo.migrations import Migration, break_lock_command, run_migration
from repo.sqlite.connection import ENGINE, DatabaseFile
from repo.sqlite.errors import TRANSLATED
from repo.sqlite.migration_lock import lock_row, sole_migration

# How often a statement looks whether to give up. Those that undo and unlock are shorter than this.
_STEPS_OF_A_STATEMENT = 10_000


def migrate(
    file: DatabaseFile, url: str, watch: Watch = lambda _: False, undo: Collection[str] = ()
) -> None:
    """Apply every pending migration, creating a missing file, or roll back those in `undo`.

    `run_migration` has the rest.

    No connection of this process may be open: it would lose its locks at the end.
    """
    run_migration(_FileMigration(file, url, undo), watch)


class _FileMigration(Migration):
    def __init__(self, file: DatabaseFile, url: str, undo: Collection[str]) -> None:
        super().__init__("opening the database", undo)
        self._path = file.path
        self._url = url

    def apply(self) -> None:
        # yoyo reads before it marks a migration, and a commit of another program in between
        # rejects that at once.
        with (
            TRANSLATED,
            sole_migration(self._path, self._wait),
            self._interruptible(yoyo.get_backend(self._url)) as backend,
            lock_row(backend, self._path, self._wait),
        ):
            self.apply_with(backend, ENGINE)

    def interrupt(self) -> None:
        """The statement looks at `give_up` itself."""

    def _interruptible(self, backend: Any) -> Any:
        """Let the statements of a backend, and of its copies, end when the migration gives up."""
        backend.connection.set_progress_handler(self.give_up.is_set, _STEPS_OF_A_STATEMENT)
        copy = backend.copy
        backend.copy = lambda: self._interruptible(copy())
        return backend

    def _wait(self, holder: str, *, may_be_dead: bool = False) -> None:
        hint = f"; if it is dead, run: {break_lock_command(self._url)}" if may_be_dead else ""
        self.wait_for(f"waiting for {holder} to release the lock of {self._path}{hint}")
