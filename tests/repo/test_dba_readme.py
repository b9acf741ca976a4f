"""sql/README.md names all that a DBA finds in the database, and the indexes that are used."""

import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo.sqlite.schema import known_migrations
from repo.statements import STATEMENTS
from tests.repo.rows import EXPIRES_AT, add_executions, ask, run
from tests.repo.test_statements import plan

TEXT = (Path(__file__).parents[2] / "sql" / "README.md").read_text("utf-8")
ROWS = [line for line in TEXT.splitlines() if line.startswith("| `")]
INDEX = re.compile(r"\b(?:COVERING )?INDEX (\w+)")


def row_of(name: str) -> str:
    """Return the one row of a table whose first cell names something."""
    (found,) = (row for row in ROWS if f"`{name}`" in row.split("|")[1])
    return found


@pytest.fixture
def migrated(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def tables(path: Path) -> list[str]:
    found = ask(path, "SELECT name FROM sqlite_schema WHERE type = 'table'")
    return [table for (table,) in found if "yoyo" not in table and table != "sqlite_sequence"]


def test_every_column_of_every_table_is_told_in_its_order_with_its_type(path: Path) -> None:
    for table in tables(path):
        _, _, section = TEXT.partition(f"**`{table}`**")
        lines = section.split("\n\n")[1].splitlines()[2:]
        told = [re.match(r"\| `(\w+)` \| (\w+)", line) for line in lines]
        assert [match.groups() for match in told if match] == [
            (name, kind) for _, name, kind, *_ in ask(path, f"PRAGMA table_info({table})")
        ]


def test_every_index_is_told_with_its_columns(path: Path) -> None:
    indexes = ask(path, "SELECT name, tbl_name FROM sqlite_schema WHERE type = 'index'")
    told = [name for name, table in indexes if "yoyo" not in table]
    for name in told:
        columns = [row[2] for row in ask(path, f"PRAGMA index_info({name})")]
        assert re.findall(r"`(\w+)`", row_of(name).split("|")[2]) == columns
    _, _, section = TEXT.partition("## Indexes")
    assert re.findall(r"^\| `(\w+)`", section.partition("## Statements")[0], re.MULTILINE) == (
        sorted(told, key=section.index)
    )


@pytest.mark.parametrize("name", sorted(STATEMENTS))
def test_every_statement_is_told_with_the_indexes_that_the_planner_uses(
    migrated: sqlite3.Connection, name: str
) -> None:
    if name == "rollback":
        assert "`rollback`" in row_of("commit")
        return
    row = row_of(name)
    told = set(re.findall(r"`(\w+)`", row.partition(row.split("|")[1])[2]))
    told = {word for word in told if "_" in word}
    steps = "\n".join(plan(migrated, STATEMENTS[name]))
    if inserts := re.findall(
        r"INSERT (?:OR FAIL )?INTO (\w+)", STATEMENTS[name]
    ):  # whose plan tells nothing of its index
        ((index,),) = migrated.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'index' AND tbl_name = ? AND sql IS NULL",
            inserts,
        ).fetchall()
        assert told == {index}
    else:
        assert told - {"rollback"} == set(INDEX.findall(steps))
        assert ("primary key" in row) == ("INTEGER PRIMARY KEY" in steps)


def test_the_planner_uses_the_same_indexes_when_it_has_statistics(
    migrated: sqlite3.Connection, path: Path
) -> None:
    def used() -> dict[str, set[str]]:
        plans = {name: "\n".join(plan(migrated, sql)) for name, sql in STATEMENTS.items()}
        return {name: set(INDEX.findall(steps)) for name, steps in plans.items()}

    before = used()
    with closing(sqlite3.connect(path)) as other, other:
        for number in range(3000):
            values = run(
                str(number),
                exec_id=f"e{number // 500}",
                pc_id=f"pc-{number % 50}",
                job_id=f"job-{number % 7}",
                expires_at=None if number % 100 == 0 else EXPIRES_AT,
            )
            other.execute(STATEMENTS["insert_run"], values)
        other.execute(
            "UPDATE execution_results SET finished_at = recorded_at, reaped = rowid % 20 = 0"
            " WHERE rowid % 3 <> 0"
        )
    add_executions(path, **{f"e{number}": "running" for number in range(50)})
    migrated.execute("ANALYZE")
    assert used() == before


def test_no_statement_is_told_that_is_not_there() -> None:
    _, _, section = TEXT.partition("## Statements")
    section, _, _ = section.partition("## Locking")
    told = {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert told == set(STATEMENTS) - {"rollback"}


def test_every_migration_is_told_in_order() -> None:
    _, _, section = TEXT.partition("## Migrations")
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == known_migrations()
