"""Copies of a database file, and the way back, without a worker."""

import os
import shutil
import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from repo.errors import CorruptDatabaseError, UnavailableError
from repo.sqlite.backup import back_up, restore
from tests.repo.rows import INSERT_EXECUTION, Db

ROOT = Path(__file__).parents[2]
TEXT = "this is not a database\n" * 100


def files(folder: Path) -> list[str]:
    """Return the names in a folder, without what the engine makes beside a file that is read."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not name.endswith(("-wal", "-shm"))]


def crash(db: Db) -> None:
    """Leave a row in the log alone, as a program that was killed does."""
    copies = {suffix: db.path.with_name(f"kept{suffix}") for suffix in ("", "-wal")}
    with closing(sqlite3.connect(db.path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(INSERT_EXECUTION, ("in the log", "pending"))
        for suffix, copy in copies.items():
            shutil.copyfile(f"{db.path}{suffix}", copy)
    for suffix, copy in copies.items():
        copy.rename(f"{db.path}{suffix}")


def assert_restored(db: Db) -> None:
    assert db.statuses() == {"one": "pending"}
    assert db.ask("PRAGMA journal_mode") == [("wal",)]
    assert db.ask("PRAGMA integrity_check") == [("ok",)]


@pytest.fixture
def source(db: Db, tmp_path: Path) -> Path:
    """A backup with one execution that is pending, of a database where it runs by now."""
    db.path.chmod(0o640)
    db.add_executions(one="pending")
    target = tmp_path / "backup.db"
    back_up(db.database, target)
    db.ask("UPDATE executions SET status = 'running'")
    return target


def test_a_backup_is_one_complete_file_with_the_permissions_of_the_database(source: Path) -> None:
    assert [name for name in files(source.parent) if "backup" in name] == ["backup.db"]
    assert source.stat().st_mode & 0o777 == 0o640
    backup = Db(source)
    assert backup.statuses() == {"one": "pending"}
    assert backup.ask("PRAGMA journal_mode") == [("delete",)]
    assert backup.ask("PRAGMA integrity_check") == [("ok",)]


def test_a_backup_contains_what_is_only_in_the_log(db: Db, tmp_path: Path) -> None:
    crash(db)
    back_up(db.database, tmp_path / "backup.db")
    assert Db(tmp_path / "backup.db").statuses() == {"in the log": "pending"}


def test_an_existing_file_is_not_overwritten(db: Db, source: Path, tmp_path: Path) -> None:
    before = source.read_bytes(), files(tmp_path)
    with pytest.raises(UnavailableError, match="exists"):
        back_up(db.database, source)
    assert (source.read_bytes(), files(tmp_path)) == before


@pytest.mark.parametrize("name", ["100%41.db", "a?b=c#d.db", "with space.db", "é\N{SNOWMAN}.db"])
def test_a_file_may_have_any_name(db: Db, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    back_up(db.database, target)
    assert Db(target).database.path == target
    assert restore(Db(tmp_path / f"x{name}").database, target) is None
    assert f"x{name}" in files(tmp_path)


@pytest.mark.parametrize(
    ("umask", "mode", "new"),
    [(0o022, 0o644, 0o640), (0o077, 0o644, 0o600), (0, 0o444, 0o640), (0o022, 0o600, 0o600)],
)
def test_others_cannot_read_a_backup_but_an_existing_database_keeps_its_mode(
    db: Db, source: Path, tmp_path: Path, umask: int, mode: int, *, new: int
) -> None:
    source.chmod(mode)
    db.path.chmod(0o644)
    before = os.umask(umask)
    try:
        restore(db.database, source)
        restore(Db(tmp_path / "x.db").database, source)
        back_up(Db(source).database, tmp_path / "copy.db")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE(file.stat().st_mode) for file in (db.path, tmp_path / "x.db")]
    assert [*modes, stat.S_IMODE((tmp_path / "copy.db").stat().st_mode)] == [0o644, new, new]


def test_a_corrupt_database_gives_no_backup_and_leaves_no_file(db: Db, tmp_path: Path) -> None:
    db.ask("PRAGMA journal_mode = DELETE")
    insert = "INSERT INTO rejected_events VALUES (NULL, 's', ?, 't', 's', 'r', 't', ?)"
    for number in range(200):
        db.ask(insert, (number, b"x" * 2000))
    with db.path.open("r+b") as file:
        file.seek(db.path.stat().st_size // 2)
        file.write(b"\xff" * 16384)
    with pytest.raises(CorruptDatabaseError):
        back_up(db.database, tmp_path / "backup.db")
    assert files(tmp_path) == ["projector.db"]


def test_a_restore_keeps_the_former_file_and_its_log(db: Db, source: Path) -> None:
    crash(db)
    former = restore(db.database, source)
    assert_restored(db)
    assert former is not None
    assert Db(former).statuses() == {"one": "running", "in the log": "pending"}
    assert Db(source).statuses() == {"one": "pending"}


def test_a_log_without_a_database_is_not_mixed_into_the_restored_file(db: Db, source: Path) -> None:
    crash(db)
    db.path.unlink()
    assert restore(db.database, source) is None
    assert_restored(db)


def test_a_corrupt_file_can_be_replaced(db: Db, source: Path) -> None:
    db.path.write_text(TEXT)
    former = restore(db.database, source)
    assert_restored(db)
    assert former is not None
    assert former.read_text() == TEXT


def test_a_source_that_is_not_a_backup_changes_nothing(db: Db, empty: Db, tmp_path: Path) -> None:
    db.add_executions(one="running")
    empty.ask("CREATE TABLE executions (exec_id TEXT PRIMARY KEY)")
    text = tmp_path / "text.db"
    text.write_text(TEXT)
    names = files(tmp_path)
    for source in (empty.path, text):
        with pytest.raises(CorruptDatabaseError):
            restore(db.database, source)
    assert db.statuses() == {"one": "running"}
    assert files(tmp_path) == names


KILLED = """
import os, sys
from pathlib import Path
from repo.sqlite.backup import restore
from repo.sqlite.database import Database

left = int(sys.argv[1])
def counted(step):
    def call(*arguments, **named):
        global left
        left -= 1
        if left < 0:
            os._exit(9)
        return step(*arguments, **named)
    return call
for name in ("hardlink_to", "unlink", "replace"):
    setattr(Path, name, counted(getattr(Path, name)))
restore(Database(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_restore_killed_at_any_step_can_be_repeated_and_loses_no_row(
    db: Db, source: Path
) -> None:
    killed = 0
    while True:
        crash(db)
        script = [sys.executable, "-c", KILLED, str(killed), db.url, str(source)]
        code = subprocess.run(script, check=False, timeout=20, cwd=ROOT).returncode
        if code == 0:
            break
        assert code == 9
        killed += 1
        restore(db.database, source)
        assert_restored(db)
        former = [Db(path) for path in source.parent.glob("*.before-restore-*Z")]
        assert any("in the log" in one.statuses() for one in former)
        for path in source.parent.glob("*.before-restore-*"):
            path.unlink()
    assert killed > 4
