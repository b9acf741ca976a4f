"""The gate for DBAs: on our schema and on the fleet's, no statement scans a table that grows."""

import re
import sqlite3

import pytest

from repo.statements import texts
from tests.repo.migrating import schema_of
from tests.repo.rows import Db

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


def test_no_statement_scans_a_table_that_grows(driver: sqlite3.Connection, fleet: Db) -> None:
    fleet.database.migrate()
    with fleet.database.reading() as fleet_connection:
        for connection in (driver, fleet_connection.driver):
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
def test_the_gate_detects_a_scan(driver: sqlite3.Connection, bad: str) -> None:
    assert len(scans(plan(driver, bad))) == 1


def test_the_gate_covers_every_table_but_the_small_ones(db: Db) -> None:
    tables = {name for name, sql in schema_of(db).items() if sql and sql.startswith("CREATE TABLE")}
    assert tables == {*GROWING, *SMALL}
