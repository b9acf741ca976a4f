"""The schema, up and down and up again, by the library, yoyo's commands and the worker's."""

import fcntl
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from yoyo.backends import DatabaseBackend

from repo.errors import TransientError
from repo.migrations import known_migrations, migrations_folder
from repo.sqlite.checks import Disk
from tests.repo.migrating import apply_some, roll_back_all, run_command, schema_of, state_of
from tests.repo.rows import Db, run
from tests.support.commands import Done, run_projector
from tests.support.waiting import eventually
from tests.support.worker_process import PROJECTOR
from worker.errors import EXIT_CONFIGURATION, EXIT_DATA, EXIT_TEMPORARY
from worker.schema import check_schema

ROOT = Path(__file__).parents[2]
NOW = "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')"

# Written by hand from the contract.
COLUMNS = {
    "execution_results": [
        *(
            "result_id TEXT KEY 1",
            "request_id TEXT NOT NULL",
            "exec_id TEXT",
            "pc_id TEXT NOT NULL",
        ),
        *("exit_code INTEGER", "stdout TEXT NOT NULL = ''", "stderr TEXT NOT NULL = ''"),
        *(f"started_at TIMESTAMP NOT NULL = {NOW}", "finished_at TIMESTAMP"),
        *(f"recorded_at TIMESTAMP NOT NULL = {NOW}", "job_id TEXT", "version TEXT"),
        *("reaped INTEGER NOT NULL = 0", "expires_at TIMESTAMP", "parent_result_id TEXT"),
        "skipped INTEGER NOT NULL = 0",
    ],
    "executions": [
        *("exec_id TEXT KEY 1", "job_id TEXT NOT NULL", "version TEXT NOT NULL"),
        *("initiated_by TEXT NOT NULL", f"initiated_at TIMESTAMP NOT NULL = {NOW}"),
        *("target_count INTEGER NOT NULL", "success_count INTEGER NOT NULL = 0"),
        *("failure_count INTEGER NOT NULL = 0", "status TEXT NOT NULL = 'pending'"),
    ],
    "rejected_events": [
        *("rejected_id INTEGER KEY 1", "stream TEXT NOT NULL", "stream_sequence INTEGER NOT NULL"),
        *("recorded_at TIMESTAMP NOT NULL", "subject TEXT NOT NULL", "reason TEXT NOT NULL"),
        *("rejected_at TIMESTAMP NOT NULL", "payload BLOB NOT NULL"),
    ],
    "checkpoints": [
        *("stream TEXT NOT NULL KEY 1", "consumer TEXT NOT NULL KEY 2"),
        *("stream_created_at TIMESTAMP NOT NULL", "caught_up_to INTEGER NOT NULL"),
        *("last_sequence INTEGER NOT NULL", "last_stored_at TEXT NOT NULL", "place TEXT NOT NULL"),
        *("commits INTEGER NOT NULL = 0", "committed_at TIMESTAMP NOT NULL"),
        *("lost_sequences INTEGER NOT NULL = 0", "lost_up_to INTEGER NOT NULL = 0"),
        "lost_at TIMESTAMP",
    ],
}

IN_FLIGHT = "WHERE finished_at IS NULL"
INDEXES = {
    "executions_status ON executions (status)",
    "executions_pending ON executions (status, exec_id) WHERE status = 'pending'",
    "execution_results_exec_id ON execution_results (exec_id)",
    "execution_results_pc_id ON execution_results (pc_id)",
    "execution_results_job_id ON execution_results (job_id)",
    "executions_initiated_at ON executions (initiated_at)",
    "execution_results_recorded_at ON execution_results (recorded_at)",
    f"execution_results_in_flight_started_at ON execution_results (started_at) {IN_FLIGHT}",
    f"execution_results_in_flight_expires_at ON execution_results (expires_at) {IN_FLIGHT}",
    "execution_results_reaped_finished_at ON execution_results (finished_at) WHERE reaped = 1",
}


def columns(db: Db, table: str) -> list[str]:
    """Return each column with its constraints; its default follows the equals sign."""
    return [
        f"{name} {kind}"
        + " NOT NULL" * required
        + (f" = {default}" if default else "")
        + (f" KEY {key}" if key else "")
        for _, name, kind, required, default, key in db.ask(f"PRAGMA table_info({table})")
    ]


def without_comments(sql: str) -> str:
    return " ".join(re.sub("--.*", "", sql).split())


def assert_migrated(db: Db) -> None:
    schema = {name: without_comments(sql) for name, sql in schema_of(db).items() if sql}
    assert {table: columns(db, table) for table in COLUMNS} == COLUMNS
    indexes = {sql for name, sql in schema.items() if name not in COLUMNS}
    assert indexes == {f"CREATE INDEX {index}" for index in INDEXES}
    assert db.ask("PRAGMA journal_mode") == [("wal",)]
    assert db.database.pending_migrations() == []


def meet_a_lock(*_: object, **__: object) -> None:
    """Fail as a statement that met the lock of another program."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    raise error


# --- the library ----------------------------------------------------------------------------------


def test_every_migration_has_a_rollback_and_its_statements_can_be_repeated() -> None:
    assert known_migrations("sqlite") == ["20261126_01_write_ahead_log", "20261126_02_schema"]
    assert (migrations_folder("sqlite") / "20261126_01_write_ahead_log.rollback.sql").is_file()
    for file in (ROOT / "sql" / "sqlite" / "schema").glob("*.sql"):
        for statement in re.findall(r"^(?:CREATE|DROP) .*", file.read_text("utf-8"), re.MULTILINE):
            assert re.search(r" IF (NOT )?EXISTS ", statement), f"{file.name}: {statement}"


def test_each_object_says_in_its_definition_what_it_is_for(db: Db) -> None:
    for name, sql in schema_of(db).items():
        assert sql is None or re.match(r"CREATE (TABLE|INDEX) \w+( \()?\n    -- [A-Z]", sql), name
    (table,) = db.ask("SELECT sql FROM sqlite_schema WHERE name = 'execution_results'")
    assert "No foreign key" in table[0]


def test_a_file_of_a_version_with_other_comments_is_migrated_and_rolled_back(db: Db) -> None:
    earlier = {name: without_comments(sql) for name, sql in schema_of(db).items() if sql}
    for table in COLUMNS:
        db.ask(f"DROP TABLE {table}")
    for sql in earlier.values():
        db.ask(sql)
    assert db.database.pending_migrations() == []
    db.ask("DELETE FROM _yoyo_migration WHERE migration_id GLOB '*_02_*'")
    db.database.migrate()
    assert {name: sql for name, sql in schema_of(db).items() if sql} == earlier
    assert_migrated(db)
    roll_back_all(db)
    assert schema_of(db) == {}


def test_migrations_can_be_rolled_back_after_the_tables_were_dropped(db: Db) -> None:
    for table in COLUMNS:
        db.ask(f"DROP TABLE {table}")
    roll_back_all(db)
    assert schema_of(db) == {}
    assert db.database.applied_migrations() == []


@pytest.mark.parametrize(
    ("unmarked", "dropped"),
    [
        *(("*_01_*", ()), ("*_02_*", ()), ("*", ())),
        ("*_02_*", ("INDEX execution_results_pc_id", "TABLE rejected_events", "TABLE checkpoints")),
    ],
)
def test_a_migration_that_was_applied_in_part_or_not_marked_can_be_applied_again(
    db: Db, unmarked: str, dropped: tuple[str, ...]
) -> None:
    db.add_executions(execution_1="running")
    db.ask("DELETE FROM _yoyo_migration WHERE migration_id GLOB ?", (unmarked,))
    for half in dropped:
        db.ask(f"DROP {half}")
    assert len(db.database.pending_migrations()) == (2 if unmarked == "*" else 1)
    db.database.migrate()
    assert_migrated(db)
    assert db.statuses() == {"execution-1": "running"}


def test_times_that_another_program_leaves_out_get_the_present_second(db: Db) -> None:
    db.ask("INSERT INTO execution_results (result_id, request_id, pc_id) VALUES ('r', 'q', 'p')")
    insert = "INSERT INTO executions (exec_id, job_id, version, initiated_by, target_count)"
    db.ask(f"{insert} VALUES ('e', 'j', '1', 'o', 1)")
    (times,) = db.ask(
        "SELECT started_at, recorded_at, initiated_at FROM execution_results, executions"
    )
    for time in times:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time)


# --- a database of another program ----------------------------------------------------------------


def test_a_foreign_database_gets_what_it_lacks_and_keeps_what_it_has(fleet: Db) -> None:
    def content() -> list[list[tuple[Any, ...]]]:
        return [fleet.ask(f"SELECT * FROM {name}") for name in ("executions", "execution_results")]

    before, rows = schema_of(fleet), content()
    fleet.database.migrate()
    after = schema_of(fleet)
    assert before.items() <= after.items()
    assert {name for name in set(after) - set(before) if not name.startswith("sqlite_")} == {
        *("rejected_events", "checkpoints"),
        *("executions_status", "executions_pending", "execution_results_reaped_finished_at"),
        *("executions_initiated_at", "execution_results_recorded_at"),
    }
    written = fleet.write([run("r1", exec_id="theirs"), run("r1"), run("r2")])
    assert (written.inserted, written.promotion_failures) == (2, [])
    assert fleet.statuses() == {"theirs": "running"}
    fleet.ask("DELETE FROM execution_results WHERE result_id <> 'theirs'")
    fleet.ask("UPDATE executions SET status = 'pending'")
    fleet.repository.close()
    roll_back_all(fleet)
    assert (schema_of(fleet), content()) == (before, rows)
    assert fleet.ask("PRAGMA journal_mode") == [("wal",)]


@pytest.mark.parametrize(
    ("replaced", "theirs", "added"),
    [
        ("idx_results_pc", "(pc_id)", False),
        ("idx_results_pc", "(PC_ID DESC, version)", False),
        ("idx_results_pc", '("pc_id") WHERE (pc_id IS NOT NULL)', False),
        ("idx_results_pc", "(version, pc_id)", True),
        ("idx_results_pc", "(pc_id COLLATE NOCASE)", True),
        ("idx_results_pc", "(lower(pc_id))", True),
        ("idx_results_pc", "(pc_id) WHERE finished_at IS NULL", True),
        ("idx_results_expiry", "(expires_at, pc_id) WHERE finished_at  is null", False),
        (
            "idx_results_expiry",
            "-- where it expires\n (expires_at) WHERE finished_at IS NULL",
            False,
        ),
        ("idx_results_finished", "(recorded_at DESC)", False),
        ("idx_results_finished", "(recorded_at, pc_id)", False),
        ("idx_results_finished", "(finished_at, recorded_at)", True),
        # These hold the history as well.
        ("idx_results_expiry", "(expires_at)", True),
        ("idx_results_expiry", "(expires_at) WHERE expires_at IS NOT NULL", True),
    ],
)
def test_an_index_is_added_unless_one_of_theirs_has_its_rows_and_begins_with_its_columns(
    fleet: Db, replaced: str, theirs: str, added: bool
) -> None:
    fleet.ask(f"DROP INDEX {replaced}")
    fleet.ask(f"CREATE INDEX theirs ON execution_results {theirs}")
    fleet.database.migrate()
    ours = {
        "idx_results_pc": "pc_id",
        "idx_results_expiry": "in_flight_expires_at",
        "idx_results_finished": "recorded_at",
    }[replaced]
    assert (f"execution_results_{ours}" in schema_of(fleet)) is added


@pytest.mark.parametrize(
    ("kept", "change"),
    [
        ("execution_results", "CREATE INDEX theirs ON execution_results (version)"),
        ("executions", "ALTER TABLE executions ADD COLUMN site TEXT"),
        ("rejected_events", "CREATE TRIGGER t AFTER INSERT ON rejected_events BEGIN SELECT 1; END"),
    ],
)
def test_a_rollback_keeps_a_table_that_others_have_extended(db: Db, kept: str, change: str) -> None:
    db.ask(change)
    roll_back_all(db)
    assert set(schema_of(db)) & set(COLUMNS) == {kept}


def test_a_foreign_table_without_our_columns_fails_and_is_left_unchanged(empty: Db) -> None:
    empty.ask("CREATE TABLE execution_results (result_id TEXT PRIMARY KEY, finished_at TEXT)")
    before = schema_of(empty)
    with pytest.raises(Exception, match="no such column"):
        empty.database.migrate()
    assert schema_of(empty) == before


# --- beside other programs ------------------------------------------------------------------------


def test_migrations_apply_beside_a_program_that_commits_just_before_each_mark(
    empty: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = DatabaseBackend.ensure_internal_schema_updated

    def commit_after_look(self: Any) -> None:
        look(self)
        if self._in_transaction and empty.count("others") < 5:
            empty.ask("INSERT INTO others VALUES (1)")

    apply_some(empty, known_migrations("sqlite")[:1])
    empty.ask("CREATE TABLE others (number INTEGER)")
    monkeypatch.setattr(DatabaseBackend, "ensure_internal_schema_updated", commit_after_look)
    empty.database.migrate()
    assert (empty.count("others"), empty.count("yoyo_lock")) == (5, 0)
    assert empty.database.pending_migrations() == []


def lock_by_yoyo(db: Db, pid: int, *, at: str) -> None:
    """Lock the migrations as yoyo's own command does."""
    apply_some(db, known_migrations("sqlite")[:1])
    db.ask("INSERT INTO yoyo_lock (locked, ctime, pid) VALUES (1, ?, ?)", (at, pid))


def ended_process() -> int:
    """Return the id of a process that was killed."""
    with subprocess.Popen(["sleep", "infinity"]) as process:
        process.kill()
    return process.pid


LONG_AGO, NEVER_YET = "2001-01-01T00:00:00.000001", "2100-01-01T00:00:00"
HOLDERS: dict[str, Callable[[], int]] = {
    "ended": ended_process,
    "this": os.getpid,
    "parent": os.getppid,
    "impossible": lambda: 2**40,
}


@pytest.mark.parametrize(
    ("holder", "at", "network", "is_freed"),
    [
        ("ended", NEVER_YET, False, True),
        ("impossible", NEVER_YET, False, True),
        ("parent", LONG_AGO, False, True),  # the id was used again
        ("parent", NEVER_YET, False, False),
        ("ended", LONG_AGO, True, False),  # perhaps a process of another machine
        ("this", NEVER_YET, True, True),  # left by an attempt that met a lock
    ],
)
def test_the_lock_of_a_process_that_has_ended_is_freed_with_a_warning(
    empty: Db,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    *,
    holder: str,
    at: str,
    network: bool,
    is_freed: bool,
) -> None:
    pid = HOLDERS[holder]()
    lock_by_yoyo(empty, pid, at=at)
    disk = Disk("nfs4" if network else "ext4", 1, 0.5)
    monkeypatch.setattr("repo.sqlite.migration_lock.disk_of", lambda _: disk)
    monkeypatch.setattr("repo.migrations.LOCK_TIMEOUT", 0.01)
    if is_freed:
        empty.database.migrate()
        assert_migrated(empty)
        (freed,) = [one for one in caplog.records if one.message == "database.lock_freed"]
        assert (freed.levelname, vars(freed)["pid"]) == ("WARNING", pid)
        assert empty.count("yoyo_lock") == 0
    else:
        named = f"waiting for process {pid}, .* since {at[:4]}"
        with pytest.raises(TransientError, match=named) as error:
            empty.database.migrate()
        assert empty.ask("SELECT pid FROM yoyo_lock") == [(pid,)]
        _, _, command = str(error.value).partition("if it is dead, run: ")
        run_command("sh", "-c", f"PATH={Path(sys.executable).parent}; {command}", cwd=Path("/"))
        assert migrate(empty).code == 0


def test_a_zombie_has_ended(empty: Db) -> None:
    with subprocess.Popen(["true"]) as process:
        eventually(lambda: ") Z" in Path(f"/proc/{process.pid}/stat").read_text("utf-8"), 10)
        lock_by_yoyo(empty, process.pid, at=NEVER_YET)
        empty.database.migrate()
    assert_migrated(empty)


def test_the_lock_of_a_migration_in_another_container_is_not_freed(
    empty: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock_by_yoyo(empty, ended_process(), at=LONG_AGO)  # a process that is not visible here
    monkeypatch.setattr("repo.migrations.LOCK_TIMEOUT", 0.01)
    with empty.path.open("rb") as theirs:
        fcntl.flock(theirs, fcntl.LOCK_EX)
        with pytest.raises(TransientError, match="waiting for another process"):
            empty.database.migrate()
    assert empty.count("yoyo_lock") == 1
    empty.database.migrate()
    assert_migrated(empty)


def test_a_database_that_stays_busy_raises_a_transient_error(
    empty: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DatabaseBackend, "mark_one", meet_a_lock)
    monkeypatch.setattr("repo.migrations.RETRY_FOR", 0.05)
    with pytest.raises(TransientError):
        empty.database.migrate()


def test_migrating_twice_prints_nothing_and_works_for_a_user_without_a_name(
    empty: Db, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "me")  # so that what the worker sets is undone with the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)  # raises KeyError, as for an unknown uid
    empty.database.migrate()
    before = empty.ask("SELECT * FROM _yoyo_migration ORDER BY migration_id")
    empty.database.migrate()
    assert empty.ask("SELECT * FROM _yoyo_migration ORDER BY migration_id") == before
    assert_migrated(empty)
    assert capfd.readouterr() == ("", "")


# --- projector migrate ----------------------------------------------------------------------------


def migrate(db: Db, *options: str) -> Done:
    return run_projector("migrate", "--database", db.url, *options, cwd=ROOT)


def test_the_command_applies_and_prints_what_the_list_shows_as_pending(empty: Db) -> None:
    first, second = known_migrations("sqlite")
    assert migrate(empty, "--list").output == f"pending  {first}\npending  {second}\n"
    assert not empty.path.exists()
    apply_some(empty, [first])
    assert migrate(empty, "--list").output == f"applied  {first}\npending  {second}\n"
    for missing in ([second], []):
        done = migrate(empty)
        assert (done.code, done.output.splitlines()) == (0, missing)
        assert done.errors.startswith(f"{len(missing)} migrations applied to ")
    assert_migrated(empty)


def test_the_exit_code_of_the_command_shows_whether_to_repeat_it(empty: Db, db: Db) -> None:
    def code(database: Db, *options: str) -> int:
        done = migrate(database, *options)
        assert (done.output, done.errors[:5]) == ("", "Error")
        return done.code

    db.path.write_text("this is not a database\n" * 100)
    for option in ((), ("--list",), ("--dry-run",)):
        assert code(db, *option) == EXIT_DATA
    assert code(Db(empty.path.parent / "no folder" / "x.db")) == EXIT_CONFIGURATION
    empty.ask("CREATE TABLE others (number INTEGER)")
    with closing(sqlite3.connect(empty.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert code(empty, "--busy-timeout", "10ms", "--retry-for", "50ms") == EXIT_TEMPORARY


@pytest.mark.parametrize("state", ["missing", "empty", "foreign", "migrated"])
def test_a_dry_run_prints_the_statements_that_a_migration_then_runs(
    empty: Db, fleet: Db, template: Path, state: str
) -> None:
    content = {"empty": b"", "foreign": fleet.path.read_bytes(), "migrated": template.read_bytes()}
    by_hand = Db(empty.path.with_name("by_hand.db"))
    if state != "missing":
        empty.path.write_bytes(content[state])
        by_hand.path.write_bytes(content[state])
    before = state_of(empty)
    done = migrate(empty, "--dry-run")
    assert done.code == 0, done.errors
    assert state_of(empty) == before
    with closing(sqlite3.connect(by_hand.path)) as connection:
        connection.executescript(done.output)
    empty.database.migrate()
    assert schema_of(by_hand) == schema_of(empty)
    assert (done.output == "") is (state == "migrated")


# --- yoyo's commands ------------------------------------------------------------------------------


def test_plain_yoyo_commands_go_up_and_down_and_agree_with_the_worker(tmp_path: Path) -> None:
    shutil.copyfile(ROOT / "yoyo.ini", tmp_path / "yoyo.ini")
    shutil.copytree(ROOT / "sql", tmp_path / "sql")
    db, names = Db(tmp_path / "projector.db"), known_migrations("sqlite")  # yoyo.ini's default

    def yoyo(*arguments: str) -> str:
        return run_command(Path(sys.executable).with_name("yoyo"), *arguments, cwd=tmp_path)

    def listed() -> dict[str, str]:
        """Return the state of each migration: A applied, U not."""
        found = re.findall(r"^([AU])\s+(\S+)", yoyo("list"), re.MULTILINE)
        return {name: state for state, name in found}

    assert listed() == dict.fromkeys(names, "U")
    yoyo("apply")
    assert listed() == dict.fromkeys(names, "A")
    assert_migrated(db)
    check_schema(db.database, apply=False)
    yoyo("rollback")
    assert db.database.pending_migrations() == names[-1:]
    yoyo("rollback", "--all")
    assert listed() == dict.fromkeys(names, "U")
    assert schema_of(db) == {}
    db.database.migrate()
    assert listed() == dict.fromkeys(names, "A")
    yoyo("apply")
    assert_migrated(db)


def test_no_yoyo_command_of_a_document_or_script_waits_for_an_answer() -> None:
    documents = [ROOT / "README.md", *(ROOT / "sql").rglob("*"), *(ROOT / "scripts").rglob("*")]
    found = [
        command
        for path in documents
        if path.suffix != ".png" and path.is_file() and "__pycache__" not in path.parts
        for command in re.findall(
            r"yoyo\"? +((?:apply|rollback|reapply|list|mark|unmark|break-lock)\b[^`]*)",
            path.read_text("utf-8"),
        )
    ]
    assert len(found) >= 5
    for command in found:
        options = command.split("\n")[0]
        # Without a file yoyo asks whether to write one.
        assert " --batch" in options, command
        assert " --no-config-file" in options or " --config" in options, command


def test_the_command_undoes_migrations_the_last_one_first(empty: Db, tmp_path: Path) -> None:
    def command(*arguments: str) -> Done:
        return run_projector("migrate", *arguments, "--database", empty.url, cwd=tmp_path)

    first, second = known_migrations("sqlite")
    command()
    assert command("--rollback").code == 64
    assert command("--rollback", "--list", "--yes").code == 64
    assert command("--to", first).code == 64
    assert command("--rollback", "--yes").output.split() == [second]
    assert empty.database.applied_migrations() == [first]
    assert [name for name in schema_of(empty) if "yoyo" not in name] == []
    command()
    assert command("--rollback", "--to", "0", "--yes").output.split() == [second, first]
    assert command().output.split() == [first, second]


def test_the_migrate_script_migrates_any_database(empty: Db, tmp_path: Path) -> None:
    run_command(ROOT / "scripts" / "migrate", "--database", empty.url, cwd=tmp_path)
    assert_migrated(empty)


@pytest.mark.parametrize(("umask", "mode"), [("022", 0o640), ("077", 0o600)])
@pytest.mark.parametrize("command", [f"{PROJECTOR} migrate", f"{ROOT}/scripts/migrate"])
def test_others_cannot_read_a_new_database_nor_its_log(
    empty: Db, command: str, umask: str, mode: int
) -> None:
    program = f"umask {umask}; {command} --database {empty.url}"
    run_command("/bin/sh", "-c", program, cwd=empty.path.parent)
    with closing(sqlite3.connect(empty.path)) as connection, connection:
        connection.execute("UPDATE executions SET status = 'running'")
        files = list(empty.path.parent.glob(f"{empty.path.name}*"))
        assert [file.stat().st_mode & 0o777 for file in files] == [mode] * 3
