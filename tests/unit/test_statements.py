"""The files of `sql/sqlite/queries/`, as a DBA reads them."""

import re
from pathlib import Path

import pytest

from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.statements import Description, describe, statement, texts

ROOT = Path(__file__).parents[2]
ALL = {str(one.name): one for one in describe("sqlite")}
FILES = sorted((ROOT / "sql" / "sqlite" / "queries").glob("*.sql"))
SOURCE = "\n".join(path.read_text("utf-8") for path in (ROOT / "repo").rglob("*.py"))
USED = set(re.findall(r'statement\("(\w+)"[,)]', SOURCE))
EACH = pytest.mark.parametrize("one", ALL.values(), ids=lambda one: one.name)

# What other programs write when a run ends, and the counters of an execution.
OF_OTHERS = {
    *("finished_at", "exit_code", "stdout", "stderr", "reaped", "skipped", "parent_result_id"),
    *("success_count", "failure_count", "target_count"),
}

# These delete the row of one message, at an operator's request.
DELETING = ("delete_projected_rejected_event", "discard_rejected_event")


def code(name: str) -> str:
    return " ".join(ALL[name].sql.split())


def columns(name: str) -> list[str]:
    inserted = re.search(r"INSERT INTO \w+ \(([^)]*)\)", code(name))
    assert inserted is not None
    return inserted[1].split(", ")


def test_every_name_is_used_once_and_an_unknown_one_is_an_error_at_once() -> None:
    names = re.findall(r"^-- name: (\w+)$", "".join(map(Path.read_text, FILES)), re.MULTILINE)
    assert len(names) == len(set(names))
    assert set(names) == set(ALL) == set(texts("sqlite"))
    with pytest.raises(KeyError, match="no_such_statement"):
        statement("no_such_statement")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_a_file_is_named_after_its_statement_or_holds_several(file: Path) -> None:
    names = [one.name for one in ALL.values() if one.file == file.name]
    assert names == [file.stem] or len(names) > 1


@EACH
def test_each_statement_is_one_statement_with_purpose_frequency_and_index(one: Description) -> None:
    assert one.purpose
    assert one.frequency
    assert one.sql.endswith(";")
    assert one.sql.count(";") == 1
    if re.search(r"\b(FROM|INTO|UPDATE)\b", one.sql):
        assert one.index_used


@EACH
def test_every_statement_is_used_by_the_program_or_read_by_operators(one: Description) -> None:
    assert (one.name in USED) != one.purpose.startswith("Operators: ")
    if one.name not in USED:
        assert not re.search(r"\b(INSERT|UPDATE|DELETE|REPLACE|PRAGMA)\b", one.sql)


@pytest.mark.parametrize("name", sorted(USED))
def test_no_statement_writes_a_column_or_removes_a_row_of_another_program(name: str) -> None:
    text = code(name)
    if name == "promote_execution":  # nothing is counted while an execution is pending
        counts = "success_count, failure_count, status"
        assert text.startswith(f"UPDATE executions SET ({counts}) = ( SELECT ")
    elif not text.startswith("SELECT"):
        assert not OF_OTHERS & set(re.findall(r"\w+", text))
    if name in DELETING:
        message = "stream = ? AND stream_sequence = ? AND recorded_at = ?"
        assert text.startswith(f"DELETE FROM rejected_events WHERE {message}")
        assert " OR " not in text
        return
    if text.startswith("INSERT INTO checkpoints"):  # the worker's own table
        text = text.replace("DO UPDATE", "")
    assert not re.search(r"\b(REPLACE|IGNORE|DELETE|DROP|DO UPDATE)\b", text)


def test_rows_are_bound_by_name_in_the_order_of_their_columns() -> None:
    for name, fields in (
        ("insert_run", Run._fields),
        ("insert_rejected_event", RejectedEvent._fields),
    ):
        assert columns(name) == list(fields)
        assert code(name).count("?") == len(fields)
    assert set(Run._fields) == {
        *("result_id", "request_id", "exec_id", "pc_id", "started_at"),
        *("version", "job_id", "recorded_at", "expires_at"),
    }


def test_a_hundred_runs_are_inserted_as_one_is() -> None:
    row = f"({', '.join('?' * len(Run._fields))})"
    one = code("insert_run").replace("INSERT INTO", "INSERT OR FAIL INTO")
    many = code("insert_100_runs").replace("?,?", "?, ?").replace("?,?", "?, ?")
    assert many.replace("),(", "), (") == one.replace(row, ", ".join([row] * 100))


def test_a_promotion_changes_pending_executions_only() -> None:
    assert code("promote_execution").endswith("WHERE exec_id = ? AND status = 'pending';")
