"""The gate for DBAs: every statement runs on the migrated schema, and none scans what grows."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from importlib.resources import files
from pathlib import Path

import pytest

import repo.statements
from repo.statements import STATEMENTS, statement
from tests.repo.rows import ask

GROWING = ("execution_results", "executions", "rejected_events")
SMALL = ("checkpoints",)  # one row a consumer


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    """Return the planner's steps; a full walk of an index is a SCAN as well."""
    code = re.sub("--.*|'[^']*'", "", sql)
    named = dict.fromkeys(re.findall(r":(\w+)", code))
    rows = connection.execute(
        f"EXPLAIN QUERY PLAN {sql}", named or [None] * code.count("?")
    ).fetchall()
    return [str(row[3]) for row in rows]


def scans(steps: list[str]) -> list[str]:
    return [step for step in steps if re.match(rf"SCAN (TABLE )?({'|'.join(GROWING)})\b", step)]


@pytest.fixture
def migrated(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_every_statement_runs_on_the_migrated_schema_and_scans_no_table_that_grows(
    migrated: sqlite3.Connection, name: str
) -> None:
    assert scans(plan(migrated, STATEMENTS[name])) == []


@pytest.mark.parametrize(
    "bad",
    [
        *(f"SELECT * FROM {table}" for table in GROWING),
        "-- a comment\nSELECT count(*) FROM execution_results",
        "SELECT pc_id FROM execution_results ORDER BY pc_id",
        "SELECT 1 FROM execution_results WHERE request_id = ?",
        "UPDATE executions SET status = 'running' WHERE job_id = ?",
        "DELETE FROM rejected_events WHERE subject = ?",
        "SELECT 1 FROM (SELECT 1 FROM executions WHERE version = ?)",
    ],
)
def test_the_gate_sees_a_scan(migrated: sqlite3.Connection, bad: str) -> None:
    assert len(scans(plan(migrated, bad))) == 1


def test_the_gate_sees_a_statement_that_does_not_fit_the_schema(
    migrated: sqlite3.Connection,
) -> None:
    with pytest.raises(sqlite3.OperationalError, match="no such column"):
        plan(migrated, "SELECT no_column FROM executions WHERE exec_id = ?")


def test_the_tables_that_grow_are_all_but_the_small_ones(path: Path) -> None:
    tables = ask(
        path,
        "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE '%yoyo%'"
        " AND name <> 'sqlite_sequence' ORDER BY 1",  # one row for each AUTOINCREMENT
    )
    assert tables == [(table,) for table in sorted(GROWING + SMALL)]


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("promote_execution", "sqlite_autoindex_executions_1"),
        ("overdue_runs", "execution_results_in_flight_expires_at"),
        ("runs_in_flight_by_job", "execution_results_in_flight_started_at"),
        ("runs_in_flight", "execution_results_in_flight_started_at"),
        ("runs_without_deadline_by_job", "execution_results_in_flight_expires_at"),
        ("reaped_runs_by_job", "execution_results_reaped_finished_at"),
        ("runs_of_pc", "execution_results_pc_id"),
        ("executions_by_status", "executions_status"),
        ("list_rejected_events_before", "INTEGER PRIMARY KEY"),
        ("find_rejected_event", "INTEGER PRIMARY KEY"),
        ("delete_projected_rejected_event", "sqlite_autoindex_rejected_events_1"),
        ("delete_projected_rejected_event", "sqlite_autoindex_execution_results_1"),
        ("change_rejection_reason", "sqlite_autoindex_rejected_events_1"),
        ("discard_rejected_event", "sqlite_autoindex_rejected_events_1"),
    ],
)
def test_a_statement_uses_the_index_that_its_comment_names(
    migrated: sqlite3.Connection, name: str, index: str
) -> None:
    assert any(index in step for step in plan(migrated, statement(name)))


def test_every_statement_is_one_statement_with_a_purpose() -> None:
    for name, sql in STATEMENTS.items():
        code = re.sub("--.*", "", sql)
        assert code.rstrip().endswith(";"), name
        assert code.count(";") == 1, name
        assert sqlite3.complete_statement(sql), name


def test_every_query_file_tells_how_often_it_runs_and_names_its_statements() -> None:
    found = list(files("sql").joinpath("sqlite", "queries").iterdir())
    for file in found:
        text = file.read_text("utf-8")
        assert file.name.endswith(".sql")
        assert "-- name: " in text, file.name
        assert "How often: " in text, file.name
    assert len(STATEMENTS) == sum(file.read_text("utf-8").count("-- name: ") for file in found)


def test_every_statement_is_used_by_the_package_or_by_a_person() -> None:
    sources = [
        file.read_text("utf-8") for file in Path(repo.statements.__file__).parent.rglob("*.py")
    ]
    asked_for = set(re.findall(r"""statement\("(\w+)"\)""", "\n".join(sources)))
    reports = {name for name, sql in STATEMENTS.items() if sql.startswith("-- Operators: ")}
    assert asked_for | reports == set(STATEMENTS)
    assert asked_for & reports == set()


def test_a_name_that_no_file_has_is_an_error_at_once() -> None:
    with pytest.raises(KeyError, match="no_such_statement"):
        statement("no_such_statement")
