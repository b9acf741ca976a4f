"""A start becomes one in-flight row, once, whatever its texts contain."""

from typing import Any

import pytest

from repo import queries
from repo.execution_results import insert_all
from repo.sqlite.connection import Connection
from tests.repo.rows import Db, run

pytestmark = pytest.mark.every_engine

RESULT: dict[str, Any] = {
    **run("r1", request_id="q", exec_id="e", pc_id="p", job_id="j", expires_at=None)._asdict(),
    **dict.fromkeys(("exit_code", "reaped", "skipped"), 1),
    **dict.fromkeys(("stdout", "stderr"), "text"),
    "finished_at": "2026-05-20T11:00:00+00:00",
    "parent_result_id": None,
}


def test_a_start_becomes_an_in_flight_row_with_every_column_as_bound(db: Db) -> None:
    assert db.write([run("r1")]).inserted == 1
    assert db.row_of("r1") == {
        **run("r1")._asdict(),
        **dict.fromkeys(("exit_code", "finished_at", "parent_result_id")),
        **dict.fromkeys(("stdout", "stderr"), ""),
        **dict.fromkeys(("reaped", "skipped"), 0),
    }


@pytest.mark.parametrize("rejected", [0, 1])
def test_a_start_after_its_result_leaves_the_finished_row_unchanged(db: Db, rejected: int) -> None:
    columns, marks = ", ".join(RESULT), ", ".join("?" * len(RESULT))
    db.ask(f"INSERT INTO execution_results ({columns}) VALUES ({marks})", [*RESULT.values()])
    db.ask("ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    batch = [run("r1"), run("r2"), *(run("r3", pc_id="bad") for _ in range(rejected))]
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (1, rejected)
    assert db.row_of("r1") == {"site": None, **RESULT}


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
def test_text_is_stored_unchanged(connection: Connection, db: Db, column: str, text: str) -> None:
    one = run("r1")._replace(**{column: text})
    is_long_key = column == "result_id" and len(text) > 1000
    if db.engine == "postgresql" and ("\0" in text or is_long_key):
        assert db.write([one]).rows_rejected == 1
        return
    insert_all(connection, [one])
    found = db.ask(f"SELECT {column}, typeof({column}) FROM execution_results")
    assert found == [(text, "text")]


def test_result_ids_that_differ_after_a_nul_or_in_case_or_form_are_different_runs(db: Db) -> None:
    ids = ["a", "a\x00", "a\x00b", "A", "a ", "é", "e\u0301", ""]
    if db.engine == "postgresql":
        ids = sorted(one for one in ids if "\0" not in one)
    assert db.write([run(result_id) for result_id in ids]).inserted == len(ids)
    assert db.result_ids() == ids


def test_an_empty_batch_writes_nothing(connection: Connection, db: Db) -> None:
    assert insert_all(connection, []) == 0
    written = db.write([])
    assert (written.inserted, written.rows_rejected, written.rejected) == (0, 0, [])
    assert db.count() == db.count("rejected_events") == 0


def test_runs_in_flight_without_a_deadline_are_counted_by_job_up_to_a_bound(
    connection: Connection, db: Db
) -> None:
    jobs = ("a", "a", "a", "b", None)
    without = [run(f"r{n}", job_id=job, expires_at=None) for n, job in enumerate(jobs)]
    db.write([*without, run("with"), run("ended", expires_at=None)])
    db.ask("UPDATE execution_results SET finished_at = recorded_at WHERE result_id = 'ended'")
    assert queries.count_without_deadline(connection, 10) == {"a": 3, "b": 1, None: 1}
    assert sum(queries.count_without_deadline(connection, 4).values()) == 4
