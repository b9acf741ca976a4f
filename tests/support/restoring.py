"""Databases that are backed up, wiped and restored, under a worker or without one."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.support import events
from tests.support.broker import Broker
from tests.support.rows import Rows
from worker.schema import migrate


def publish(broker: Broker, first: int, last: int) -> None:
    broker.publish_starts(
        events.start(result_id=f"run-{number:04}") for number in range(first, last + 1)
    )


def hold_the_floor_back(broker: Broker, ack_wait: float) -> None:
    """Publish ten starts, the first of which somebody has in hand and never settles."""
    broker.make_stream()
    broker.make_consumer(ack_wait=ack_wait)
    publish(broker, 1, 1)
    broker.take_without_ack(1)  # a worker was killed with it in hand
    publish(broker, 2, 10)


def copy(rows: Rows, to: Path) -> Path:
    """Back the database up as SQLite does, and return the copy."""
    with closing(sqlite3.connect(rows.path)) as live, closing(sqlite3.connect(to)) as backup:
        live.backup(backup)
        backup.execute("PRAGMA journal_mode = DELETE")
    return to


def put_back(rows: Rows, backup: Path) -> None:
    """Replace the database by a copy, as the manual says: without its old write-ahead log."""
    for suffix in ("-wal", "-shm"):
        rows.path.with_name(rows.path.name + suffix).unlink(missing_ok=True)
    shutil.copyfile(backup, rows.path.with_name("restored"))
    rows.path.with_name("restored").replace(rows.path)
    with closing(sqlite3.connect(rows.path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def wipe(rows: Rows) -> None:
    for suffix in ("", "-wal", "-shm"):
        rows.path.with_name(rows.path.name + suffix).unlink(missing_ok=True)
    migrate(rows.url)


def restore_into(rows: Rows, backup: Path) -> None:
    """Put a copy's content into the open file, as SQLite's own tools do."""
    with closing(sqlite3.connect(backup)) as older, closing(sqlite3.connect(rows.path)) as live:
        older.backup(live)
