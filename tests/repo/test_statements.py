"""The gate for DBAs: on our schema and on the fleet's, no statement scans a table that grows."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo import open_database
from repo.statements import texts
from tests.repo.rows import ask, url

STATEMENTS = {str(name): text for name, text in texts("sqlite").items()}
GROWING = ("execution_results", "executions", "rejected_events")
SMALL = ("checkpoints",)  # one row a consumer


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    """Return the planner's steps; reading a whole index is a SCAN as well."""
    code = re.sub("--.*|'[^']*'", "", sql)
    named = dict.fromkeys(re.findall(r":(\w+)", code))
    values = named or [None] * code.count("?")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return [str(row[3]) for row in rows]


def scans(steps: list[str]) -> list[str]:
    return [step for step in steps if re.match(rf"SCAN (TABLE )?({'|'.join(GROWING)})\b", step)]


@pytest.fixture
def migrated(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


@pytest.fixture
def fleet_migrated(fleet: Path) -> Iterator[sqlite3.Connection]:
    open_database(url(fleet)).migrate()
    with closing(sqlite3.connect(fleet, isolation_level=None)) as connection:
        yield connection


@pytest.mark.parametrize("schema", ["migrated", "fleet_migrated"])
def test_no_statement_scans_a_table_that_grows(request: pytest.FixtureRequest, schema: str) -> None:
    connection = request.getfixturevalue(schema)
    found = {name: scans(plan(connection, sql)) for name, sql in STATEMENTS.items()}
    assert {name: steps for name, steps in found.items() if steps} == {}


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
def test_the_gate_detects_a_scan(migrated: sqlite3.Connection, bad: str) -> None:
    assert len(scans(plan(migrated, bad))) == 1


def test_the_gate_covers_every_table_but_the_small_ones(path: Path) -> None:
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
        ("count_runs_and_rejected_events", "execution_results_in_flight_expires_at"),
        ("count_runs_and_rejected_events", "INTEGER PRIMARY KEY"),
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
    assert any(index in step for step in plan(migrated, STATEMENTS[name]))
