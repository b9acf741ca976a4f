"""sql/README.md lists everything that a DBA finds in the database, and the indexes in use."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo.sqlite.schema import known_migrations
from repo.statements import texts
from tests.repo.rows import EXPIRES_AT, add_executions, ask, run
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


@pytest.fixture
def migrated(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def test_every_column_of_every_table_is_listed_in_order_with_its_type(path: Path) -> None:
    tables = ask(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    for (table,) in tables:
        if "yoyo" not in table and table != "sqlite_sequence":
            columns = TEXT.partition(f"**`{table}`**")[2].split("\n\n")[1]
            assert re.findall(r"^\| `(\w+)` \| (\w+)", columns, re.MULTILINE) == [
                (name, kind) for _, name, kind, *_ in ask(path, f"PRAGMA table_info({table})")
            ]


def test_every_index_is_listed_with_its_columns(path: Path) -> None:
    indexes = ask(path, "SELECT name FROM sqlite_schema WHERE type = 'index'")
    assert {name: WORD.findall(rest.split("|")[0]) for name, rest in listed("Indexes").items()} == {
        name: [row[2] for row in ask(path, f"PRAGMA index_info({name})")]
        for (name,) in indexes
        if "yoyo" not in name
    }


def test_exactly_the_statements_that_exist_are_listed() -> None:
    assert set(listed("Statements")) == set(STATEMENTS) - {"rollback"}


@pytest.mark.parametrize("name", sorted(set(STATEMENTS) - {"rollback"}))
def test_a_statement_is_listed_with_the_indexes_that_the_planner_uses(
    migrated: sqlite3.Connection, name: str
) -> None:
    cells = listed("Statements")[name]
    indexes = {word for word in WORD.findall(cells) if "_" in word}
    # The plan of an INSERT does not name the index of its conflicts.
    if inserts := re.findall(r"INSERT (?:OR FAIL )?INTO (\w+)", STATEMENTS[name]):
        query = (
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NULL"
        )
        assert [(index,) for index in indexes] == migrated.execute(query, inserts).fetchall()
        return
    assert indexes == used_indexes(migrated)[name]
    steps = "\n".join(plan(migrated, STATEMENTS[name]))
    assert ("primary key" in cells) == ("INTEGER PRIMARY KEY" in steps)


def test_the_planner_uses_the_same_indexes_with_statistics(
    migrated: sqlite3.Connection, path: Path
) -> None:
    before = used_indexes(migrated)
    migrated.execute("BEGIN")
    for number in range(3000):
        values = run(
            str(number),
            exec_id=f"e{number // 500}",
            pc_id=f"pc-{number % 50}",
            job_id=f"job-{number % 7}",
            expires_at=None if number % 100 == 0 else EXPIRES_AT,
        )
        migrated.execute(STATEMENTS["insert_run"], values)
    migrated.execute(
        "UPDATE execution_results SET finished_at = recorded_at, reaped = rowid % 20 = 0"
        " WHERE rowid % 3 <> 0"
    )
    migrated.execute("COMMIT")
    add_executions(path, **{f"e{number}": "running" for number in range(50)})
    migrated.execute("ANALYZE")
    assert used_indexes(migrated) == before


def test_every_migration_is_listed_in_order() -> None:
    assert list(listed("Migrations")) == known_migrations()
