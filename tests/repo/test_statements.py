"""Statements for DBAs: none scans a table that grows, and sql/README.md lists all with indexes."""

import re
import sqlite3
from collections.abc import Collection
from pathlib import Path

import pytest

from repo.migrations import known_migrations
from repo.sqlite.connection import Connection
from repo.statements import texts
from tests.repo.migrating import schema_of
from tests.repo.rows import Db, run

STATEMENTS = {str(name): text for name, text in texts("sqlite").items()}
TEXT = (Path(__file__).parents[2] / "sql" / "README.md").read_text("utf-8")
WORD = re.compile(r"`(\w+)`")
GROWING = ("execution_results", "executions", "rejected_events")
SMALL = ("checkpoints",)  # one row a consumer

# The worker runs them only where list_result_columns returns their column.
OF_LATER_COLUMNS = ("mark_skipped_run", "link_parent_run", "list_marks_from")


def plan(connection: sqlite3.Connection, sql: str) -> list[str]:
    """Return the planner's steps; reading a whole index is a SCAN as well."""
    code = re.sub("--.*|'[^']*'", "", sql)
    named = dict.fromkeys(re.findall(r":(\w+)", code))
    values = named or [None] * code.count("?")
    rows = connection.execute(f"EXPLAIN QUERY PLAN {sql}", values).fetchall()
    return [str(row[3]) for row in rows]


def scans(steps: list[str]) -> list[str]:
    return [step for step in steps if re.match(rf"SCAN (TABLE )?({'|'.join(GROWING)})\b", step)]


def all_scans(driver: sqlite3.Connection, *, without: Collection[str] = ()) -> dict[str, list[str]]:
    names = set(STATEMENTS).difference(without)
    found = {name: scans(plan(driver, STATEMENTS[name])) for name in names}
    return {name: steps for name, steps in found.items() if steps}


def test_no_statement_scans_a_table_that_grows(connection: Connection) -> None:
    assert all_scans(connection.driver) == {}


def test_no_statement_scans_a_table_of_the_fleet_in_any_of_its_versions(fleet: Db) -> None:
    fleet.database.migrate()
    with fleet.database.reading() as fleets:
        for name in OF_LATER_COLUMNS:
            with pytest.raises(sqlite3.OperationalError, match="no such column"):
                plan(fleets.driver, STATEMENTS[name])
        assert all_scans(fleets.driver, without=OF_LATER_COLUMNS) == {}
    for column in ("parent_result_id TEXT", "skipped INTEGER NOT NULL DEFAULT 0"):
        fleet.ask(f"ALTER TABLE execution_results ADD COLUMN {column}")
    with fleet.database.reading() as fleets:
        assert all_scans(fleets.driver) == {}


@pytest.mark.parametrize(
    "bad",
    [
        *(f"SELECT * FROM {table}" for table in GROWING),
        "-- a comment\nSELECT count(*) FROM execution_results",
        "SELECT pc_id FROM execution_results ORDER BY pc_id",
        "SELECT 1 FROM execution_results WHERE request_id = ?",
        "UPDATE executions SET status = 'running' WHERE job_id = ?",
        "DELETE FROM rejected_events WHERE subject = ?",
        "DELETE FROM execution_results WHERE finished_at < ?",
        "SELECT 1 FROM (SELECT 1 FROM executions WHERE version = ?)",
    ],
)
def test_the_gate_detects_a_scan(connection: Connection, bad: str) -> None:
    assert len(scans(plan(connection.driver, bad))) == 1


def test_the_gate_covers_every_table_but_the_small_ones(db: Db) -> None:
    tables = {name for name, sql in schema_of(db).items() if sql and sql.startswith("CREATE TABLE")}
    assert tables == {*GROWING, *SMALL}


# --- sql/README.md --------------------------------------------------------------------------------


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def listed(title: str) -> dict[str, str]:
    """Return the names in the first cells of a section's tables, each with the rest of its line."""
    lines = [line[2:].partition("|") for line in section(title).splitlines() if line[:3] == "| `"]
    return {name: rest for first, _, rest in lines for name in WORD.findall(first)}


def used_indexes(driver: sqlite3.Connection) -> dict[str, set[str]]:
    plans = {name: "\n".join(plan(driver, sql)) for name, sql in STATEMENTS.items()}
    return {
        name: set(re.findall(r"(?:USING|COVERING) INDEX (\w+)", steps))
        for name, steps in plans.items()
    }


def test_every_column_of_every_table_is_listed_in_order_with_its_type(db: Db) -> None:
    for table, sql in schema_of(db).items():
        if sql and sql.startswith("CREATE TABLE"):
            columns = TEXT.partition(f"**`{table}`**")[2].split("\n\n")[1]
            assert re.findall(r"^\| `(\w+)` \| (\w+)", columns, re.MULTILINE) == [
                (name, kind) for _, name, kind, *_ in db.ask(f"PRAGMA table_info({table})")
            ]


def test_every_index_is_listed_with_its_columns(db: Db) -> None:
    indexes = {name: db.ask(f"PRAGMA index_info({name})") for name in schema_of(db)}
    assert {name: WORD.findall(rest.split("|")[0]) for name, rest in listed("Indexes").items()} == {
        name: [row[2] for row in columns] for name, columns in indexes.items() if columns
    }


def test_exactly_the_statements_that_exist_are_listed() -> None:
    assert set(listed("Statements")) == set(STATEMENTS) - {"rollback"}


@pytest.mark.parametrize("name", sorted(set(STATEMENTS) - {"rollback"}))
def test_a_statement_is_listed_with_the_indexes_that_the_planner_uses(
    connection: Connection, name: str
) -> None:
    cells = listed("Statements")[name]
    indexes = {word for word in WORD.findall(cells) if "_" in word}
    # The plan of an INSERT does not name the index of its conflicts.
    if inserts := re.findall(r"INSERT (?:OR FAIL )?INTO (\w+)", STATEMENTS[name]):
        query = (
            "SELECT name FROM sqlite_schema WHERE tbl_name = ? AND type = 'index' AND sql IS NULL"
        )
        found = connection.driver.execute(query, inserts).fetchall()
        assert [(index,) for index in indexes] == found
        return
    assert indexes == used_indexes(connection.driver)[name]
    steps = "\n".join(plan(connection.driver, STATEMENTS[name]))
    assert ("primary key" in cells) == ("INTEGER PRIMARY KEY" in steps)


def test_the_planner_uses_the_same_indexes_with_statistics(connection: Connection, db: Db) -> None:
    before = used_indexes(connection.driver)
    columns = [(f"e{n // 500}", f"pc-{n % 50}", f"job-{n % 7}") for n in range(3000)]
    db.write([run(f"{n}", exec_id=e, pc_id=p, job_id=j) for n, (e, p, j) in enumerate(columns)])
    for change in (
        "finished_at = recorded_at, reaped = rowid % 20 = 0 WHERE rowid % 3 <> 0",
        "expires_at = NULL WHERE rowid % 100 = 0",
    ):
        db.ask(f"UPDATE execution_results SET {change}")
    db.add_executions(**{f"e{number}": "running" for number in range(50)})
    db.ask("ANALYZE")
    assert used_indexes(connection.driver) == before


def test_every_migration_is_listed_in_order() -> None:
    assert list(listed("Migrations")) == known_migrations("sqlite")
