"""What is pending, and the check of the schema at start."""

import hashlib
import logging
import sqlite3
import subprocess
from contextlib import closing
from pathlib import Path

import pytest
from yoyo.exceptions import LockTimeout

from repo import check_url, open_database
from repo.errors import CorruptDatabaseError, RepositoryError, TransientError, UnavailableError
from repo.sqlite.database import Database
from repo.sqlite.schema import known_migrations
from tests.repo.migrating import apply_some
from tests.repo.rows import ask, url
from tests.support.commands import others_environment
from worker.errors import (
    EXIT_CONFIGURATION,
    EXIT_DATA,
    EXIT_TEMPORARY,
    ConfigurationError,
    describe,
    exit_code,
)
from worker.schema import check_schema

DEADLINE = 50.0


def digest(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


# --- the URL --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("sqlite:///relative.db", "relative.db"),
        ("sqlite:///folder/relative.db", "folder/relative.db"),
        ("sqlite:////srv/absolute.db", "/srv/absolute.db"),
        ("sqlite:////srv/with space.db", "/srv/with space.db"),
        ("sqlite:////srv/with%20space.db", "/srv/with space.db"),
        ("sqlite:////srv/100%.db", "/srv/100%.db"),
    ],
)
def test_a_url_names_its_file(name: str, file: str) -> None:
    assert open_database(name).path == Path(file)


@pytest.mark.parametrize(
    "name",
    [
        *("", "x.db", "sqlite:", "sqlite:///", "sqlite://x.db", "sqlite:////srv/"),
        *("sqlite:///x.db?mode=ro", "sqlite:///x.db#part", "postgresql://me:s3cret@host/x"),
    ],
)
def test_any_other_url_is_rejected_without_repeating_it(name: str) -> None:
    for take in (check_url, open_database):
        with pytest.raises(ValueError, match="expected sqlite:///") as error:
            take(name)
        assert "s3cret" not in str(error.value)


# --- what is pending ------------------------------------------------------------------------------


@pytest.mark.parametrize("state", ["missing", "empty", "foreign"])
def test_every_migration_is_pending_before_the_first_and_reading_writes_nothing(
    tmp_path: Path, state: str
) -> None:
    path = tmp_path / "x.db"
    if state == "empty":
        path.touch()
    if state == "foreign":
        ask(path, "CREATE TABLE executions (exec_id TEXT PRIMARY KEY)")
    before = digest(path) if path.exists() else None
    assert open_database(url(path)).pending_migrations() == known_migrations()
    assert (digest(path) if path.exists() else None) == before
    assert list(tmp_path.iterdir()) == ([] if before is None else [path])


@pytest.mark.parametrize("applied", range(len(known_migrations()) + 1))
def test_migrations_are_applied_or_pending_in_order_and_reading_writes_nothing(
    tmp_path: Path, applied: int
) -> None:
    path, names = tmp_path / "x.db", known_migrations()
    apply_some(path, names[:applied])
    before = digest(path)
    database = open_database(url(path))
    assert (database.applied_migrations(), database.pending_migrations()) == (
        names[:applied],
        names[applied:],
    )
    assert digest(path) == before


def test_a_migration_of_a_later_version_is_ignored(path: Path) -> None:
    ask(
        path,
        "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('h', '20990101_01_x')",
    )
    assert open_database(url(path)).pending_migrations() == []


def test_a_path_that_cannot_be_read_raises_a_repository_error(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError):
        open_database(url(tmp_path / ("x" * 300))).pending_migrations()


# --- the check at start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["x.db", "with space.db", "with%20percent.db", "100%.db", 'it\'s; $(touch no) "q" & ☃.db'],
)
def test_the_command_in_the_error_applies_the_migrations_when_a_shell_runs_it(
    tmp_path: Path, name: str
) -> None:
    database = open_database(f"sqlite:///{tmp_path / name}")
    with pytest.raises(ConfigurationError) as error:
        check_schema(database, apply=False)
    assert exit_code(error.value) == EXIT_CONFIGURATION == 78
    assert not database.path.exists()
    message = str(error.value)
    assert f"{len(known_migrations())} migrations" in message
    assert known_migrations()[0] in message
    _, _, command = message.partition("run: ")
    done = subprocess.run(
        command,
        shell=True,
        cwd=tmp_path.parent,
        env=others_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=DEADLINE,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path.parent / "no").exists()
    assert database.path.exists()
    check_schema(database, apply=False)


def test_the_command_also_names_a_database_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///relative.db")
    with pytest.raises(ConfigurationError) as error:
        check_schema(database, apply=False)
    _, _, command = str(error.value).partition("run: ")
    environment = others_environment()
    subprocess.run(
        command, shell=True, env=environment, check=True, capture_output=True, timeout=DEADLINE
    )
    assert database.pending_migrations() == []


def test_a_half_migrated_database_is_rejected_with_the_first_missing_migration(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    apply_some(path, known_migrations()[:1])
    with pytest.raises(ConfigurationError, match=f"1 migrations .*{known_migrations()[1]}"):
        check_schema(open_database(url(path)), apply=False)


def test_a_migrated_database_passes_the_check_and_logs_nothing(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    check_schema(database, apply=False)
    check_schema(database, apply=True)
    assert caplog.records == []


def test_the_worker_migrates_if_asked_to_and_logs_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="worker.schema")
    database = open_database(url(tmp_path / "x.db"))
    check_schema(database, apply=True)
    (record,) = [one for one in caplog.records if one.name == "worker.schema"]
    assert record.getMessage() == "database.migrated"
    assert record.__dict__["migrations"] == known_migrations()
    assert database.pending_migrations() == []


def test_migrations_that_fail_are_a_configuration_error_with_its_cause(tmp_path: Path) -> None:
    database = open_database(url(tmp_path / "no folder" / "x.db"))
    with pytest.raises(ConfigurationError, match="failed") as failure:
        check_schema(database, apply=True)
    assert exit_code(failure.value) == EXIT_CONFIGURATION
    assert failure.value.__cause__ is not None


@pytest.mark.parametrize("apply", [False, True])
def test_a_file_that_is_not_a_database_is_rejected_and_left_unchanged(
    tmp_path: Path, apply: bool
) -> None:
    path = tmp_path / "x.db"
    path.write_text("this is no database\n" * 100)
    before = digest(path)
    with pytest.raises(CorruptDatabaseError) as error:
        check_schema(open_database(url(path)), apply=apply)
    assert exit_code(error.value) == EXIT_DATA
    assert digest(path) == before


def test_a_folder_instead_of_the_file_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as error:
        check_schema(open_database(url(tmp_path)), apply=False)
    assert isinstance(error.value.__cause__, UnavailableError)


def test_a_database_that_left_wal_mode_is_a_warning(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(path, "PRAGMA journal_mode = DELETE")
    check_schema(database, apply=False)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "database.not_wal")
    assert record.__dict__["found"] == "delete"


def test_a_lock_that_a_killed_migration_left_is_named_with_its_remedy(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask(path, "DELETE FROM _yoyo_migration")
    ask(path, "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, '2026-01-01T00:00:00', 1)")
    monkeypatch.setattr("repo.sqlite.schema._LOCK_TIMEOUT", 0.01)
    with pytest.raises(ConfigurationError) as failure:
        check_schema(open_database(url(path)), apply=True)
    assert "break-lock" in describe(failure.value)


def test_a_database_that_is_locked_at_start_is_transient(database: Database, path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError) as error:
            check_schema(database, apply=False)
    assert exit_code(error.value) == EXIT_TEMPORARY


def test_a_locked_database_is_transient_also_if_yoyo_gave_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE others (number INTEGER)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        def give_up(_: Database) -> None:
            other.execute("BEGIN IMMEDIATE")
            raise LockTimeout("Database locked (run yoyo break-lock to remove this lock)")

        monkeypatch.setattr(Database, "migrate", give_up)
        with pytest.raises(TransientError):
            check_schema(open_database(url(path), busy_timeout=0.01), apply=True)
