"""`projector runs`, `sql` and `config`: what they show, whatever stands in the tables."""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import Done, run_here
from tests.support.rows import Rows
from worker.errors import SettingError

Projector = Callable[..., Done]

LATE = "2026-01-01T00:00:00+00:00"
FAR = "2999-01-01T00:00:00+00:00"
HOSTILE = "pc \x1b[31m[bold]\u202e☃"


@pytest.fixture
def projector(rows: Rows) -> Projector:
    def run(*arguments: object, **environment: str) -> Done:
        return run_here(*arguments, **{"PROJECTOR_DATABASE": rows.url, **environment})

    return run


def add(rows: Rows, *runs: dict[str, Any]) -> None:
    plain = {
        "request_id": "r",
        "exec_id": "e",
        "pc_id": "p",
        "job_id": "j",
        "started_at": "2025-01-01T00:00:00+00:00",
        "recorded_at": "2025-01-01T00:00:01+00:00",
        "expires_at": FAR,
        "finished_at": None,
    }
    with closing(sqlite3.connect(rows.path)) as connection, connection:
        for run in runs:
            columns = {**plain, **run}
            connection.execute(
                f"INSERT INTO execution_results ({', '.join(columns)})"
                f" VALUES ({', '.join('?' * len(columns))})",
                list(columns.values()),
            )


def ids(done: Done) -> list[str]:
    return [run["result_id"] for run in done.document["runs"]]


def test_filters_choose_among_the_runs_in_flight_and_add_up(
    projector: Projector, rows: Rows
) -> None:
    add(
        rows,
        {"result_id": "done", "finished_at": LATE},
        {"result_id": "later", "started_at": "2025-01-02T00:00:00+00:00", "job_id": "k"},
        {"result_id": "late", "expires_at": LATE, "pc_id": HOSTILE},
        {"result_id": "none", "expires_at": None, "exec_id": "f", "job_id": None},
        {"result_id": "none-late", "expires_at": LATE, "exec_id": None, "version": None},
    )
    assert ids(projector("runs", "--json")) == ["late", "none", "none-late", "later"]
    assert ids(projector("runs", "--json", "--overdue")) == ["late", "none-late"]
    assert ids(projector("runs", "--json", "--without-deadline")) == ["none"]
    assert ids(projector("runs", "--json", "--job", "k")) == ["later"]
    assert ids(projector("runs", "--json", "--execution", "f", "--job", "j")) == []
    one = projector("runs", "--json", "--pc", HOSTILE, "--overdue").document["runs"]
    assert [(run["result_id"], run["overdue"], run["expires_at"]) for run in one] == [
        ("late", True, LATE)
    ]
    text = projector("runs")
    assert text.code == 0
    assert "\x1b" not in text.output
    assert "pc \\x1b[31m[bold]" in text.output
    assert text.output.count("overdue") == 3  # the heading, and two runs

    by = projector("runs", "--by", "job", "--json").document
    assert [(group["job"], group["runs"], group["overdue"]) for group in by["groups"]] == [
        ("j", 2, 2),
        ("", 1, 0),
        ("k", 1, 0),
    ]
    assert "without deadline" in projector("runs", "--by", "pc").output
    nothing = projector("runs", "--by", "pc", "--pc", "nobody")
    assert (nothing.code, nothing.output, nothing.errors) == (0, "", "no matching runs in flight\n")


def test_many_runs_of_one_moment_come_in_pages_and_each_once(
    projector: Projector, rows: Rows
) -> None:
    add(rows, *({"result_id": f"run-{number:04}"} for number in range(1_100)))
    assert ids(projector("runs", "--all", "--json")) == [f"run-{n:04}" for n in range(1_100)]
    first = projector("runs")
    assert len(first.output.splitlines()) == 101
    assert "pass --all" in first.errors
    assert projector("runs", "--json").document["more"] is True


def test_every_statement_is_shown_with_its_purpose_and_plan_and_none_is_run(
    projector: Projector, rows: Rows
) -> None:
    before = rows.path.read_bytes()
    done = projector("sql", "--json")
    assert done.code == 0
    found = {one["name"]: one for one in done.document["statements"]}
    assert all(one["purpose"] and one["frequency"] for one in found.values() if one["plan"])
    assert "the primary key" in found["insert_run"]["index_used"]
    assert any("in_flight_expires_at" in step for step in found["overdue_runs"]["plan"])
    assert rows.path.read_bytes() == before

    rows.write("DROP TABLE executions")
    done = projector("sql")
    assert done.code == 1
    assert "error      no such table: executions" in done.output
    one = projector("sql", "find_run")
    assert (one.code, one.output.splitlines()[0]) == (0, "find_run  (runs.sql)")
    assert projector("sql", "find_run", "nothing").code == 1


def test_each_setting_tells_where_it_comes_from_and_no_secret(
    projector: Projector, tmp_path: Path, rows: Rows
) -> None:
    (tmp_path / "secret").write_text("s3cret")
    done = projector(
        *("config", "--json", "--batch", "7", "--password-file", tmp_path / "secret"),
        PROJECTOR_USER="me",
        PROJECTOR_MAX_OUTSTANDING="9",
    )
    assert done.code == 0, done
    found = {one["option"]: (one["value"], one["source"]) for one in done.document["settings"]}
    assert found["--batch"] == (7, "command line")
    assert found["--max-outstanding"] == (9, "PROJECTOR_MAX_OUTSTANDING")
    assert found["--threads"] == (2, "default")
    assert found["--database"] == (rows.url, "PROJECTOR_DATABASE")
    assert found["--password-file"] == (str(tmp_path / "secret"), "command line")
    hidden = projector("config", PROJECTOR_NATS_URL="nats://me:s3cret@h:1,nats://me:s3cret@i")
    assert "nats://h:1, nats://i:4222" in hidden.output
    assert "(hidden)" in hidden.output
    token = projector("config", PROJECTOR_TOKEN="s3cret")
    assert "PROJECTOR_TOKEN" in token.output
    for shown in (done, hidden, token):
        assert "s3cret" not in shown.output + shown.errors
    with pytest.raises(SettingError):
        projector("config", "--user", "me")
    assert json.loads(projector("config", "--json").raw)
