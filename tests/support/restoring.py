"""Back up, wipe and restore databases, with or without a worker that has them open."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support import events
from tests.support.broker import Broker
from tests.support.rows import Rows


def publish(broker: Broker, first: int, last: int) -> None:
    """Publish the starts `run-0001` and so on."""
    broker.publish_starts(
        events.start(result_id=f"run-{number:04}") for number in range(first, last + 1)
    )


def hold_ack_floor_back(broker: Broker, ack_wait: float) -> None:
    """Publish ten starts, the first of which stays ack pending: another worker never acks it."""
    broker.make_consumer(ack_wait=ack_wait)
    publish(broker, 1, 1)
    broker.fetch(1, ack=False)
    publish(broker, 2, 10)


def copy(rows: Rows, to: Path) -> Path:
    """Copy the database with SQLite's backup and return the copy, which has no log beside it."""
    with closing(sqlite3.connect(rows.path)) as live, closing(sqlite3.connect(to)) as backup:
        live.backup(backup)
        backup.execute("PRAGMA journal_mode = DELETE")
    return to


def put_back(rows: Rows, backup: Path) -> None:
    """Replace the database by a copy as the manual says: without the old write-ahead log."""
    delete(rows, "-wal", "-shm")
    replace(rows, backup)
    with closing(sqlite3.connect(rows.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def replace(rows: Rows, backup: Path) -> None:
    """Put a copy in the database's place, and leave its write-ahead log where it is."""
    aside = rows.path.with_name("restored")
    shutil.copyfile(backup, aside)
    aside.replace(rows.path)


def restore_into(rows: Rows, backup: Path) -> None:
    """Overwrite the open database with a copy's content, as SQLite's own tools do."""
    with closing(sqlite3.connect(backup)) as older, closing(sqlite3.connect(rows.path)) as live:
        older.backup(live)


def delete(rows: Rows, *suffixes: str) -> None:
    """Delete the database's files with these suffixes; all of them by default."""
    for suffix in suffixes or ("", "-wal", "-shm"):
        rows.path.with_name(rows.path.name + suffix).unlink(missing_ok=True)


def wipe(rows: Rows) -> None:
    """Replace the database by an empty one."""
    delete(rows)
    rows.migrate()
