"""sql/README.md lists everything that a DBA finds in the database, and the indexes in use."""

import re
import sqlite3
from pathlib import Path

import pytest

from repo.sqlite.schema import known_migrations
from repo.statements import texts
from tests.repo.migrating import schema_of
from tests.repo.rows import EXPIRES_AT, Db, run
from tests.repo.test_statements import plan

STATEMENTS = {str(name): text for name, text in texts("sqlite").items()}
TEXT = (Path(__file__).parents[2] / "sql" / "README.md").read_text("utf-8")
WORD = re.compile(r"`(\w+)`")


def section(title: str) -> str:
    return TEXT.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def listed(title: str) -> dict[str, str]:
    """Return the names in the first cells of a section's tables, each with the rest of its line."""
    lines = [line[2:].partition("|") for line in section(title).splitlines() if line[:3] == "| `"]
    return {name: rest for first, _, rest in lines for name in WORD.findall(first)}


def used_indexes(connection: sqlite3.Connection) -> dict[str, set[str]]:
    plans = {name: "\n".join(plan(connection, sql)) for name, sql in STATEMENTS.items()}
    return {name: set(re.findall(r"\bINDEX (\w+)", steps)) for name, steps in plans.items()}


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
    driver: sqlite3.Connection, name: str
) -> None:
    cells = listed("Statements")[name]
    indexes = {word for word in WORD.findall(cells) if "_" in word}
    # The plan of an INSERT does not name the index of its conflicts.
    if inserts := re.findall(r"INSERT (?:OR FAIL )?INTO (\w+)", STATEMENTS[name]):
        query = (
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NULL"
        )
        assert [(index,) for index in indexes] == driver.execute(query, inserts).fetchall()
        return
    assert indexes == used_indexes(driver)[name]
    steps = "\n".join(plan(driver, STATEMENTS[name]))
    assert ("primary key" in cells) == ("INTEGER PRIMARY KEY" in steps)


def test_the_planner_uses_the_same_indexes_with_statistics(
    driver: sqlite3.Connection, db: Db
) -> None:
    before = used_indexes(driver)
    driver.execute("BEGIN")
    for number in range(3000):
        values = run(
            str(number),
            exec_id=f"e{number // 500}",
            pc_id=f"pc-{number % 50}",
            job_id=f"job-{number % 7}",
            expires_at=None if number % 100 == 0 else EXPIRES_AT,
        )
        driver.execute(STATEMENTS["insert_run"], values)
    driver.execute(
        "UPDATE execution_results SET finished_at = recorded_at, reaped = rowid % 20 = 0"
        " WHERE rowid % 3 <> 0"
    )
    driver.execute("COMMIT")
    db.add_executions(**{f"e{number}": "running" for number in range(50)})
    driver.execute("ANALYZE")
    assert used_indexes(driver) == before


def test_every_migration_is_listed_in_order() -> None:
    assert list(listed("Migrations")) == known_migrations()
