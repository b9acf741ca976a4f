"""Copies of a database file, and the way back, without a worker."""

import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from repo.errors import CorruptDatabaseError, UnavailableError
from repo.sqlite.backup import back_up, restore
from repo.sqlite.database import Database
from tests.repo.rows import add_executions, ask, statuses, url

ROOT = Path(__file__).parents[2]


def files(folder: Path) -> list[str]:
    """Return the names in a folder, without what the engine makes beside a file that is read."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not name.endswith(("-wal", "-shm"))]


def crash(path: Path) -> None:
    """Leave a row in the log alone, as a program that was killed does."""
    copies = {suffix: path.with_name(f"kept{suffix}") for suffix in ("", "-wal")}
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute(
            "INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at,"
            " target_count) VALUES ('in the log', 'j', '1', 'o', 't', 1)"
        )
        for suffix, copy in copies.items():
            shutil.copyfile(f"{path}{suffix}", copy)
    for suffix, copy in copies.items():
        copy.rename(f"{path}{suffix}")


@pytest.fixture
def source(database: Database, path: Path, tmp_path: Path) -> Path:
    """A backup with one execution that is pending, of a database where it runs by now."""
    add_executions(path, one="pending")
    target = tmp_path / "backup.db"
    back_up(database, target)
    ask(path, "UPDATE executions SET status = 'running'")
    return target


def test_a_backup_is_one_complete_file_without_a_log(source: Path, tmp_path: Path) -> None:
    assert statuses(source) == {"one": "pending"}
    assert ask(source, "PRAGMA journal_mode") == [("delete",)]
    assert ask(source, "PRAGMA integrity_check") == [("ok",)]
    assert [name for name in files(tmp_path) if "backup" in name] == ["backup.db"]


def test_a_backup_contains_what_is_only_in_the_log(path: Path, tmp_path: Path) -> None:
    crash(path)
    back_up(Database(url(path)), tmp_path / "backup.db")
    assert statuses(tmp_path / "backup.db") == {"in the log": "pending"}


def test_a_backup_has_the_permissions_of_the_database(
    database: Database, path: Path, tmp_path: Path
) -> None:
    path.chmod(0o640)
    back_up(database, tmp_path / "backup.db")
    assert (tmp_path / "backup.db").stat().st_mode & 0o777 == 0o640


def test_an_existing_file_is_not_overwritten(
    database: Database, source: Path, tmp_path: Path
) -> None:
    before = source.read_bytes()
    names = files(tmp_path)
    with pytest.raises(UnavailableError, match="exists"):
        back_up(database, source)
    assert source.read_bytes() == before
    assert files(tmp_path) == names


@pytest.mark.parametrize("name", ["100%41.db", "a?b=c#d.db", "with space.db", "é\N{SNOWMAN}.db"])
def test_a_file_may_have_any_name(database: Database, tmp_path: Path, name: str) -> None:
    target = tmp_path / name
    back_up(database, target)
    assert Database(url(target)).path == target
    assert restore(Database(url(tmp_path / f"x{name}")), target) is None
    assert f"x{name}" in files(tmp_path)


def test_a_backup_of_a_missing_file_or_of_text_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError):
        back_up(Database(url(tmp_path / "missing.db")), tmp_path / "backup.db")
    (tmp_path / "text.db").write_text("this is no database\n" * 100)
    with pytest.raises(CorruptDatabaseError):
        back_up(Database(url(tmp_path / "text.db")), tmp_path / "backup.db")
    assert files(tmp_path) == ["text.db"]


def test_a_corrupt_database_gives_no_backup(path: Path, tmp_path: Path) -> None:
    ask(path, "PRAGMA journal_mode = DELETE")
    for number in range(200):
        ask(
            path,
            "INSERT INTO rejected_events VALUES (?, 's', ?, 't', 's', 'r', 't', ?)",
            (None, number, b"x" * 2000),
        )
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 16384)
    with pytest.raises(CorruptDatabaseError):
        back_up(Database(url(path)), tmp_path / "backup.db")
    assert "backup.db" not in files(tmp_path)


def test_a_restore_keeps_the_former_file_and_its_log(
    database: Database, path: Path, source: Path
) -> None:
    crash(path)
    former = restore(database, source)
    assert statuses(path) == {"one": "pending"}
    assert ask(path, "PRAGMA journal_mode") == [("wal",)]
    assert former is not None
    assert statuses(former) == {"one": "running", "in the log": "pending"}
    assert statuses(source) == {"one": "pending"}


def test_a_log_without_its_database_is_not_mixed_into_the_restored_file(
    database: Database, path: Path, source: Path
) -> None:
    crash(path)
    path.unlink()
    assert restore(database, source) is None
    assert statuses(path) == {"one": "pending"}
    assert ask(path, "PRAGMA integrity_check") == [("ok",)]


def test_a_corrupt_file_can_be_replaced(database: Database, path: Path, source: Path) -> None:
    path.write_text("this is no database\n" * 100)
    former = restore(database, source)
    assert statuses(path) == {"one": "pending"}
    assert former is not None
    assert former.read_text() == "this is no database\n" * 100


def test_a_source_that_is_not_a_backup_changes_nothing(
    database: Database, path: Path, tmp_path: Path
) -> None:
    add_executions(path, one="running")
    other = tmp_path / "other.db"
    ask(other, "CREATE TABLE executions (exec_id TEXT PRIMARY KEY)")
    text = tmp_path / "text.db"
    text.write_text("this is no database\n" * 100)
    names = files(tmp_path)
    for source in (other, text):
        with pytest.raises(CorruptDatabaseError):
            restore(database, source)
    assert statuses(path) == {"one": "running"}
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


def test_a_restore_killed_at_any_step_can_be_repeated_and_loses_no_former_row(
    database: Database, path: Path, source: Path, tmp_path: Path
) -> None:
    killed = 0
    while True:
        crash(path)
        script = [sys.executable, "-c", KILLED, str(killed), database.url, str(source)]
        code = subprocess.run(script, check=False, timeout=20, cwd=ROOT).returncode
        if code == 0:
            break
        assert code == 9
        killed += 1
        restore(database, source)
        assert statuses(path) == {"one": "pending"}
        assert ask(path, "PRAGMA integrity_check") == [("ok",)]
        kept = [
            name for name in tmp_path.glob("*.before-restore-*Z") if "in the log" in statuses(name)
        ]
        assert kept
        for name in tmp_path.glob("*.before-restore-*"):
            name.unlink()
    assert killed > 4
