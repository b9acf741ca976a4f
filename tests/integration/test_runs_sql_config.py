"""`projector runs`, `sql` and `config`, which need no broker."""

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Projector
from tests.support.commands import Done, run_here
from tests.support.rows import Rows
from worker.errors import SettingError

LATE = "2026-01-01T00:00:00+00:00"
FAR = "2999-01-01T00:00:00+00:00"
HOSTILE = "pc \x1b[31m[bold]\u202e☃"
RUN = {
    "request_id": "r",
    "exec_id": "e",
    "pc_id": "p",
    "job_id": "j",
    "started_at": "2025-01-01T00:00:00+00:00",
    "recorded_at": "2025-01-01T00:00:01+00:00",
    "expires_at": FAR,
    "finished_at": None,
    "version": None,
}


@pytest.fixture
def projector(rows: Rows) -> Projector:
    """Return a function that runs a command in this process, which is faster."""

    def run(*arguments: object, **environment: str) -> Done:
        return run_here(*arguments, **{"PROJECTOR_DATABASE": rows.url, **environment})

    return run


def add(rows: Rows, *runs: dict[str, Any]) -> None:
    with closing(sqlite3.connect(rows.path)) as connection, connection:
        connection.executemany(
            f"INSERT INTO execution_results (result_id, {', '.join(RUN)})"
            f" VALUES (:result_id, :{', :'.join(RUN)})",
            [{**RUN, **run} for run in runs],
        )


def ids(done: Done) -> list[str]:
    return [run["result_id"] for run in done.document["runs"]]


def test_runs_lists_runs_in_flight_that_match_all_filters(projector: Projector, rows: Rows) -> None:
    add(
        rows,
        {"result_id": "done", "finished_at": LATE},
        {"result_id": "later", "started_at": "2025-01-02T00:00:00+00:00", "job_id": "k"},
        {"result_id": "late", "expires_at": LATE, "pc_id": HOSTILE},
        {"result_id": "none", "expires_at": None, "exec_id": "f", "job_id": None},
        {"result_id": "none-late", "expires_at": LATE, "exec_id": None},
    )
    expected = {
        (): ["late", "none", "none-late", "later"],
        ("--overdue",): ["late", "none-late"],
        ("--without-deadline",): ["none"],
        ("--job", "k"): ["later"],
        ("--execution", "f", "--job", "j"): [],
        ("--pc", HOSTILE, "--overdue"): ["late"],
    }
    assert {one: ids(projector("runs", "--json", *one)) for one in expected} == expected
    (run,) = projector("runs", "--json", "--pc", HOSTILE).document["runs"]
    assert (run["overdue"], run["expires_at"]) == (True, LATE)
    text = projector("runs")
    assert text.code == 0
    assert "\x1b" not in text.output
    assert "pc \\x1b[31m[bold]" in text.output
    assert text.output.count("overdue") == 3  # the heading, and two runs

    groups = projector("runs", "--by", "job", "--json").document["groups"]
    counts = [(group["job"], group["runs"], group["overdue"]) for group in groups]
    assert counts == [("j", 2, 2), ("", 1, 0), ("k", 1, 0)]
    assert "without deadline" in projector("runs", "--by", "pc").output
    nothing = projector("runs", "--by", "pc", "--pc", "unknown")
    assert (nothing.code, nothing.output, nothing.errors) == (0, "", "no matching runs in flight\n")


def test_runs_lists_each_of_many_runs_of_one_start_once(projector: Projector, rows: Rows) -> None:
    names = [f"run-{number:04}" for number in range(1_100)]
    add(rows, *({"result_id": name} for name in names))
    assert ids(projector("runs", "--all", "--json")) == names
    first = projector("runs")
    assert len(first.output.splitlines()) == 101
    assert "pass --all" in first.errors
    assert projector("runs", "--json").document["more"] is True


def test_sql_explains_every_statement_and_runs_none(projector: Projector, rows: Rows) -> None:
    before = rows.path.read_bytes()
    done = projector("sql", "--json")
    assert done.code == 0
    found = {one["name"]: one for one in done.document["statements"]}
    assert all(one["purpose"] and one["frequency"] for one in found.values() if one["plan"])
    assert "primary key" in found["insert_run"]["index_used"]
    assert any("in_flight_expires_at" in step for step in found["overdue_runs"]["plan"])
    assert rows.path.read_bytes() == before

    rows.write("DROP TABLE executions")
    done = projector("sql")
    assert done.code == 1
    assert "error      no such table: executions" in done.output
    one = projector("sql", "find_run")
    assert (one.code, one.output.splitlines()[0]) == (0, "find_run  (runs.sql)")
    assert projector("sql", "find_run", "nothing").code == 1


def test_config_shows_each_setting_with_its_source_and_no_secret(
    projector: Projector, tmp_path: Path, rows: Rows
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret")
    done = projector(
        *("config", "--json", "--batch", "7", "--password-file", secret),
        PROJECTOR_USER="me",
        PROJECTOR_MAX_OUTSTANDING="9",
    )
    assert done.code == 0, done
    found = {one["option"]: (one["value"], one["source"]) for one in done.document["settings"]}
    assert found["--batch"] == (7, "command line")
    assert found["--max-outstanding"] == (9, "PROJECTOR_MAX_OUTSTANDING")
    assert found["--threads"] == (2, "default")
    assert found["--database"] == (rows.url, "PROJECTOR_DATABASE")
    assert found["--password-file"] == (str(secret), "command line")
    hidden = projector("config", PROJECTOR_NATS_URL="nats://me:s3cret@h:1,nats://me:s3cret@i")
    assert "nats://h:1, nats://i:4222" in hidden.output
    assert "(hidden)" in hidden.output
    token = projector("config", PROJECTOR_TOKEN="s3cret")
    assert "PROJECTOR_TOKEN" in token.output
    for shown in (done, hidden, token):
        assert "s3cret" not in shown.output + shown.errors
    with pytest.raises(SettingError):
        projector("config", "--user", "me")
