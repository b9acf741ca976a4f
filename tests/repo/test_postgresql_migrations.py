"""The schema of PostgreSQL: up, down and up again, by the command and by yoyo, and their lock."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from repo import Progress, open_database
from repo.errors import TransientError, UnreachableError
from repo.migrations import known_migrations, migrations_folder
from tests.support.commands import Done, run_projector
from tests.support.postgresql import cluster
from tests.support.waiting import eventually

IDS = known_migrations("postgresql")
ROOT = Path(__file__).parents[2]
OBJECTS = """
SELECT relkind::text, relname::text FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname NOT LIKE '%yoyo%'
UNION ALL SELECT 'f', proname::text FROM pg_proc WHERE pronamespace = 'public'::regnamespace
ORDER BY 1, 2
"""

# What psql's \d+ shows of each object and of each column of a table; NULL for nothing.
COMMENTS = """
SELECT relname::text, obj_description(oid, 'pg_class') FROM pg_class
WHERE relnamespace = 'public'::regnamespace AND relname !~ 'yoyo'
    AND relkind IN ('r', 'i', 'v', 'S')
UNION ALL
SELECT relname || '.' || attname, col_description(attrelid, attnum)
FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname !~ 'yoyo'
    AND attnum > 0 AND NOT attisdropped
UNION ALL
SELECT conname::text, obj_description(oid, 'pg_constraint') FROM pg_constraint
WHERE connamespace = 'public'::regnamespace AND contype IN ('c', 'f')
UNION ALL
SELECT proname::text, obj_description(oid, 'pg_proc') FROM pg_proc
WHERE pronamespace = 'public'::regnamespace
"""


@pytest.fixture
def empty() -> Iterator[str]:
    """The name of a database without tables."""
    name = f"empty_{time.monotonic_ns()}"
    cluster().ask(f"CREATE DATABASE {name} TEMPLATE template0")
    yield name
    cluster().drop_database(name)


def objects(name: str) -> list[tuple[object, ...]]:
    return cluster().ask(OBJECTS, name)


def yoyo(name: str, *arguments: str) -> str:
    url = cluster().url(name).replace("postgresql:", "postgresql+psycopg:")
    program = Path(sys.executable).with_name("yoyo")
    done = subprocess.run(
        [program, *arguments, "--no-config-file", "--database", url],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    return done.stdout


def command(name: str, *arguments: str) -> Done:
    return run_projector("migrate", *arguments, "--database", cluster().url(name), cwd=ROOT)


def test_the_command_applies_each_migration_once_and_prints_it(empty: str) -> None:
    assert [line[:7] for line in command(empty, "--list").output.splitlines()] == ["pending"] * 4
    assert "CREATE OR REPLACE FUNCTION database_place" in command(empty, "--dry-run").output
    assert objects(empty) == []
    done = command(empty)
    assert (done.code, done.output.splitlines()) == (0, IDS), done
    assert command(empty).output == command(empty, "--dry-run").output == ""


def test_the_command_undoes_the_last_one_or_all_after_another(empty: str) -> None:
    command(empty)
    before = objects(empty)
    asked = command(empty, "--rollback")
    assert (asked.code, objects(empty)) == (64, before)
    assert "--yes" in asked.errors
    assert command(empty, "--rollback", "--to", "unknown", "--yes").code == 64
    assert command(empty, "--rollback", "--yes").output.splitlines() == [IDS[3]]
    assert command(empty, "--list").output.splitlines()[-1] == f"pending  {IDS[3]}"
    done = command(empty, "--rollback", "--to", "0", "--yes")
    assert (done.output.splitlines(), objects(empty)) == (IDS[2::-1], [])
    assert command(empty, "--rollback", "--yes").output == ""
    command(empty)
    assert command(empty, "--rollback", "--to", IDS[0], "--yes").output.split() == IDS[:0:-1]


def test_yoyo_takes_everything_back_and_applies_it_again(empty: str) -> None:
    open_database(cluster().url(empty)).migrate()
    before = objects(empty)
    folder = str(migrations_folder("postgresql"))
    yoyo(empty, "rollback", "--all", "--batch", folder)
    assert objects(empty) == []
    yoyo(empty, "apply", "--batch", folder)
    assert objects(empty) == before
    assert open_database(cluster().url(empty)).pending_migrations() == []


def test_a_migration_that_was_applied_and_not_marked_may_be_repeated(empty: str) -> None:
    database = open_database(cluster().url(empty))
    database.migrate()
    before = objects(empty)
    cluster().ask("DELETE FROM _yoyo_migration", empty)
    database.migrate()
    assert (objects(empty), database.pending_migrations()) == (before, [])


def test_two_migrations_at_once_apply_each_once(empty: str) -> None:
    databases = [open_database(cluster().url(empty)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(database.migrate) for database in databases]:
            done.result(60)
    assert cluster().ask("SELECT count(*) FROM _yoyo_migration", empty) == [(4,)]


def test_the_lock_of_a_killed_yoyo_is_named_with_its_process_and_time(empty: str) -> None:
    database = open_database(cluster().url(empty))
    database.migrate()
    cluster().ask("INSERT INTO yoyo_lock VALUES (1, '2026-05-20 12:00:00', 4711)", empty)
    cluster().ask("DELETE FROM _yoyo_migration", empty)
    seen: list[str] = []

    def watch(progress: Progress) -> bool:
        seen.append(progress.step)
        return "4711" in progress.step

    with pytest.raises(TransientError, match="process 4711") as given_up:
        database.migrate(watch)
    assert "since 2026-05-20T12:00:00Z" in str(given_up.value)
    _, _, order = str(given_up.value).partition("if it is dead, run: ")
    order = f"PATH={Path(sys.executable).parent}; {order}"
    subprocess.run(["sh", "-c", order], check=True, cwd="/", stdin=subprocess.DEVNULL)
    database.migrate()
    assert database.pending_migrations() == []


def test_a_killed_migration_leaves_no_lock(empty: str) -> None:
    open_database(cluster().url(empty)).migrate()
    cluster().ask("DELETE FROM _yoyo_migration WHERE migration_id LIKE '%views'", empty)
    url = cluster().url(empty)
    with psycopg.connect(host=str(cluster().folder), dbname=empty, user="tester") as other:
        other.execute("LOCK TABLE readable_runs IN ACCESS EXCLUSIVE MODE")
        migrating = subprocess.Popen(
            [Path(sys.executable).with_name("projector"), "migrate", "--database", url],
            stderr=subprocess.DEVNULL,
        )
        waiting = "SELECT 1 FROM pg_locks WHERE NOT granted"
        eventually(lambda: cluster().ask(waiting), 20)
        migrating.kill()
        migrating.wait()
    assert command(empty).code == 0


def test_a_migration_that_is_given_up_ends_its_statement(empty: str) -> None:
    database = open_database(cluster().url(empty))
    database.migrate()
    cluster().ask("DELETE FROM _yoyo_migration WHERE migration_id LIKE '%views'", empty)
    stop = threading.Event()
    with psycopg.connect(host=str(cluster().folder), dbname=empty, user="tester") as other:
        other.execute("LOCK TABLE readable_runs IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(1) as pool:
            migrating = pool.submit(database.migrate, lambda _: stop.is_set())
            eventually(lambda: cluster().ask("SELECT 1 FROM pg_locks WHERE NOT granted"), 20)
            stop.set()
            with pytest.raises(TransientError, match="given up"):
                migrating.result(20)
        eventually(lambda: not cluster().ask("SELECT 1 FROM pg_locks WHERE NOT granted"), 10)


def test_a_server_that_is_away_is_exit_code_75_and_a_wrong_database_says_so(empty: str) -> None:
    away = run_projector("migrate", "--database", "postgresql://127.0.0.1:1/x", cwd=ROOT)
    assert away.code == 75
    assert "cannot be reached" in away.errors
    with pytest.raises(UnreachableError, match="does not exist"):
        open_database(cluster().url("no_such_database")).pending_migrations()


def test_a_database_of_the_fleet_keeps_its_tables(empty: str) -> None:
    cluster().ask(
        "CREATE TABLE executions (exec_id text PRIMARY KEY, job_id text, version text, initiated_by"
        " text, initiated_at text, target_count bigint, success_count bigint DEFAULT 0,"
        " failure_count bigint DEFAULT 0, status text, site text)",
        empty,
    )
    database = open_database(cluster().url(empty))
    database.migrate()
    columns = "SELECT count(*) FROM information_schema.columns WHERE table_name = 'executions'"
    assert cluster().ask(columns, empty) == [(10,)]
    assert ("i", "executions_pending") in objects(empty)


# --- what the objects say of themselves -----------------------------------------------------------


def comments(name: str) -> dict[object, object]:
    return dict(cluster().ask(COMMENTS, name))  # type: ignore[arg-type]


def test_each_object_and_column_has_a_comment_until_the_rollback(empty: str) -> None:
    command(empty)
    described = comments(empty)
    assert [name for name, comment in described.items() if not comment] == []
    assert len(described) > 70
    command(empty, "--rollback", "--yes")
    assert set(comments(empty).values()) == {None}
    assert described.keys() == comments(empty).keys()
    command(empty)
    assert comments(empty) == described


def test_every_column_that_only_a_view_has_is_described(empty: str) -> None:
    command(empty)
    found = cluster().ask(
        "SELECT attname::text FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid"
        " WHERE relname IN ('readable_runs', 'readable_executions')"
        " AND col_description(attrelid, attnum) IS NULL AND attname NOT IN ("
        "SELECT attname FROM pg_attribute WHERE attrelid IN"
        " ('executions'::regclass, 'execution_results'::regclass))",
        empty,
    )
    assert found == []


# --- the statuses ---------------------------------------------------------------------------------


EXECUTION = (
    "INSERT INTO executions (exec_id, job_id, version, initiated_by, target_count, status)"
    " VALUES ('e', 'j', '1', 'o', 1, '{}')"
)


def test_a_new_database_takes_only_the_statuses_that_every_reader_knows(empty: str) -> None:
    command(empty)
    for status in ("pending", "running", "completed", "expired"):
        cluster().ask(EXECUTION.format(status), empty)
        cluster().ask("DELETE FROM executions", empty)
    with pytest.raises(psycopg.errors.CheckViolation, match="executions_status_known"):
        cluster().ask(EXECUTION.format("cancelled"), empty)


def test_an_existing_table_goes_on_taking_every_status(empty: str) -> None:
    command(empty)
    cluster().ask("ALTER TABLE executions DROP CONSTRAINT executions_status_known", empty)
    cluster().ask("DELETE FROM _yoyo_migration", empty)
    cluster().ask(EXECUTION.format("cancelled"), empty)
    assert command(empty).code == 0
    cluster().ask(EXECUTION.replace("'e'", "'f'").format("cancelled"), empty)
