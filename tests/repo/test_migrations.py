"""The schema, up and down and up again, by yoyo's library, its command line and the worker."""

import hashlib
import logging
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yoyo
from yoyo.backends import DatabaseBackend
from yoyo.exceptions import LockTimeout

from repo.errors import CorruptDatabaseError, RepositoryError, TransientError, UnavailableError
from repo.repository import Repository
from repo.sqlite.database import Database
from repo.sqlite.schema import known_migrations, migrations_folder, pending_migrations
from tests.repo.conftest import OpenRepository
from tests.repo.rows import add_executions, ask, count, refusal_of, run, statuses, url
from tests.support.commands import others_environment, run_projector
from tests.support.waiting import eventually
from worker.errors import (
    EXIT_CONFIGURATION,
    EXIT_DATA,
    EXIT_TEMPORARY,
    ConfigurationError,
    describe,
    exit_code,
)
from worker.schema import check_schema, migrate

ROOT = Path(__file__).parents[2]
DEADLINE = 50.0

# name, type, NOT NULL, default, position in the primary key: written by hand from the contract.
COLUMNS: dict[str, list[tuple[str, str, int, str | None, int]]] = {
    "execution_results": [
        ("result_id", "TEXT", 0, None, 1),
        ("request_id", "TEXT", 1, None, 0),
        ("exec_id", "TEXT", 0, None, 0),
        ("pc_id", "TEXT", 1, None, 0),
        ("exit_code", "INTEGER", 0, None, 0),
        ("stdout", "TEXT", 1, "''", 0),
        ("stderr", "TEXT", 1, "''", 0),
        ("started_at", "TIMESTAMP", 1, None, 0),
        ("finished_at", "TIMESTAMP", 0, None, 0),
        ("recorded_at", "TIMESTAMP", 1, None, 0),
        ("job_id", "TEXT", 0, None, 0),
        ("version", "TEXT", 0, None, 0),
        ("reaped", "INTEGER", 1, "0", 0),
        ("expires_at", "TIMESTAMP", 0, None, 0),
    ],
    "executions": [
        ("exec_id", "TEXT", 0, None, 1),
        ("job_id", "TEXT", 1, None, 0),
        ("version", "TEXT", 1, None, 0),
        ("initiated_by", "TEXT", 1, None, 0),
        ("initiated_at", "TIMESTAMP", 1, None, 0),
        ("target_count", "INTEGER", 1, None, 0),
        ("success_count", "INTEGER", 1, "0", 0),
        ("failure_count", "INTEGER", 1, "0", 0),
        ("status", "TEXT", 1, "'pending'", 0),
    ],
    "rejected_events": [
        ("rejected_id", "INTEGER", 0, None, 1),
        ("stream", "TEXT", 1, None, 0),
        ("stream_sequence", "INTEGER", 1, None, 0),
        ("recorded_at", "TIMESTAMP", 1, None, 0),
        ("subject", "TEXT", 1, None, 0),
        ("reason", "TEXT", 1, None, 0),
        ("rejected_at", "TIMESTAMP", 1, None, 0),
        ("payload", "BLOB", 1, None, 0),
    ],
    "checkpoints": [
        ("stream", "TEXT", 1, None, 1),
        ("consumer", "TEXT", 1, None, 2),
        ("stream_created_at", "TIMESTAMP", 1, None, 0),
        ("highest_sequence", "INTEGER", 1, None, 0),
        ("caught_up_to", "INTEGER", 1, None, 0),
        ("committed_at", "TIMESTAMP", 1, None, 0),
    ],
}

# table, indexed columns, unique, condition
INDEXES = {
    "execution_results_in_flight_started_at": (
        ("execution_results", ["started_at"], 0, "finished_at IS NULL")
    ),
    "execution_results_in_flight_expires_at": (
        ("execution_results", ["expires_at"], 0, "finished_at IS NULL")
    ),
    "execution_results_reaped_finished_at": (
        ("execution_results", ["finished_at"], 0, "reaped = 1")
    ),
    "execution_results_exec_id": ("execution_results", ["exec_id"], 0, None),
    "execution_results_pc_id": ("execution_results", ["pc_id"], 0, None),
    "execution_results_job_id": ("execution_results", ["job_id"], 0, None),
    "sqlite_autoindex_execution_results_1": ("execution_results", ["result_id"], 1, None),
    "executions_status": ("executions", ["status"], 0, None),
    "sqlite_autoindex_executions_1": ("executions", ["exec_id"], 1, None),
    "sqlite_autoindex_rejected_events_1": (
        ("rejected_events", ["stream", "stream_sequence", "recorded_at"], 1, None)
    ),
    "sqlite_autoindex_checkpoints_1": ("checkpoints", ["stream", "consumer"], 1, None),
}


def columns(path: Path) -> dict[str, list[tuple[Any, ...]]]:
    return {
        table: [row[1:] for row in ask(path, f"PRAGMA table_info({table})")]
        for (table,) in ask(
            path,
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%yoyo%'"
            " AND name <> 'sqlite_sequence'",  # the engine's own; it can't be dropped
        )
    }


def indexes(path: Path) -> dict[str, tuple[str, list[str], int, str | None]]:
    found = {}
    for name, table, sql in ask(
        path,
        "SELECT name, tbl_name, coalesce(sql, '') FROM sqlite_schema"
        " WHERE type = 'index' AND tbl_name NOT LIKE '%yoyo%'",
    ):
        _, _, condition = sql.partition(" WHERE ")
        unique = dict(ask(path, f"SELECT name, \"unique\" FROM pragma_index_list('{table}')"))[name]
        names = [row[2] for row in ask(path, f"PRAGMA index_info({name})")]
        found[name] = (table, names, unique, condition or None)
    return found


def others(path: Path) -> list[tuple[Any, ...]]:
    return ask(path, "SELECT type, name FROM sqlite_schema WHERE type NOT IN ('table', 'index')")


def journal_mode(path: Path) -> str:
    return str(ask(path, "PRAGMA journal_mode")[0][0])


def assert_migrated(path: Path) -> None:
    assert columns(path) == COLUMNS
    assert indexes(path) == INDEXES
    assert others(path) == []
    assert journal_mode(path) == "wal"
    assert pending_migrations(Database(url(path))) == []


def assert_nothing_is_left(path: Path) -> None:
    assert columns(path) == {}
    assert indexes(path) == {}
    assert others(path) == []
    assert journal_mode(path) == "delete"


def apply_some(path: Path, some: list[str]) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder())).filter(
        lambda migration: migration.id in some
    )
    with yoyo.get_backend(url(path)) as backend, backend.lock():
        backend.apply_migrations(backend.to_apply(migrations))


def roll_back_one(path: Path, name: str) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder())).filter(
        lambda migration: migration.id >= name
    )
    with yoyo.get_backend(url(path)) as backend, backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))


def roll_back_all(path: Path) -> None:
    migrations = yoyo.read_migrations(str(migrations_folder()))
    with yoyo.get_backend(url(path)) as backend, backend.lock():
        backend.rollback_migrations(backend.to_rollback(migrations))


# --- files ----------------------------------------------------------------------------------------


def test_every_migration_is_named_by_its_day_and_has_a_rollback() -> None:
    ids = known_migrations()
    assert ids
    for name in ids:
        assert re.fullmatch(r"\d{8}_\d{2}_[a-z][a-z0-9_]*", name)
    assert sorted(file.name for file in migrations_folder().iterdir()) == sorted(
        f"{name}{suffix}" for name in ids for suffix in (".sql", ".rollback.sql")
    )


def test_yoyo_reads_the_same_migrations_in_the_same_order() -> None:
    migrations = yoyo.read_migrations(str(migrations_folder()))
    assert [migration.id for migration in migrations] == known_migrations()


def test_every_migration_can_be_applied_again_and_rolled_back_again() -> None:
    for file in migrations_folder().glob("*.sql"):
        for verb in re.findall(r"^(?:CREATE|DROP) .*", file.read_text("utf-8"), re.MULTILINE):
            assert re.search(r" IF (NOT )?EXISTS ", verb), f"{file.name}: {verb}"


# --- yoyo's library -------------------------------------------------------------------------------


def test_the_migrated_schema_is_the_reviewed_one(path: Path) -> None:
    assert_migrated(path)


def test_migrations_go_up_and_down_and_up_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for _ in range(2):
        apply_some(path, known_migrations())
        assert_migrated(path)
        roll_back_all(path)
        assert_nothing_is_left(path)
        assert pending_migrations(Database(url(path))) == known_migrations()


def test_migrations_can_be_rolled_back_after_the_tables_are_gone(path: Path) -> None:
    for table in COLUMNS:
        ask(path, f"DROP TABLE {table}")
    roll_back_all(path)
    assert_nothing_is_left(path)


@pytest.mark.parametrize("name", known_migrations())
def test_a_migration_that_was_applied_but_not_marked_can_be_applied_again(
    path: Path, name: str
) -> None:
    add_executions(path, execution_1="running")
    ask(path, "DELETE FROM _yoyo_migration WHERE migration_id = ?", (name,))
    assert pending_migrations(Database(url(path))) == [name]
    migrate(url(path))
    assert_migrated(path)
    assert statuses(path) == {"execution-1": "running"}


def test_all_migrations_applied_but_not_marked_can_be_applied_again(path: Path) -> None:
    ask(path, "DELETE FROM _yoyo_migration")
    migrate(url(path))
    assert_migrated(path)


def test_tables_that_another_program_made_before_are_kept_and_served(
    tmp_path: Path, open_repository: OpenRepository
) -> None:
    path = tmp_path / "shared.db"
    for table, names in COLUMNS.items():
        if table in ("execution_results", "executions"):
            foreign = ", ".join(
                f"{name} {kind}{' PRIMARY KEY' if key else ''}"
                f"{' NOT NULL' if required else ''}{f' DEFAULT {default}' if default else ''}"
                for name, kind, required, default, key in reversed(names)
            )
            ask(path, f"CREATE TABLE {table} (site TEXT NOT NULL DEFAULT 'north', {foreign})")
    ask(path, "CREATE INDEX foreign_index ON execution_results (site, pc_id)")
    add_executions(path, execution_1="pending")
    migrate(url(path))
    found = columns(path)
    assert found["executions"][0][0] == "site"
    assert indexes(path) == {**INDEXES, "foreign_index": indexes(path)["foreign_index"]}
    batch = [run("r1"), run("r1"), run("r2")]
    written = open_repository(Database(url(path))).write(batch, [], refusal_of(batch))
    assert (written.inserted, written.promotion_failures) == (2, [])
    assert statuses(path) == {"execution-1": "running"}
    assert ask(path, "SELECT DISTINCT site FROM execution_results") == [("north",)]


@pytest.mark.parametrize("index", ["started_at", "expires_at"])
def test_the_indexes_of_open_runs_hold_no_finished_run(
    repository: Repository, path: Path, index: str
) -> None:
    batch = [run(f"r{number}") for number in range(10)]
    repository.write(batch, [], refusal_of(batch))
    ask(path, "UPDATE execution_results SET finished_at = started_at WHERE result_id > 'r3'")
    rows = ask(
        path,
        "SELECT count(*) FROM execution_results"
        f" INDEXED BY execution_results_in_flight_{index} WHERE finished_at IS NULL",
    )
    assert rows == [(4,)]
    ask(path, "ANALYZE")
    name = f"execution_results_in_flight_{index}"
    ((stat,),) = ask(path, "SELECT stat FROM sqlite_stat1 WHERE idx = ?", (name,))
    assert stat.split()[0] == "4"


# --- rejected_events made anew --------------------------------------------------------------------

ANEW = "20261123_08_rejected_events_autoincrement"
BEFORE = known_migrations()[: known_migrations().index(ANEW)]
INSERT_REJECTED = (
    "INSERT INTO rejected_events"
    " (stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at)"
    " VALUES ('EVENTS', ?, '2026-05-20T12:00:00+00:00', 's', ?, 'reason', 'at')"
)
SELECT_REJECTED = (
    "SELECT rejected_id, stream, stream_sequence, recorded_at, subject, payload, reason,"
    " rejected_at FROM rejected_events ORDER BY 1"
)


def reject(path: Path, *sequences: int) -> None:
    for sequence in sequences:
        ask(path, INSERT_REJECTED, (sequence, b"\x00" * sequence * 1000))


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A database with rejected events, from before the table was made anew; 2 was discarded."""
    path = tmp_path / "before.db"
    apply_some(path, BEFORE)
    reject(path, 1, 2, 3)
    ask(path, "DELETE FROM rejected_events WHERE rejected_id = 2")
    return path


def test_rejected_events_keep_their_ids_when_their_table_is_made_anew_and_back(
    before: Path,
) -> None:
    rows = ask(before, SELECT_REJECTED)
    old = columns(before)["rejected_events"]
    for _ in range(2):
        apply_some(before, [*BEFORE, ANEW])
        assert columns(before)["rejected_events"] == COLUMNS["rejected_events"]
        assert ask(before, SELECT_REJECTED) == rows
        roll_back_one(before, ANEW)
        assert columns(before)["rejected_events"] == old
        assert ask(before, SELECT_REJECTED) == rows
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"):
        reject(before, 1)


def test_an_id_that_was_removed_never_comes_again_also_if_the_migration_is_repeated(
    before: Path,
) -> None:
    migrate(url(before))
    reject(before, 4)
    ask(before, "DELETE FROM rejected_events")
    for next_id in (5, 6):
        ask(before, "DELETE FROM _yoyo_migration WHERE migration_id = ?", (ANEW,))
        migrate(url(before))
        assert_migrated(before)
        reject(before, 9)
        assert ask(before, "SELECT rejected_id FROM rejected_events") == [(next_id,)]
        assert ask(before, "SELECT name, seq FROM sqlite_sequence") == [
            ("rejected_events", next_id)
        ]
        ask(before, "DELETE FROM rejected_events")


@pytest.mark.parametrize(
    "added",
    [
        "ALTER TABLE rejected_events ADD COLUMN site TEXT",
        "CREATE INDEX foreign_index ON rejected_events (subject)",
        "CREATE TRIGGER foreign_rule AFTER INSERT ON rejected_events BEGIN SELECT 1; END",
    ],
)
def test_what_others_added_to_rejected_events_is_not_dropped_with_it(
    before: Path, added: str
) -> None:
    ask(before, added)
    schema = ask(before, "SELECT * FROM sqlite_schema WHERE name NOT LIKE '%yoyo%'")
    rows = ask(before, SELECT_REJECTED)
    with pytest.raises(ConfigurationError) as refusal:
        check_schema(Database(url(before)), apply=True)
    assert "drop them, migrate, make them again" in describe(refusal.value)
    assert ask(before, "SELECT * FROM sqlite_schema WHERE name NOT LIKE '%yoyo%'") == schema
    assert ask(before, SELECT_REJECTED) == rows


def test_somebodys_view_of_rejected_events_goes_on_working(before: Path) -> None:
    ask(before, "CREATE VIEW foreign_view AS SELECT subject FROM rejected_events")
    migrate(url(before))
    assert ask(before, "SELECT count(*) FROM foreign_view") == [(2,)]


# --- beside others --------------------------------------------------------------------------------


@contextmanager
def neighbour(path: Path, sql: str, *values: object) -> Iterator[list[int]]:
    """Another program that commits all the time; yields the numbers that it has written so far."""
    ending = threading.Event()
    written: list[int] = []

    def write() -> None:
        with closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
            while not ending.wait(0.001):  # without a pause nobody else ever gets the lock
                connection.execute(sql, (100 + len(written), *values))
                written.append(100 + len(written))

    with ThreadPoolExecutor(1) as executor:
        writing = executor.submit(write)
        try:
            eventually(lambda: written, DEADLINE)
            yield written
        finally:
            ending.set()
        writing.result()


def until_it_works(work: Callable[[], None]) -> None:
    """Do it as often as yoyo needs, which reads before it unmarks a migration."""

    def works() -> bool:
        try:
            work()
        except sqlite3.OperationalError as error:
            if "locked" not in str(error):
                raise
            return False
        return True

    eventually(works, DEADLINE)


def test_rejected_events_are_made_anew_beside_a_program_that_writes(before: Path) -> None:
    with neighbour(before, INSERT_REJECTED, b"x") as written:
        for _ in range(3):
            migrate(url(before))
            until_it_works(lambda: roll_back_one(before, ANEW))
    assert count(before, "rejected_events") == 2 + len(written)


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A database of another program, with the first of the migrations."""
    path = tmp_path / "begun.db"
    apply_some(path, known_migrations()[:1])
    ask(path, "CREATE TABLE others (number INTEGER)")
    return path


def test_all_is_migrated_beside_a_program_that_commits_all_the_time(
    begun: Path, tmp_path: Path
) -> None:
    for number in range(5):
        path = Path(shutil.copyfile(begun, tmp_path / f"{number}.db"))
        with neighbour(path, "INSERT INTO others VALUES (?)") as written:
            check_schema(Database(url(path)), apply=True)
        assert count(path, "others") == len(written)
        assert count(path, "yoyo_lock") == 0


def locked() -> sqlite3.OperationalError:
    """Return the error of a statement that another program's lock is in the way of."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    return error


def test_a_commit_just_before_a_mark_is_in_the_way_of_one_attempt_alone(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = DatabaseBackend.ensure_internal_schema_updated

    def commit_after_look(self: Any) -> None:
        look(self)
        if self._in_transaction and count(begun, "others") < 5:
            ask(begun, "INSERT INTO others VALUES (1)")

    monkeypatch.setattr(DatabaseBackend, "ensure_internal_schema_updated", commit_after_look)
    migrate(url(begun))
    assert count(begun, "others") == 5
    assert pending_migrations(Database(url(begun))) == []


@pytest.mark.parametrize("whose", ["ours", "another's"])
def test_a_lock_row_that_could_not_be_deleted_is_in_no_retrys_way_unless_it_is_anothers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    path = tmp_path / "x.db"
    delete = DatabaseBackend._delete_lock_row
    left: list[int] = []

    def fail_once(self: Any, pid: int) -> None:
        if left:
            delete(self, pid)
            return
        left.append(pid)
        if whose == "another's":
            ask(path, "UPDATE yoyo_lock SET pid = pid + 1")
        raise locked()

    monkeypatch.setattr(DatabaseBackend, "_delete_lock_row", fail_once)
    monkeypatch.setattr("worker.schema._LOCK_TIMEOUT", 0.01)
    if whose == "ours":
        migrate(url(path))
        assert count(path, "yoyo_lock") == 0
        assert_migrated(path)
    else:
        with pytest.raises(LockTimeout, match="has locked"):
            migrate(url(path))
        assert ask(path, "SELECT pid FROM yoyo_lock") == [(left[0] + 1,)]


def test_a_database_that_stays_busy_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark(*_: object, **__: object) -> None:
        raise locked()

    monkeypatch.setattr(DatabaseBackend, "mark_one", mark)
    monkeypatch.setattr("worker.schema._RETRY_FOR", 0.05)
    with pytest.raises(TransientError) as failure:
        check_schema(Database(url(tmp_path / "x.db")), apply=True)
    assert exit_code(failure.value) == EXIT_TEMPORARY == 75


def test_a_locked_database_that_yoyo_waited_for_in_vain_is_temporary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE others (number INTEGER)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:

        def wait_in_vain(_url: str) -> None:
            other.execute("BEGIN IMMEDIATE")
            raise LockTimeout("Database locked (run yoyo break-lock to remove this lock)")

        monkeypatch.setattr("worker.schema.migrate", wait_in_vain)
        with pytest.raises(TransientError):
            check_schema(Database(url(path), busy_timeout=0.01), apply=True)


# --- the command ----------------------------------------------------------------------------------


def test_the_command_applies_what_is_missing_and_says_what(tmp_path: Path) -> None:
    path, names = tmp_path / "x.db", known_migrations()
    apply_some(path, names[:3])
    for missing in (names[3:], []):
        done = run_projector("migrate", cwd=tmp_path, PROJECTOR_DATABASE=url(path))
        assert (done.code, done.output.splitlines()) == (0, missing)
        assert done.errors.startswith(f"{len(missing)} migrations applied to ")
    assert_migrated(path)


def test_the_command_tells_by_its_code_whether_it_helps_to_run_it_again(tmp_path: Path) -> None:
    def code(path: Path, *options: str) -> int:
        done = run_projector("migrate", "--database", url(path), *options, cwd=tmp_path)
        assert (done.output, done.errors[:5]) == ("", "Error")
        return done.code

    (tmp_path / "no.db").write_text("this is no database\n" * 100)
    assert code(tmp_path / "no.db") == EXIT_DATA
    assert code(tmp_path / "no folder" / "x.db") == EXIT_CONFIGURATION
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE others (number INTEGER)")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert code(path, "--busy-timeout", "10ms", "--retry-for", "50ms") == EXIT_TEMPORARY


# --- yoyo's command line --------------------------------------------------------------------------


class Checkout:
    """A copy of what `yoyo` reads, with the default database beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "projector.db"
        shutil.copyfile(ROOT / "yoyo.ini", folder / "yoyo.ini")
        shutil.copytree(
            ROOT / "sql" / "sqlite" / "migrations", folder / "sql" / "sqlite" / "migrations"
        )

    def yoyo(self, *arguments: str) -> str:
        command = Path(sys.executable).with_name("yoyo")
        done = subprocess.run(
            [command, *arguments],
            cwd=self.folder,
            env=others_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def listed(output: str) -> dict[str, str]:
    """Return the state of each migration in the output of `yoyo list`: A applied, U not."""
    return {name: state for state, name in re.findall(r"^([AU])\s+(\S+)", output, re.MULTILINE)}


def test_plain_yoyo_commands_go_up_and_down_and_up_again(checkout: Checkout) -> None:
    names = known_migrations()
    assert listed(checkout.yoyo("list")) == dict.fromkeys(names, "U")
    checkout.yoyo("apply")
    assert listed(checkout.yoyo("list")) == dict.fromkeys(names, "A")
    assert_migrated(checkout.path)
    checkout.yoyo("rollback")
    assert pending_migrations(Database(url(checkout.path))) == names[-1:]
    checkout.yoyo("rollback", "--all")
    assert listed(checkout.yoyo("list")) == dict.fromkeys(names, "U")
    assert_nothing_is_left(checkout.path)
    checkout.yoyo("apply")
    assert_migrated(checkout.path)


def test_what_the_command_line_applied_the_worker_finds_and_the_other_way_round(
    checkout: Checkout,
) -> None:
    migrate(url(checkout.path))
    assert set(listed(checkout.yoyo("list")).values()) == {"A"}
    checkout.yoyo("apply")
    check_schema(Database(url(checkout.path)), apply=False)


# --- what is pending ------------------------------------------------------------------------------


def digest(path: Path) -> tuple[str, int]:
    return hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns


def test_everything_is_pending_for_a_missing_file_which_is_not_made(tmp_path: Path) -> None:
    missing = Database(url(tmp_path / "missing.db"))
    assert pending_migrations(missing) == known_migrations()
    assert list(tmp_path.iterdir()) == []


def test_everything_is_pending_for_an_empty_file_which_stays_empty(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    before = digest(path)
    assert pending_migrations(Database(url(path))) == known_migrations()
    assert digest(path) == before
    assert list(tmp_path.iterdir()) == [path]


def test_everything_is_pending_for_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    ask(path, "CREATE TABLE executions (exec_id TEXT PRIMARY KEY)")
    before = digest(path)
    assert pending_migrations(Database(url(path))) == known_migrations()
    assert digest(path) == before


@pytest.mark.parametrize("applied", range(len(known_migrations()) + 1))
def test_what_is_pending_is_what_is_not_applied_in_order_and_asking_writes_nothing(
    tmp_path: Path, applied: int
) -> None:
    path = tmp_path / "x.db"
    names = known_migrations()
    apply_some(path, names[:applied])
    before = digest(path)
    assert pending_migrations(Database(url(path))) == names[applied:]
    assert digest(path) == before


def test_a_migration_of_a_later_version_is_none_of_ours(path: Path) -> None:
    ask(
        path,
        "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES ('h', '20990101_01_x')",
    )
    assert pending_migrations(Database(url(path))) == []


def test_a_file_that_is_no_database_is_unusable(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    path.write_text("this is no database\n" * 100)
    with pytest.raises(CorruptDatabaseError):
        pending_migrations(Database(url(path)))


def test_a_path_that_cannot_be_looked_at_is_a_fault_of_the_repository(tmp_path: Path) -> None:
    with pytest.raises(RepositoryError):
        pending_migrations(Database(url(tmp_path / ("x" * 300))))


# --- the worker's own -----------------------------------------------------------------------------


def test_migrating_twice_is_migrating_once(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    migrate(url(path))
    add_executions(path, execution_1="running")
    before = ask(path, "SELECT * FROM _yoyo_migration ORDER BY migration_id")
    migrate(url(path))
    assert ask(path, "SELECT * FROM _yoyo_migration ORDER BY migration_id") == before
    assert_migrated(path)
    assert count(path, "executions") == 1


def test_four_processes_that_migrate_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    program = "import sys; from worker.schema import migrate; migrate(sys.argv[1])"
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, url(path)],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        outputs = [process.communicate(timeout=DEADLINE)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [
        (process.returncode, output) for process, output in zip(processes, outputs, strict=True)
    ] == [(0, "")] * 4
    assert_migrated(path)
    assert count(path, "_yoyo_migration") == len(known_migrations())


def test_migrating_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    migrate(url(tmp_path / "x.db"))
    assert capfd.readouterr() == ("", "")


def test_migrating_works_for_a_user_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_entry(_uid: int) -> str:
        raise KeyError("getpwuid(): uid not found")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "somebody")  # so that what the worker sets goes with the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    migrate(url(tmp_path / "x.db"))
    assert_migrated(tmp_path / "x.db")


def test_a_lock_that_a_killed_migration_left_is_named_with_its_remedy(
    checkout: Checkout, monkeypatch: pytest.MonkeyPatch
) -> None:
    migrate(url(checkout.path))
    ask(checkout.path, "DELETE FROM _yoyo_migration")
    ask(
        checkout.path,
        "INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, '2026-01-01T00:00:00', 1)",
    )
    monkeypatch.setattr("worker.schema._LOCK_TIMEOUT", 0.01)
    with pytest.raises(ConfigurationError) as failure:
        check_schema(Database(url(checkout.path)), apply=True)
    assert "break-lock" in describe(failure.value)
    checkout.yoyo("break-lock")
    check_schema(Database(url(checkout.path)), apply=True)
    assert_migrated(checkout.path)


# --- the check at start ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    ["x.db", "with space.db", "with%20percent.db", "100%.db", 'it\'s; $(touch no) "q" & ☃.db'],
)
def test_the_command_in_the_refusal_applies_the_migrations_when_a_shell_runs_it(
    tmp_path: Path, name: str
) -> None:
    database = Database(url(tmp_path / name))
    with pytest.raises(ConfigurationError) as refusal:
        check_schema(database, apply=False)
    assert exit_code(refusal.value) == EXIT_CONFIGURATION == 78
    assert not database.path.exists()
    message = str(refusal.value)
    assert known_migrations()[0] in message
    assert f"{len(known_migrations())} migrations" in message
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
    assert_migrated(database.path)
    check_schema(database, apply=False)


def test_the_command_also_names_a_database_relative_to_the_working_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError) as refusal:
        check_schema(Database("sqlite:///relative.db"), apply=False)
    _, _, command = str(refusal.value).partition("run: ")
    subprocess.run(
        command,
        shell=True,
        env=others_environment(),
        check=True,
        capture_output=True,
        timeout=DEADLINE,
    )
    assert_migrated(tmp_path / "relative.db")


def test_a_half_migrated_database_is_refused_with_the_first_that_is_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    names = known_migrations()
    apply_some(path, names[:3])
    with pytest.raises(ConfigurationError, match=f"{len(names) - 3} migrations .*{names[3]}"):
        check_schema(Database(url(path)), apply=False)


def test_a_migrated_database_passes_the_check_without_a_word(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    check_schema(database, apply=False)
    check_schema(database, apply=True)
    assert caplog.records == []


def test_the_worker_migrates_when_it_is_told_to_and_says_what(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="worker.schema")
    check_schema(Database(url(tmp_path / "x.db")), apply=True)
    (record,) = [one for one in caplog.records if one.name == "worker.schema"]
    assert record.getMessage() == "database.migrated"
    assert record.__dict__["migrations"] == known_migrations()
    assert_migrated(tmp_path / "x.db")


def test_migrations_that_fail_are_a_configuration_error_with_its_cause(tmp_path: Path) -> None:
    database = Database(url(tmp_path / "no folder" / "x.db"))
    with pytest.raises(ConfigurationError, match="failed") as failure:
        check_schema(database, apply=True)
    assert exit_code(failure.value) == EXIT_CONFIGURATION
    assert failure.value.__cause__ is not None


@pytest.mark.parametrize("apply", [False, True])
def test_a_file_that_is_no_database_is_refused_and_left_as_it_is(
    tmp_path: Path, apply: bool
) -> None:
    path = tmp_path / "x.db"
    path.write_text("this is no database\n" * 100)
    before = digest(path)
    with pytest.raises(CorruptDatabaseError) as refusal:
        check_schema(Database(url(path)), apply=apply)
    assert exit_code(refusal.value) == EXIT_DATA
    assert digest(path) == before


def test_a_folder_in_the_databases_place_is_a_configuration_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as refusal:
        check_schema(Database(url(tmp_path)), apply=False)
    assert isinstance(refusal.value.__cause__, UnavailableError)


def test_a_database_that_left_wal_mode_is_warned_about(
    database: Database, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ask(path, "PRAGMA journal_mode = DELETE")
    check_schema(database, apply=False)
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (logging.WARNING, "database.not_wal")
    assert record.__dict__["found"] == "delete"


def test_a_foreign_table_that_lacks_a_column_fails_the_migration_and_is_left_as_it_is(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE execution_results (result_id TEXT PRIMARY KEY, finished_at TEXT)")
    with pytest.raises(ConfigurationError):
        check_schema(Database(url(path)), apply=True)
    assert [column[0] for column in columns(path)["execution_results"]] == [
        "result_id",
        "finished_at",
    ]


def test_a_database_that_is_locked_at_start_is_not_for_a_person_to_mend(
    database: Database, path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError):
            check_schema(database, apply=False)
