"""A start becomes one in-flight row, once, whatever its texts hold."""

from pathlib import Path

import pytest

from repo.errors import RowRejected
from repo.execution_results import insert, insert_all
from repo.repository import Repository
from repo.sqlite.database import Connection
from tests.repo.rows import ask, count, refusal_of, row_of, run, runs

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
}


def finish(path: Path, result_id: str) -> None:
    columns = ", ".join(RESULT)
    marks = ", ".join("?" * len(RESULT))
    ask(
        path,
        f"INSERT INTO execution_results (result_id, {columns}) VALUES (?, {marks})",
        (result_id, *RESULT.values()),
    )


def test_a_start_becomes_an_in_flight_row_with_every_column_as_bound(
    repository: Repository, path: Path
) -> None:
    batch = [run("r1")]
    assert repository.write(batch, [], refusal_of(batch)).inserted == 1
    assert row_of(path, "r1") == {
        "result_id": "r1",
        "request_id": "request-1",
        "exec_id": "execution-1",
        "pc_id": "pc-of-r1",
        "exit_code": None,
        "stdout": "",
        "stderr": "",
        "started_at": "2026-05-20T12:00:00.123456789+00:00",
        "finished_at": None,
        "recorded_at": "2026-05-20T12:00:01.500+00:00",
        "job_id": "job-1",
        "version": "1.0.0",
        "reaped": 0,
        "expires_at": "2026-05-20T12:02:21.500+00:00",
    }


def test_the_columns_are_bound_by_name_whatever_their_order_in_the_table(
    repository: Repository, path: Path
) -> None:
    names = [row[1] for row in ask(path, "PRAGMA table_info(execution_results)")]
    ask(path, "DROP TABLE execution_results")
    columns = ", ".join(f"{name} DEFAULT 'foreign'" for name in reversed(names))
    ask(path, f"CREATE TABLE execution_results ({columns}, UNIQUE (result_id))")
    wanted = run("r1")
    repository.write([wanted], [], refusal_of([wanted]))
    row = row_of(path, "r1")
    assert {name: row[name] for name in wanted._fields} == wanted._asdict()
    others = set(names) - set(wanted._fields)
    assert others == {"exit_code", "stdout", "stderr", "finished_at", "reaped"}
    assert {row[name] for name in others} == {"foreign"}


def test_a_deadline_that_is_not_known_is_stored_as_null(connection: Connection, path: Path) -> None:
    insert(connection, run("r1", expires_at=None))
    assert row_of(path, "r1")["expires_at"] is None


def test_an_ad_hoc_run_has_an_empty_exec_id(connection: Connection, path: Path) -> None:
    insert(connection, run("r1", exec_id=""))
    assert row_of(path, "r1")["exec_id"] == ""


def test_the_same_event_twice_in_a_batch_makes_one_row(repository: Repository, path: Path) -> None:
    batch = [run("r1"), run("r2"), run("r1")]
    assert repository.write(batch, [], refusal_of(batch)).inserted == 2
    assert count(path, "execution_results") == 2


def test_the_same_event_in_two_batches_makes_one_row(repository: Repository, path: Path) -> None:
    batch = runs(3)
    assert repository.write(batch, [], refusal_of(batch)).inserted == 3
    before = ask(path, "SELECT * FROM execution_results")
    again = [*(start._replace(expires_at=None, version="2") for start in batch), run("r3")]
    assert repository.write(again, [], refusal_of(again)).inserted == 1
    assert ask(path, "SELECT * FROM execution_results WHERE result_id <> 'r3'") == before


def test_a_start_after_its_result_leaves_the_finished_row_untouched(
    repository: Repository, path: Path
) -> None:
    finish(path, "r1")
    batch = [run("r1"), run("r2")]
    assert repository.write(batch, [], refusal_of(batch)).inserted == 1
    assert row_of(path, "r1") == {"result_id": "r1", **RESULT}


def test_a_start_after_its_result_leaves_the_row_untouched_also_beside_a_refused_row(
    repository: Repository, path: Path
) -> None:
    finish(path, "r1")
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    batch = [run("r1"), run("r2"), run("r3", pc_id="bad")]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (1, 1)
    assert row_of(path, "r1") == {"result_id": "r1", "site": None, **RESULT}


def test_a_broadcast_makes_a_row_for_each_pc(repository: Repository, path: Path) -> None:
    batch = [run(f"r{index}", pc_id=f"pc-{index}") for index in range(300)]
    assert repository.write(batch, [], refusal_of(batch)).inserted == 300
    assert ask(
        path,
        "SELECT count(DISTINCT pc_id), count(DISTINCT request_id), count(DISTINCT exec_id)"
        " FROM execution_results",
    ) == [(300, 1, 1)]


@pytest.mark.parametrize("column", ["result_id", "request_id", "exec_id", "pc_id", "job_id"])
@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "with\x00nul",
        "\x00",
        "naïve ☃ \U0001f600 e\u0301 \u202e",
        "\ufeffbom",
        "'; DROP TABLE execution_results; --",
        "%s ? :name $1",
        "line\r\nbreak\ttab",
        "12",
        "1e5",
        "NULL",
    ],
)
def test_text_comes_back_as_it_went_in(
    connection: Connection, path: Path, column: str, text: str
) -> None:
    insert(connection, run("r1")._replace(**{column: text}))
    assert ask(path, f"SELECT {column}, typeof({column}) FROM execution_results") == [
        (text, "text")
    ]


def test_a_very_long_text_comes_back_as_it_went_in(connection: Connection, path: Path) -> None:
    text = "☃" * 1_000_000
    insert(connection, run(text, version=text))
    assert ask(path, "SELECT result_id = version, version FROM execution_results") == [(1, text)]


def test_result_ids_that_differ_after_a_nul_or_in_case_or_form_are_different_runs(
    repository: Repository, path: Path
) -> None:
    ids = ["a", "a\x00", "a\x00b", "A", "a ", "é", "e\u0301", ""]
    batch = [run(result_id) for result_id in ids]
    assert repository.write(batch, [], refusal_of(batch)).inserted == len(ids)
    stored = ask(path, "SELECT result_id FROM execution_results")
    assert sorted(stored) == sorted((result_id,) for result_id in ids)


def test_text_that_sqlite_cannot_store_is_refused(connection: Connection, path: Path) -> None:
    with pytest.raises(RowRejected) as caught:
        insert(connection, run("r1", pc_id="\ud800"))
    assert isinstance(caught.value.__cause__, UnicodeEncodeError)
    assert count(path, "execution_results") == 0


def test_no_runs_are_no_work(connection: Connection) -> None:
    assert insert_all(connection, []) == 0


def test_an_empty_batch_writes_nothing(repository: Repository, path: Path) -> None:
    written = repository.write([], [], refusal_of([]))
    assert (written.inserted, written.refused, written.rejected) == (0, 0, [])
    assert count(path, "execution_results") == count(path, "rejected_events") == 0
