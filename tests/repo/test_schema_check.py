"""What is pending, and the check of the schema at start."""

import logging
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from repo import check_url, open_database
from repo.errors import TransientError, UnavailableError
from repo.migrations import known_migrations
from repo.sqlite.database import Database
from tests.repo.migrating import apply_some, run_command, state_of
from tests.repo.rows import Db
from worker.errors import (
    EXIT_CONFIGURATION,
    EXIT_TEMPORARY,
    ConfigurationError,
    exit_code,
)
from worker.schema import check_schema

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
    assert Database(name).path == Path(file)


@pytest.mark.parametrize(
    "name",
    [
        *("", "x.db", "sqlite:", "sqlite:///", "sqlite://x.db", "sqlite:////srv/"),
        *("sqlite:///x.db?mode=ro", "sqlite:///x.db#part", "mysql://me:s3cret@host/x"),
    ],
)
def test_any_other_url_is_rejected_without_repeating_it(name: str) -> None:
    for take in (check_url, open_database):
        with pytest.raises(ValueError, match="expected sqlite:///") as error:
            take(name)
        assert "s3cret" not in str(error.value)


# --- what is pending ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "applied"),
    [
        *(([], 0), (["VACUUM"], 0), (["CREATE TABLE executions (exec_id TEXT)"], 0)),
        *(([], number + 1) for number in range(len(known_migrations("sqlite")))),
    ],
)
def test_migrations_are_applied_or_pending_in_order_and_reading_writes_nothing(
    empty: Db, sql: list[str], applied: int
) -> None:
    done, pending = known_migrations("sqlite")[:applied], known_migrations("sqlite")[applied:]
    for statement in sql:
        empty.ask(statement)  # creates the file, which VACUUM leaves empty
    if applied:
        apply_some(empty, done)
    before = state_of(empty)
    assert empty.database.applied_migrations() == done
    assert empty.database.pending_migrations() == pending
    assert state_of(empty) == before
    assert applied or list(empty.path.parent.iterdir()) == [empty.path] * bool(sql)


def test_a_migration_of_a_later_version_is_ignored(db: Db) -> None:
    columns = "(migration_hash, migration_id)"
    db.ask(f"INSERT INTO _yoyo_migration {columns} VALUES ('h', '20990101_01_x')")
    assert db.database.pending_migrations() == []


# --- the check at start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "folder"),
    [
        ("sqlite:///relative.db", "."),
        *(("sqlite:///{}/x.db", ".."), ("sqlite:///{}/with space.db", "..")),
        *(("sqlite:///{}/with%20percent.db", ".."), ("sqlite:///{}/100%.db", "..")),
        ('sqlite:///{}/it\'s; $(touch no) "q" & ☃.db', ".."),
    ],
)
def test_the_command_in_the_error_applies_the_migrations_when_a_shell_runs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, folder: str
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(url.format(tmp_path))
    with pytest.raises(ConfigurationError) as error:
        check_schema(database, apply=False)
    assert exit_code(error.value) == EXIT_CONFIGURATION == 78
    assert not database.path.exists()
    _, _, command = str(error.value).partition("run: ")
    run_command("sh", "-c", command, cwd=tmp_path / folder)
    assert not (tmp_path.parent / "no").exists()
    assert database.path.exists()
    check_schema(database, apply=False)


@pytest.mark.parametrize("applied", [0, 1])
def test_the_error_counts_pending_migrations_and_names_the_first(empty: Db, applied: int) -> None:
    apply_some(empty, known_migrations("sqlite")[:applied])
    expected = f"{2 - applied} migrations .*{known_migrations('sqlite')[applied]}"
    with pytest.raises(ConfigurationError, match=expected):
        check_schema(empty.database, apply=False)


def test_a_migrated_database_logs_nothing(db: Db, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    check_schema(db.database, apply=False)
    check_schema(db.database, apply=True)
    assert caplog.records == []


def test_the_worker_migrates_and_logs_what(empty: Db, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="worker.schema")
    check_schema(empty.database, apply=True)
    (record,) = [one for one in caplog.records if one.name == "worker.schema"]
    assert record.getMessage() == "database.migrated"
    assert record.__dict__["migrations"] == known_migrations("sqlite")
    assert empty.database.pending_migrations() == []


@pytest.mark.parametrize(("name", "apply"), [("no folder/x.db", True), (".", False)])
def test_a_file_that_cannot_be_created_or_read_is_a_configuration_error_with_its_cause(
    tmp_path: Path, name: str, apply: bool
) -> None:
    with pytest.raises(ConfigurationError, match="failed" if apply else "cannot be read") as error:
        check_schema(Db(tmp_path / name).database, apply=apply)
    assert exit_code(error.value) == EXIT_CONFIGURATION
    assert apply or isinstance(error.value.__cause__, UnavailableError)
    assert error.value.__cause__ is not None


def test_a_database_not_in_wal_mode_is_a_warning(db: Db, caplog: pytest.LogCaptureFixture) -> None:
    db.ask("PRAGMA journal_mode = DELETE")
    check_schema(db.database, apply=False)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "database.not_wal")
    assert record.__dict__["found"] == "delete"


def test_a_database_that_is_locked_at_start_is_transient(db: Db) -> None:
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError) as error:
            check_schema(db.database, apply=False)
    assert exit_code(error.value) == EXIT_TEMPORARY
