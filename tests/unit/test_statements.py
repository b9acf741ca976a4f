"""The files of `sql/<engine>/queries/`, as a DBA reads them."""

import re
from pathlib import Path

import pytest

from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.results import Result
from repo.statements import Description, describe, statement, text, texts

ROOT = Path(__file__).parents[2]
ALL = {str(one.name): one for one in describe("sqlite")}
FILES = sorted((ROOT / "sql" / "sqlite" / "queries").glob("*.sql"))
SOURCE = "\n".join(path.read_text("utf-8") for path in (ROOT / "repo").rglob("*.py"))
USED = set(re.findall(r'statement\("(\w+)"[,)]', SOURCE))
POSTGRESQL = {str(one.name): one for one in describe("postgresql")}
EACH = pytest.mark.parametrize(
    "one",
    [*ALL.values(), *POSTGRESQL.values()],
    ids=[
        f"{engine}-{name}"
        for engine, all in (("sqlite", ALL), ("postgresql", POSTGRESQL))
        for name in all
    ],
)

START = ("result_id", "request_id", "exec_id", "pc_id", "started_at", "version", "job_id")
END = ("exit_code", "stdout", "stderr", "finished_at")
COUNTS = ("success_count", "failure_count")
IS_TIME = (
    "{0} = strftime('%Y-%m-%dT%H:%M:%S', substr({0}, 1, 19), '+0 days') || substr({0}, 20)"
    " AND {0} LIKE '%+00:00' AND {0} NOT LIKE '% %' AND julianday({0}) IS NOT NULL"
    " AND length({0}) IN (25, 29, 32, 35)"
)

# Every statement that changes the tables which other programs share: which columns it writes, if it
# deletes nothing, and how it ends, which says what rows it may touch.
SHARED = {
    # A start leaves a row that exists unchanged, and writes nothing of what ends a run.
    "insert_run": ({*START, "recorded_at", "expires_at"}, "ON CONFLICT (result_id) DO NOTHING;"),
    "insert_runs": (
        {*START, "recorded_at", "expires_at"},
        "ON CONFLICT (result_id) DO NOTHING;",
    ),
    # A copy leaves a row that exists unchanged as well.
    "copy_run": (
        {*START, *END, "recorded_at", "expires_at", "reaped"},
        "ON CONFLICT (result_id) DO NOTHING;",
    ),
    "copy_execution": (
        {"exec_id", "job_id", "version", "initiated_by", "initiated_at", "target_count"}
        | {*COUNTS, "status"},
        "ON CONFLICT (exec_id) DO NOTHING;",
    ),
    # An operator changes the deadline of a run in flight, and only the one that was shown.
    "change_deadline": (
        {"expires_at"},
        "WHERE result_id = ? AND finished_at IS NULL AND expires_at IS ?;",
    ),
    # A result and the reaper only touch a run in flight; a result one that was given up as well.
    "insert_ended_run": (
        {*START, *END, "recorded_at"} - {"version"},
        "ON CONFLICT (result_id) DO NOTHING;",
    ),
    "insert_ended_runs": (
        {*START, *END, "recorded_at"} - {"version"},
        "ON CONFLICT (result_id) DO NOTHING;",
    ),
    "end_runs": (
        {*END, "request_id", "reaped"},
        "WHERE execution_results.result_id = ended.result_id"
        " AND (execution_results.finished_at IS NULL OR execution_results.reaped = 1);",
    ),
    "end_run": (
        {*END, "request_id", "reaped"},
        "WHERE result_id = ? AND (finished_at IS NULL OR reaped = 1);",
    ),
    "name_job": ({"job_id"}, "SET job_id = ? WHERE result_id = ?;"),
    "mark_skipped_run": ({"skipped"}, "SET skipped = 1 WHERE result_id = ?;"),
    "link_parent_run": ({"parent_result_id"}, "SET parent_result_id = ? WHERE result_id = ?;"),
    "reap_run": (
        {"finished_at", "exit_code", "reaped", "stderr"},
        "WHERE result_id = ? AND finished_at IS NULL;",
    ),
    # Nothing is counted while an execution is pending or expired, so the first count takes all.
    "promote_execution": ({*COUNTS, "status"}, "WHERE exec_id = ? AND status = 'pending';"),
    "count_ended_runs": (
        {*COUNTS, "status"},
        "WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');",
    ),
    "count_all_ended_runs": (
        {*COUNTS, "status"},
        "WHERE exec_id = :exec_id AND status IN ('pending', 'expired');",
    ),
    "move_reaped_runs": (
        {*COUNTS},
        "WHERE exec_id = :exec_id AND status NOT IN ('pending', 'expired');",
    ),
    "expire_execution": (
        {"status"},
        "SET status = 'expired' WHERE exec_id = ? AND status = 'pending' AND NOT EXISTS ("
        " SELECT 1 FROM execution_results WHERE execution_results.exec_id = executions.exec_id );",
    ),
    # Retention deletes what is old by a time that can be compared, and of runs what has ended.
    "delete_old_executions": (
        None,
        "FROM executions WHERE exec_id IN ( SELECT exec_id FROM executions"
        f" WHERE initiated_at < ? AND {IS_TIME.format('initiated_at')} LIMIT ? );",
    ),
    "delete_old_runs": (
        None,
        "FROM execution_results WHERE result_id IN ( SELECT result_id FROM execution_results"
        f" WHERE recorded_at < ? AND finished_at IS NOT NULL"
        f" AND {IS_TIME.format('recorded_at')} LIMIT ? );",
    ),
}
ON_SHARED = re.compile(
    r"^(INSERT (OR FAIL )?INTO|UPDATE( OR FAIL)?|DELETE FROM) (executions|execution_results)\b"
)

# These delete the row of one message, at an operator's request.
DELETING = ("delete_projected_rejected_event", "discard_rejected_event")


def code(name: str) -> str:
    return " ".join(ALL[name].sql.split())


def columns(name: str) -> list[str]:
    inserted = re.search(r"INSERT INTO \w+ \(([^)]*)\)", code(name))
    assert inserted is not None
    return inserted[1].split(", ")


def written_columns(text: str) -> set[str] | None:
    """Return the columns that a statement inserts or sets; None if it deletes rows."""
    if text.startswith("DELETE"):
        return None
    at_once = re.search(r"(?:INTO \w+|SET) \(([^)]*)\)", text)
    if at_once:
        return set(at_once[1].split(", "))
    assignments = text.partition(" SET ")[2].partition(" WHERE ")[0]
    return set(re.findall(r"(\w+) = ", assignments))


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
def test_more_than_five_values_have_names_or_their_order_is_explained(one: Description) -> None:
    if one.sql.count("?") > 5:
        assert "Values: " in one.purpose


@EACH
def test_every_statement_is_used_by_the_program_or_read_by_operators(one: Description) -> None:
    assert one.name in USED or one.purpose.startswith("Operators: ")
    if one.name not in USED:
        assert not re.search(r"\b(INSERT|UPDATE|DELETE|REPLACE|PRAGMA)\b", one.sql)


@pytest.mark.parametrize("name", sorted(USED & set(ALL)))
def test_a_statement_writes_only_the_columns_and_rows_that_are_listed_here(name: str) -> None:
    text = code(name)
    assert (ON_SHARED.match(text) is not None) == (name in SHARED)
    if name in SHARED:
        columns, end = SHARED[name]
        assert written_columns(text) == columns
        assert text.endswith(end)
        assert not re.search(r"\b(REPLACE|OR IGNORE|DO UPDATE)\b", text)
        return
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
    assert columns("insert_ended_run") == list(Result._fields[:11])
    assert code("insert_ended_run").count("?") == 11
    assigned = re.findall(r"(\w+) = (?:\?|coalesce\(\?)", code("end_run"))
    values = dict(zip(Result._fields, Result._fields, strict=True))
    assert assigned == list(Result(**values).as_end())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("one", "many", "values"),
    [("insert_run", "insert_runs", 9), ("insert_ended_run", "insert_ended_runs", 11)],
)
def test_many_runs_are_inserted_as_one_is(one: str, many: str, values: int) -> None:
    single = code(one).replace("INSERT INTO", "INSERT OR FAIL INTO")
    assert code(many).replace(" -- for each run", "") == single
    row = f"({', '.join('?' * values)})"
    three = " ".join(text("sqlite", statement(many), 3).split())
    assert three == " ".join(text("sqlite", statement(many), 1).split()).replace(
        f"{row} -- for each run", ", ".join([row] * 3)
    )


def test_a_statement_without_a_marked_line_is_for_one_row() -> None:
    with pytest.raises(ValueError, match="not enough values"):
        text("sqlite", statement("insert_run"), 2)


def test_many_runs_are_ended_as_one_is() -> None:
    many, names = code("end_runs"), Result._fields
    values = Result(**dict(zip(names, names, strict=True))).as_end()  # type: ignore[arg-type]
    given = re.findall(r"column\d AS (\w+)", many)
    assert given == list(values)
    assert f"({', '.join('?' * len(values))})" in many
    assert many.count("?") == len(values)
    head, _, rest = many.partition(" FROM (")
    single = (
        re.sub(r"ended\.\w+", "?", head).replace("OR FAIL ", "").replace("execution_results.", "")
    )
    assert single == code("end_run").partition(" WHERE ")[0]
    where = rest.rpartition(" WHERE ")[2].replace("ended.result_id", "?")
    assert where.replace("execution_results.", "") == code("end_run").partition(" WHERE ")[2]


def test_a_start_uses_no_statement_that_ends_a_run_or_counts_it() -> None:
    source = (ROOT / "repo" / "execution_results.py").read_text("utf-8")
    used = set(re.findall(r'statement\("(\w+)"', source))
    assert used == {"insert_run", "insert_runs", "find_missing_runs", "delete_old_runs"}


# --- the engines ----------------------------------------------------------------------------------

# What each engine alone needs; a name in both has the same placeholders and columns in both.
OF_SQLITE = {
    *("begin_write", "commit", "rollback", "open_savepoint", "undo_savepoint", "release_savepoint"),
    *("set_synchronous", "set_cache_size", "set_checkpoint_interval", "set_journal_size_limit"),
    *("get_journal_mode", "set_write_ahead_log", "quick_check", "copy_into"),
}
OF_POSTGRESQL = {
    *("begin_write", "commit", "rollback", "open_savepoint", "undo_savepoint", "release_savepoint"),
    *(
        "prepare_writing",
        "check_constraints",
        "get_place",
        "get_session",
        "can_write",
        "describe_server",
    ),
    *("list_invalid_indexes", "list_missing_rights", "get_database_size", "list_lock_holders"),
    *("take_migration_lock", "set_migration_lock_timeout", "try_hold_counts"),
    *("lock_free_executions", "find_executions"),
    *("force_generic_plan", "forget_explained", "take_upkeep_lock", "hold_counts"),
}
SHARED_NAMES = sorted(set(ALL) - OF_SQLITE)


def test_each_engine_has_the_statements_of_the_other() -> None:
    assert set(ALL) - OF_SQLITE == set(POSTGRESQL) - OF_POSTGRESQL


@pytest.mark.parametrize("name", SHARED_NAMES)
def test_a_statement_binds_the_same_values_on_each_engine(name: str) -> None:
    first, second = (placeholders(of[name].sql) for of in (ALL, POSTGRESQL))
    assert first == second


@pytest.mark.parametrize("name", sorted(set(SHARED_NAMES) & set(SHARED)))
def test_a_statement_writes_the_same_columns_on_each_engine(name: str) -> None:
    text = " ".join(POSTGRESQL[name].sql.split())
    assert written_columns(text) == SHARED[name][0]
    assert not re.search(r"\b(TRUNCATE|DROP|DO UPDATE)\b", text)


def placeholders(sql: str) -> list[str]:
    code = re.sub(r"--.*|'[^']*'|::", "", sql)
    found = re.findall(r"\?|:\w+", code)
    return sorted(set(found)) if ":" in "".join(found) else found
