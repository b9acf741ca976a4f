"""The schema, up and down and up again, by the library, yoyo's commands and the worker's."""

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from yoyo.backends import DatabaseBackend
from yoyo.exceptions import LockTimeout

from repo import open_database
from repo.errors import TransientError
from repo.sqlite.database import Database
from repo.sqlite.schema import known_migrations, migrations_folder
from tests.repo.migrating import apply_some, committing, roll_back_all, schema_of
from tests.repo.rows import Repository, add_executions, ask, count, run, statuses, url, write
from tests.support.commands import others_environment, run_projector
from worker.errors import EXIT_CONFIGURATION, EXIT_DATA, EXIT_TEMPORARY
from worker.schema import check_schema

ROOT = Path(__file__).parents[2]
DEADLINE = 50.0
NOW = "strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now')"

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
        ("started_at", "TIMESTAMP", 1, NOW, 0),
        ("finished_at", "TIMESTAMP", 0, None, 0),
        ("recorded_at", "TIMESTAMP", 1, NOW, 0),
        ("job_id", "TEXT", 0, None, 0),
        ("version", "TEXT", 0, None, 0),
        ("reaped", "INTEGER", 1, "0", 0),
        ("expires_at", "TIMESTAMP", 0, None, 0),
        ("parent_result_id", "TEXT", 0, None, 0),
        ("skipped", "INTEGER", 1, "0", 0),
    ],
    "executions": [
        ("exec_id", "TEXT", 0, None, 1),
        ("job_id", "TEXT", 1, None, 0),
        ("version", "TEXT", 1, None, 0),
        ("initiated_by", "TEXT", 1, None, 0),
        ("initiated_at", "TIMESTAMP", 1, NOW, 0),
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

# table, columns and condition
INDEXES = {
    "executions_status": "executions (status)",
    "execution_results_exec_id": "execution_results (exec_id)",
    "execution_results_pc_id": "execution_results (pc_id)",
    "execution_results_job_id": "execution_results (job_id)",
    "execution_results_in_flight_started_at": (
        "execution_results (started_at) WHERE finished_at IS NULL"
    ),
    "execution_results_in_flight_expires_at": (
        "execution_results (expires_at) WHERE finished_at IS NULL"
    ),
    "execution_results_reaped_finished_at": "execution_results (finished_at) WHERE reaped = 1",
}


def columns(path: Path, table: str) -> list[tuple[Any, ...]]:
    return [row[1:] for row in ask(path, f"PRAGMA table_info({table})")]


def assert_migrated(path: Path) -> None:
    schema = {name: sql for name, sql in schema_of(path).items() if sql is not None}
    assert set(schema) == set(COLUMNS) | set(INDEXES)
    assert {table: columns(path, table) for table in COLUMNS} == COLUMNS
    assert {name: " ".join(schema[name].split()) for name in INDEXES} == {
        name: f"CREATE INDEX {name} ON {rest}" for name, rest in INDEXES.items()
    }
    assert ask(path, "PRAGMA journal_mode") == [("wal",)]
    assert open_database(url(path)).pending_migrations() == []


def locked_error() -> sqlite3.OperationalError:
    """Return the error of a statement that met the lock of another program."""
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY_SNAPSHOT
    return error


# --- the library ----------------------------------------------------------------------------------


def test_every_migration_has_a_rollback_and_its_statements_can_be_repeated() -> None:
    assert known_migrations() == ["20261126_01_write_ahead_log", "20261126_02_schema"]
    assert (migrations_folder() / "20261126_01_write_ahead_log.rollback.sql").is_file()
    for file in (ROOT / "sql" / "sqlite" / "schema").glob("*.sql"):
        for statement in re.findall(r"^(?:CREATE|DROP) .*", file.read_text("utf-8"), re.MULTILINE):
            assert re.search(r" IF (NOT )?EXISTS ", statement), f"{file.name}: {statement}"


def test_migrations_go_up_and_down_and_up_again(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    for _ in range(2):
        apply_some(path, known_migrations())
        assert_migrated(path)
        roll_back_all(path)
        assert schema_of(path) == {}
        assert open_database(url(path)).applied_migrations() == []


def test_migrations_can_be_rolled_back_after_the_tables_were_dropped(path: Path) -> None:
    for table in COLUMNS:
        ask(path, f"DROP TABLE {table}")
    roll_back_all(path)
    assert schema_of(path) == {}


@pytest.mark.parametrize("unmarked", [["*_01_*"], ["*_02_*"], ["*_01_*", "*_02_*"]])
def test_a_migration_that_was_applied_but_not_marked_can_be_applied_again(
    path: Path, unmarked: list[str]
) -> None:
    add_executions(path, execution_1="running")
    for pattern in unmarked:
        ask(path, "DELETE FROM _yoyo_migration WHERE migration_id GLOB ?", (pattern,))
    assert len(open_database(url(path)).pending_migrations()) == len(unmarked)
    open_database(url(path)).migrate()
    assert_migrated(path)
    assert statuses(path) == {"execution-1": "running"}


def test_a_schema_that_was_created_half_way_is_completed(path: Path) -> None:
    ask(path, "DELETE FROM _yoyo_migration WHERE migration_id GLOB '*_02_*'")
    for half in ("INDEX execution_results_pc_id", "TABLE rejected_events", "TABLE checkpoints"):
        ask(path, f"DROP {half}")
    open_database(url(path)).migrate()
    assert_migrated(path)


def test_times_that_another_program_leaves_out_get_the_present_second(path: Path) -> None:
    ask(path, "INSERT INTO execution_results (result_id, request_id, pc_id) VALUES ('r', 'q', 'p')")
    ask(
        path,
        "INSERT INTO executions (exec_id, job_id, version, initiated_by, target_count)"
        " VALUES ('e', 'j', '1', 'o', 1)",
    )
    (times,) = ask(path, "SELECT started_at, recorded_at FROM execution_results")
    ((initiated_at,),) = ask(path, "SELECT initiated_at FROM executions")
    for time in (*times, initiated_at):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", time)


def test_the_indexes_of_open_runs_hold_no_finished_run(repository: Repository, path: Path) -> None:
    write(repository, [run(f"r{number}") for number in range(10)])
    ask(path, "UPDATE execution_results SET finished_at = started_at WHERE result_id > 'r3'")
    ask(path, "ANALYZE")
    found = ask(path, "SELECT stat FROM sqlite_stat1 WHERE idx LIKE '%in_flight%'")
    assert [stat.split()[0] for (stat,) in found] == ["4", "4"]


# --- a database of another program ----------------------------------------------------------------


def test_a_foreign_database_gets_what_it_lacks_and_keeps_what_it_has(
    fleet: Path, open_repository: Any
) -> None:
    before = schema_of(fleet)
    rows = ask(fleet, "SELECT * FROM execution_results"), ask(fleet, "SELECT * FROM executions")
    open_database(url(fleet)).migrate()
    after = schema_of(fleet)
    assert before.items() <= after.items()
    assert {name for name in set(after) - set(before) if not name.startswith("sqlite_")} == {
        *("rejected_events", "checkpoints"),
        *("executions_status", "execution_results_reaped_finished_at"),
    }
    batch = [run("r1", exec_id="theirs"), run("r1"), run("r2")]
    written = write(open_repository(Database(url(fleet))), batch)
    assert (written.inserted, written.promotion_failures) == (2, [])
    assert statuses(fleet) == {"theirs": "running"}
    ask(fleet, "DELETE FROM execution_results WHERE result_id <> 'theirs'")
    ask(fleet, "UPDATE executions SET status = 'pending'")
    roll_back_all(fleet)
    assert schema_of(fleet) == before
    assert ask(fleet, "PRAGMA journal_mode") == [("wal",)]
    assert rows == (
        ask(fleet, "SELECT * FROM execution_results"),
        ask(fleet, "SELECT * FROM executions"),
    )


@pytest.mark.parametrize(
    ("theirs", "added"),
    [
        ("(pc_id)", False),
        ("(PC_ID DESC, version)", False),
        ('("pc_id") WHERE (pc_id IS NOT NULL)', False),
        ("(version, pc_id)", True),
        ("(pc_id COLLATE NOCASE)", True),
        ("(lower(pc_id))", True),
        ("(pc_id) WHERE finished_at IS NULL", True),
    ],
)
def test_an_index_is_added_unless_one_of_theirs_begins_with_its_columns(
    fleet: Path, theirs: str, added: bool
) -> None:
    ask(fleet, "DROP INDEX idx_results_pc")
    ask(fleet, f"CREATE INDEX theirs ON execution_results {theirs}")
    open_database(url(fleet)).migrate()
    assert ("execution_results_pc_id" in schema_of(fleet)) is added


@pytest.mark.parametrize(
    ("theirs", "added"),
    [
        ("(expires_at, pc_id) WHERE finished_at  is null", False),
        ("(expires_at)", True),
        ("(expires_at) WHERE expires_at IS NOT NULL", True),
    ],
)
def test_a_partial_index_is_added_beside_one_of_theirs_that_holds_the_history(
    fleet: Path, theirs: str, added: bool
) -> None:
    ask(fleet, "DROP INDEX idx_results_expiry")
    ask(fleet, f"CREATE INDEX theirs ON execution_results {theirs}")
    open_database(url(fleet)).migrate()
    assert ("execution_results_in_flight_expires_at" in schema_of(fleet)) is added


@pytest.mark.parametrize(
    ("change", "kept"),
    [
        ("CREATE INDEX theirs ON execution_results (version)", "execution_results"),
        ("ALTER TABLE executions ADD COLUMN site TEXT", "executions"),
        (
            "CREATE TRIGGER theirs AFTER INSERT ON rejected_events BEGIN SELECT 1; END",
            "rejected_events",
        ),
    ],
)
def test_a_rollback_keeps_a_table_that_another_program_has_extended(
    path: Path, change: str, kept: str
) -> None:
    ask(path, change)
    roll_back_all(path)
    tables = ask(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    assert [name for (name,) in tables if name in COLUMNS] == [kept]


def test_a_foreign_table_that_lacks_a_column_fails_the_migration_and_is_left_unchanged(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE execution_results (result_id TEXT PRIMARY KEY, finished_at TEXT)")
    before = schema_of(path)
    with pytest.raises(Exception, match="no such column"):
        open_database(url(path)).migrate()
    assert schema_of(path) == before


# --- beside other programs ------------------------------------------------------------------------


@pytest.fixture
def begun(tmp_path: Path) -> Path:
    """A database of another program, with the first of the migrations."""
    path = tmp_path / "begun.db"
    apply_some(path, known_migrations()[:1])
    ask(path, "CREATE TABLE others (number INTEGER)")
    return path


def test_migrations_apply_beside_a_program_that_commits_all_the_time(
    begun: Path, tmp_path: Path
) -> None:
    for number in range(5):
        path = Path(shutil.copyfile(begun, tmp_path / f"{number}.db"))
        with committing(path, "INSERT INTO others VALUES (?)") as written:
            check_schema(open_database(url(path)), apply=True)
        assert count(path, "others") == len(written)
        assert count(path, "yoyo_lock") == 0


def test_a_commit_just_before_a_mark_costs_one_attempt_only(
    begun: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    look = DatabaseBackend.ensure_internal_schema_updated

    def commit_after_look(self: Any) -> None:
        look(self)
        if self._in_transaction and count(begun, "others") < 5:
            ask(begun, "INSERT INTO others VALUES (1)")

    monkeypatch.setattr(DatabaseBackend, "ensure_internal_schema_updated", commit_after_look)
    open_database(url(begun)).migrate()
    assert count(begun, "others") == 5
    assert open_database(url(begun)).pending_migrations() == []


@pytest.mark.parametrize("owner", ["this process", "another process"])
def test_a_retry_deletes_a_lock_row_of_its_own_process_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: str
) -> None:
    path = tmp_path / "x.db"
    delete = DatabaseBackend._delete_lock_row
    left: list[int] = []

    def fail_once(self: Any, pid: int) -> None:
        if left:
            delete(self, pid)
            return
        left.append(pid)
        if owner == "another process":
            ask(path, "UPDATE yoyo_lock SET pid = pid + 1")
        raise locked_error()

    monkeypatch.setattr(DatabaseBackend, "_delete_lock_row", fail_once)
    monkeypatch.setattr("repo.sqlite.schema._LOCK_TIMEOUT", 0.01)
    if owner == "this process":
        open_database(url(path)).migrate()
        assert count(path, "yoyo_lock") == 0
        assert_migrated(path)
    else:
        with pytest.raises(LockTimeout, match="has locked"):
            open_database(url(path)).migrate()
        assert ask(path, "SELECT pid FROM yoyo_lock") == [(left[0] + 1,)]


def test_a_database_that_stays_busy_raises_a_transient_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mark(*_: object, **__: object) -> None:
        raise locked_error()

    monkeypatch.setattr(DatabaseBackend, "mark_one", mark)
    monkeypatch.setattr("repo.sqlite.schema._RETRY_FOR", 0.05)
    with pytest.raises(TransientError):
        open_database(url(tmp_path / "x.db")).migrate()


def test_four_processes_that_migrate_at_once_all_succeed(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    program = "import sys; from repo import open_database; open_database(sys.argv[1]).migrate()"
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
    found = [(process.returncode, text) for process, text in zip(processes, outputs, strict=True)]
    assert found == [(0, "")] * 4
    assert_migrated(path)
    assert count(path, "_yoyo_migration") == len(known_migrations())


def test_migrating_twice_prints_nothing_and_changes_nothing(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "x.db"
    open_database(url(path)).migrate()
    add_executions(path, execution_1="running")
    before = ask(path, "SELECT * FROM _yoyo_migration ORDER BY migration_id")
    open_database(url(path)).migrate()
    assert ask(path, "SELECT * FROM _yoyo_migration ORDER BY migration_id") == before
    assert_migrated(path)
    assert count(path, "executions") == 1
    assert capfd.readouterr() == ("", "")


def test_migrating_works_for_a_user_without_a_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_entry(_uid: int) -> str:
        raise KeyError("getpwuid(): uid not found")

    for variable in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.setenv(variable, "me")  # so that what the worker sets is undone with the test
        monkeypatch.delenv(variable)
    monkeypatch.setattr("pwd.getpwuid", no_entry)
    open_database(url(tmp_path / "x.db")).migrate()
    assert_migrated(tmp_path / "x.db")


# --- projector migrate ----------------------------------------------------------------------------


def test_the_command_applies_what_is_missing_and_prints_it(tmp_path: Path) -> None:
    path, names = tmp_path / "x.db", known_migrations()
    apply_some(path, names[:1])
    for missing in (names[1:], []):
        done = run_projector("migrate", cwd=tmp_path, PROJECTOR_DATABASE=url(path))
        assert (done.code, done.output.splitlines()) == (0, missing)
        assert done.errors.startswith(f"{len(missing)} migrations applied to ")
    assert_migrated(path)


def test_the_exit_code_of_the_command_shows_whether_to_repeat_it(tmp_path: Path) -> None:
    def code(path: Path, *options: str) -> int:
        done = run_projector("migrate", "--database", url(path), *options, cwd=tmp_path)
        assert (done.output, done.errors[:5]) == ("", "Error")
        return done.code

    (tmp_path / "no.db").write_text("this is no database\n" * 100)
    for option in ((), ("--list",), ("--dry-run",)):
        assert code(tmp_path / "no.db", *option) == EXIT_DATA
    assert code(tmp_path / "no folder" / "x.db") == EXIT_CONFIGURATION
    path = tmp_path / "x.db"
    ask(path, "CREATE TABLE others (number INTEGER)")
    with sqlite3.connect(path, isolation_level=None) as other:
        other.execute("BEGIN IMMEDIATE")
        assert code(path, "--busy-timeout", "10ms", "--retry-for", "50ms") == EXIT_TEMPORARY
    other.close()


def test_a_list_shows_the_state_of_each_migration_and_creates_no_file(tmp_path: Path) -> None:
    path, (first, second) = tmp_path / "x.db", known_migrations()
    done = run_projector("migrate", "--list", "--database", url(path), cwd=tmp_path)
    assert done.output.splitlines() == [f"pending  {first}", f"pending  {second}"]
    assert not path.exists()
    apply_some(path, [first])
    done = run_projector("migrate", "--list", "--database", url(path), cwd=tmp_path)
    assert done.output.splitlines() == [f"applied  {first}", f"pending  {second}"]


@pytest.mark.parametrize("state", ["missing", "empty", "foreign", "migrated"])
def test_a_dry_run_prints_the_statements_that_a_migration_then_runs(
    tmp_path: Path, fleet: Path, template: Path, state: str
) -> None:
    path = tmp_path / "x.db"
    if state != "missing":
        path.touch()
        content = {"empty": b"", "foreign": fleet.read_bytes(), "migrated": template.read_bytes()}
        path.write_bytes(content[state])
    before = path.exists() and (path.read_bytes(), path.stat().st_mtime_ns)
    done = run_projector("migrate", "--dry-run", "--database", url(path), cwd=tmp_path)
    assert done.code == 0, done.errors
    assert (path.exists() and (path.read_bytes(), path.stat().st_mtime_ns)) == before
    by_hand = tmp_path / "by_hand.db"
    if state != "missing":
        shutil.copyfile(path, by_hand)
    connection = sqlite3.connect(by_hand)
    connection.executescript(done.output)
    connection.close()
    open_database(url(path)).migrate()
    assert schema_of(by_hand) == schema_of(path)
    assert (done.output == "") is (state == "migrated")


# --- yoyo's commands ------------------------------------------------------------------------------


class Checkout:
    """A copy of what `yoyo` reads, with the default database beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / "projector.db"
        shutil.copyfile(ROOT / "yoyo.ini", folder / "yoyo.ini")
        shutil.copytree(ROOT / "sql", folder / "sql")

    def yoyo(self, *arguments: str) -> str:
        return command(Path(sys.executable).with_name("yoyo"), *arguments, cwd=self.folder)

    def listed(self) -> dict[str, str]:
        """Return the state of each migration in the output of `yoyo list`: A applied, U not."""
        output = self.yoyo("list")
        return {name: state for state, name in re.findall(r"^([AU])\s+(\S+)", output, re.MULTILINE)}


def command(program: Path, *arguments: str, cwd: Path) -> str:
    done = subprocess.run(
        [program, *arguments],
        cwd=cwd,
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


def test_plain_yoyo_commands_go_up_and_down_and_up_again(checkout: Checkout) -> None:
    names = known_migrations()
    assert checkout.listed() == dict.fromkeys(names, "U")
    checkout.yoyo("apply")
    assert checkout.listed() == dict.fromkeys(names, "A")
    assert_migrated(checkout.path)
    checkout.yoyo("rollback")
    assert open_database(url(checkout.path)).pending_migrations() == names[-1:]
    checkout.yoyo("rollback", "--all")
    assert checkout.listed() == dict.fromkeys(names, "U")
    assert schema_of(checkout.path) == {}
    checkout.yoyo("apply")
    assert_migrated(checkout.path)
    check_schema(open_database(url(checkout.path)), apply=False)


def test_yoyo_and_the_worker_agree_on_what_is_applied(checkout: Checkout) -> None:
    open_database(url(checkout.path)).migrate()
    assert set(checkout.listed().values()) == {"A"}
    checkout.yoyo("apply")
    assert_migrated(checkout.path)


def test_the_migrate_script_migrates_any_database(tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    command(ROOT / "scripts" / "migrate", "--database", url(path), cwd=tmp_path)
    assert_migrated(path)


def test_an_installed_package_migrates_without_a_checkout(tmp_path: Path) -> None:
    folder = tmp_path / "installed"
    source = Path(shutil.copytree(ROOT, tmp_path / "source", ignore=only_the_package))
    build = ("setup.py", "--quiet", "build_py", "--build-lib", str(folder))
    command(Path(sys.executable), *build, cwd=source)
    program = (
        f"import sys; sys.path.insert(0, {str(folder)!r}); import repo;"
        f"assert repo.__file__.startswith({str(folder)!r}), repo.__file__;"
        "from worker.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    arguments = ("-c", program, "migrate", "--database", url(tmp_path / "x.db"))
    assert "CREATE TABLE" in command(Path(sys.executable), *arguments, "--dry-run", cwd=tmp_path)
    command(Path(sys.executable), *arguments, cwd=tmp_path)
    assert_migrated(tmp_path / "x.db")


def only_the_package(folder: str, names: list[str]) -> list[str]:
    if Path(folder) != ROOT:
        return ["__pycache__"]
    return [name for name in names if name not in ("worker", "repo", "sql", "setup.py")]
