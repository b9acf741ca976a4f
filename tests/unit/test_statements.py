"""The files of `sql/sqlite/queries/`, as a DBA reads them."""

import re
from pathlib import Path

import pytest

from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.statements import STATEMENTS, statement

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "sql" / "sqlite" / "queries").glob("*.sql"))
NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)

# What other programs write when a run ends, and the counters of an execution.
OF_OTHERS = {
    *("finished_at", "exit_code", "stdout", "stderr", "reaped"),
    *("success_count", "failure_count", "target_count"),
}


def file_of(name: str) -> str:
    (text,) = (text for file in FILES if name in NAME.findall(text := file.read_text("utf-8")))
    return text


def comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if line.startswith("--"))


def code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def columns(name: str) -> list[str]:
    inserted = re.search(r"INSERT INTO \w+\s*\(([^)]*)\)", statement(name))
    assert inserted is not None
    return [column.strip() for column in inserted[1].split(",")]


def used() -> set[str]:
    source = "\n".join(path.read_text("utf-8") for path in (ROOT / "repo").rglob("*.py"))
    return set(re.findall(r'statement\("(\w+)"\)', source))


def test_every_name_is_given_once() -> None:
    names = [name for file in FILES for name in NAME.findall(file.read_text("utf-8"))]
    assert len(names) == len(set(names))
    assert set(names) == set(STATEMENTS)


def test_a_name_that_no_file_has_is_an_error() -> None:
    with pytest.raises(KeyError):
        statement("no_such_statement")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_named_after_its_statement_or_holds_several(file: Path) -> None:
    names = NAME.findall(file.read_text("utf-8"))
    assert names == [file.stem] or len(names) > 1


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_says_how_often_it_runs(name: str) -> None:
    above = NAME.split(file_of(name))[0]
    assert "How often: " in comments(above) + comments(statement(name))


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_on_a_table_says_what_it_is_for_and_which_index_it_uses(name: str) -> None:
    if re.search(r"\b(FROM|INTO|UPDATE)\b", code(statement(name))):
        above = NAME.split(file_of(name))[0]
        purpose = comments(above) + comments(statement(name))
        assert "Index: " in purpose
        assert re.search(r"^-- (?!name:|How often:|Index:)\w", purpose, re.MULTILINE)


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_one_statement(name: str) -> None:
    text = code(statement(name))
    assert text.endswith(";")
    assert text.count(";") == 1


@pytest.mark.parametrize("name", STATEMENTS)
def test_every_statement_is_used_by_the_worker_or_meant_for_operators(name: str) -> None:
    assert (name in used()) != ("-- Operators: " in comments(statement(name)))


@pytest.mark.parametrize("name", STATEMENTS)
def test_a_statement_for_operators_only_reads(name: str) -> None:
    if name not in used():
        assert not re.search(r"\b(INSERT|UPDATE|DELETE|REPLACE|PRAGMA)\b", code(statement(name)))


def test_a_run_is_bound_by_name_in_the_order_of_its_columns() -> None:
    assert columns("insert_run") == list(Run._fields)
    assert code(statement("insert_run")).count("?") == len(Run._fields)


def test_a_rejected_event_is_bound_by_name_in_the_order_of_its_columns() -> None:
    assert columns("insert_rejected_event") == list(RejectedEvent._fields)
    assert code(statement("insert_rejected_event")).count("?") == len(RejectedEvent._fields)


def test_a_start_fills_in_the_columns_of_the_contract_and_no_other() -> None:
    assert set(columns("insert_run")) == {
        *("result_id", "request_id", "exec_id", "pc_id", "started_at"),
        *("version", "job_id", "recorded_at", "expires_at"),
    }


WRITING = sorted(name for name in used() if not code(statement(name)).startswith("SELECT"))


@pytest.mark.parametrize("name", WRITING)
def test_what_writes_never_names_a_column_that_belongs_to_others(name: str) -> None:
    assert not OF_OTHERS & set(re.findall(r"\w+", code(statement(name))))


# What a person who puts a rejected event right takes away: one message's row of this table.
DELETING = ("delete_projected_rejected_event", "discard_rejected_event")


@pytest.mark.parametrize("name", sorted(used() - set(DELETING)))
def test_the_worker_never_replaces_ignores_or_deletes_a_row_of_others(name: str) -> None:
    text = code(statement(name))
    if re.match("INSERT INTO checkpoints", text):  # which is the worker's own
        text = text.replace("DO UPDATE", "")
    assert not re.search(r"\b(REPLACE|IGNORE|DELETE|DROP|DO UPDATE)\b", text)


@pytest.mark.parametrize("name", DELETING)
def test_only_the_row_of_one_rejected_message_is_ever_deleted(name: str) -> None:
    text = " ".join(code(statement(name)).split())
    assert text.startswith(
        "DELETE FROM rejected_events WHERE stream = ? AND stream_sequence = ? AND recorded_at = ?"
    )
    assert " OR " not in text


def test_many_runs_are_inserted_as_one_is() -> None:
    row = f"({', '.join('?' * len(Run._fields))})"
    one, many = (
        " ".join(code(statement(f"insert_{name}")).split()) for name in ("run", "100_runs")
    )
    assert many == one.replace("INSERT INTO", "INSERT OR FAIL INTO").replace(
        row, ", ".join([row] * 100)
    )


def test_a_promotion_touches_pending_executions_only() -> None:
    text = " ".join(code(statement("promote_execution")).split())
    assert (
        text == "UPDATE executions SET status = 'running' WHERE exec_id = ? AND status = 'pending';"
    )
