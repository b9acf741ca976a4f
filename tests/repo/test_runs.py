"""A start becomes one in-flight row, once, whatever its texts contain."""

from pathlib import Path
from typing import Any

import pytest

from repo.errors import RowRejected
from repo.execution_results import insert, insert_all
from repo.sqlite.connection import Connection
from tests.repo.rows import Repository, ask, count, row_of, run, runs, write

RESULT = {
    "exit_code": 3,
    "stdout": "out",
    "stderr": "err",
    "finished_at": "2026-05-20T11:00:00+00:00",
    "reaped": 1,
    "request_id": "request-of-the-result",
    "exec_id": "execution-of-the-result",
    "pc_id": "pc-of-the-result",
    "started_at": "2026-05-20T10:00:00+00:00",
    "recorded_at": "2026-05-20T11:00:01+00:00",
    "job_id": "job-of-the-result",
    "version": "9.9.9",
    "expires_at": None,
    "parent_result_id": None,
    "skipped": 1,
}


def test_a_start_becomes_an_in_flight_row_with_every_column_as_bound(
    repository: Repository, path: Path
) -> None:
    assert write(repository, [run("r1")]).inserted == 1
    by_default: dict[str, object] = {
        "exit_code": None,
        "stdout": "",
        "stderr": "",
        "finished_at": None,
    }
    by_default |= {"reaped": 0, "parent_result_id": None, "skipped": 0}
    assert row_of(path, "r1") == {**run("r1")._asdict(), **by_default}


def test_the_columns_are_bound_by_name_whatever_their_order_in_the_table(
    repository: Repository, path: Path
) -> None:
    names = [row[1] for row in ask(path, "PRAGMA table_info(execution_results)")]
    ask(path, "DROP TABLE execution_results")
    columns = ", ".join(f"{name} DEFAULT 'foreign'" for name in reversed(names))
    ask(path, f"CREATE TABLE execution_results ({columns}, UNIQUE (result_id))")
    wanted = run("r1")
    write(repository, [wanted])
    row = row_of(path, "r1")
    assert {name: row[name] for name in wanted._fields} == wanted._asdict()
    assert {row[name] for name in set(names) - set(wanted._fields)} == {"foreign"}


@pytest.mark.parametrize(("column", "value"), [("expires_at", None), ("exec_id", "")])
def test_an_unknown_deadline_is_null_and_an_ad_hoc_run_has_an_empty_exec_id(
    connection: Connection, path: Path, column: str, value: Any
) -> None:
    insert(connection, run("r1")._replace(**{column: value}))
    assert row_of(path, "r1")[column] == value


def test_the_same_event_makes_one_row_within_a_batch_and_between_batches(
    repository: Repository, path: Path
) -> None:
    batch = runs(3)
    assert write(repository, [*batch, batch[0]]).inserted == 3
    before = ask(path, "SELECT * FROM execution_results")
    again = [*(start._replace(expires_at=None, version="2") for start in batch), run("r3")]
    assert write(repository, again).inserted == 1
    assert ask(path, "SELECT * FROM execution_results WHERE result_id <> 'r3'") == before


@pytest.mark.parametrize("rejected", [0, 1])
def test_a_start_after_its_result_leaves_the_finished_row_unchanged(
    repository: Repository, path: Path, rejected: int
) -> None:
    columns, marks = ", ".join(RESULT), ", ".join("?" * len(RESULT))
    ask(
        path,
        f"INSERT INTO execution_results (result_id, {columns}) VALUES ('r1', {marks})",
        [*RESULT.values()],
    )
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    batch = [run("r1"), run("r2"), *(run("r3", pc_id="bad") for _ in range(rejected))]
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (1, rejected)
    assert row_of(path, "r1") == {"result_id": "r1", "site": None, **RESULT}


def test_a_broadcast_makes_a_row_for_each_pc(repository: Repository, path: Path) -> None:
    assert write(repository, runs(300)).inserted == 300
    assert ask(
        path,
        "SELECT count(DISTINCT pc_id), count(DISTINCT request_id), count(DISTINCT exec_id)"
        " FROM execution_results",
    ) == [(300, 1, 1)]


@pytest.mark.parametrize("column", ["result_id", "request_id", "exec_id", "pc_id", "job_id"])
@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "with\x00nul", "\x00", "naïve ☃ \U0001f600 e\u0301 \u202e", "\ufeffbom"),
        *("'; DROP TABLE execution_results; --", "%s ? :name $1", "line\r\nbreak\ttab"),
        *("12", "1e5", "NULL", "☃" * 1_000_000),
    ],
    ids=range(13),
)
def test_text_is_stored_unchanged(
    connection: Connection, path: Path, column: str, text: str
) -> None:
    insert(connection, run("r1")._replace(**{column: text}))
    found = ask(path, f"SELECT {column}, typeof({column}) FROM execution_results")
    assert found == [(text, "text")]


def test_result_ids_that_differ_after_a_nul_or_in_case_or_form_are_different_runs(
    repository: Repository, path: Path
) -> None:
    ids = ["a", "a\x00", "a\x00b", "A", "a ", "é", "e\u0301", ""]
    assert write(repository, [run(result_id) for result_id in ids]).inserted == len(ids)
    stored = ask(path, "SELECT result_id FROM execution_results")
    assert sorted(stored) == sorted((result_id,) for result_id in ids)


def test_text_that_sqlite_cannot_store_is_rejected(connection: Connection, path: Path) -> None:
    with pytest.raises(RowRejected) as caught:
        insert(connection, run("r1", pc_id="\ud800"))
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)
    assert count(path, "execution_results") == 0


def test_an_empty_batch_writes_nothing(
    repository: Repository, connection: Connection, path: Path
) -> None:
    assert insert_all(connection, []) == 0
    written = write(repository, [])
    assert (written.inserted, written.rows_rejected, written.rejected) == (0, 0, [])
    assert count(path, "execution_results") == count(path, "rejected_events") == 0
