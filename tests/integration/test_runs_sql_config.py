"""`projector runs`, `sql` and `config`, which need no broker."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click import UsageError

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
    rows.insert("execution_results", [{"result_id": "", **RUN, **run} for run in runs])


def ids(done: Done) -> list[str]:
    return [run["result_id"] for run in done.document["runs"]]


@pytest.mark.every_engine
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
    assert text.output.count("overdue") == 2

    groups = projector("runs", "--by", "job", "--json").document["groups"]
    counts = [(group["job"], group["runs"], group["overdue"]) for group in groups]
    assert counts == [("j", 2, 2), ("", 1, 0), ("k", 1, 0)]
    assert "NO DEADLINE" in projector("runs", "--by", "pc").output
    nothing = projector("runs", "--by", "pc", "--pc", "unknown")
    assert (nothing.code, nothing.output, nothing.errors) == (0, "", "no matching runs in flight\n")


@pytest.mark.every_engine
def test_runs_lists_each_of_many_runs_of_one_start_once(projector: Projector, rows: Rows) -> None:
    names = [f"run-{number:04}" for number in range(1_100)]
    add(rows, *({"result_id": name} for name in names))
    assert ids(projector("runs", "--all", "--json")) == names
    first = projector("runs")
    assert len(first.output.splitlines()) == 101
    assert first.errors == "100 shown, 1000 more; list them with --limit N or --all\n"
    document = projector("runs", "--json", "--limit", 30).document
    assert (len(document["runs"]), document["more"], document["remaining"]) == (30, True, 1_070)


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


# --- runs that have ended, and executions ---------------------------------------------------------


def end(rows: Rows, result_id: str, exit_code: int, seconds: float, **columns: object) -> None:
    """End a run after so many seconds by its agent's clock."""
    started = datetime.fromisoformat("2025-01-01T00:00:00+00:00")
    exact = "milliseconds" if seconds % 1 else "seconds"
    finished = (started + timedelta(seconds=seconds)).isoformat(timespec=exact)
    changed = {"finished_at": finished, "exit_code": exit_code, **columns}
    assignments = ", ".join(f"{name} = ?" for name in changed)
    change = f"UPDATE execution_results SET {assignments} WHERE result_id = ?"
    rows.write(change, *changed.values(), result_id)


@pytest.mark.every_engine
def test_runs_lists_ended_runs_newest_first_with_exit_code_and_duration(
    projector: Projector, rows: Rows
) -> None:
    at = [f"2025-01-01T00:00:0{second}+00:00" for second in range(6)]
    add(
        rows,
        {"result_id": "flying"},
        {"result_id": "good", "recorded_at": at[1]},
        {"result_id": "bad", "recorded_at": at[3], "exec_id": "f", "pc_id": "q"},
        {"result_id": "given up", "recorded_at": at[2]},
        {"result_id": "odd", "recorded_at": at[4], "exec_id": "f", "started_at": "yesterday"},
    )
    end(rows, "good", 0, 1.5)
    end(rows, "bad", 7, 60)
    end(rows, "given up", -1, 3600, reaped=1)
    end(rows, "odd", 0, 1)
    expected = {
        ("--ended",): ["odd", "bad", "given up", "good"],
        ("--failed",): ["bad", "given up"],
        ("--ended", "--failed", "--execution", "f"): ["bad"],
        ("--ended", "--execution", "f"): ["odd", "bad"],
        ("--ended", "--pc", "p"): ["odd", "given up", "good"],
        ("--ended", "--job", "none"): [],
    }
    assert {one: ids(projector("runs", "--json", *one)) for one in expected} == expected
    runs = projector("runs", "--ended", "--json").document["runs"]
    assert [(one["exit_code"], one["duration_seconds"], one["reaped"]) for one in runs] == [
        *((0, None, False), (7, 60.0, False), (-1, None, True), (0, 1.5, False))
    ]
    (line,) = projector("runs", "--failed", "--pc", "q").output.splitlines()[1:]
    assert line.split()[-4:] == ["7", "60", "s", "bad"]
    groups = projector("runs", "--ended", "--by", "execution", "--json").document["groups"]
    assert groups == [
        {"execution": "e", "runs": 2, "failed": 1, "reaped": 1, "last_recorded_at": at[2]},
        {"execution": "f", "runs": 2, "failed": 1, "reaped": 0, "last_recorded_at": at[4]},
    ]
    assert "LAST STORED UTC" in projector("runs", "--failed", "--by", "pc").output
    with pytest.raises(UsageError):
        projector("runs", "--ended", "--overdue")


@pytest.mark.every_engine
@pytest.mark.parametrize("option", [(), ("--execution", "e")])
def test_runs_lists_each_of_many_ended_runs_of_one_instant_once(
    projector: Projector, rows: Rows, option: tuple[str, ...]
) -> None:
    names = [f"run-{number:04}" for number in range(1_100)]
    add(rows, *({"result_id": name, "finished_at": LATE} for name in names))
    assert ids(projector("runs", "--ended", "--all", "--json", *option)) == names[::-1]
    assert projector("runs", "--ended", "--json", *option).document["more"] is True


@pytest.mark.every_engine
def test_executions_are_listed_newest_first_with_their_counts(
    projector: Projector, rows: Rows
) -> None:
    for number in range(1_100):
        rows.insert_execution(f"x-{number:04}", 5, "running" if number % 2 else "completed")
    rows.write("UPDATE executions SET initiated_at = ?", LATE)
    rows.write(
        "UPDATE executions SET initiated_at = ?, success_count = 2, failure_count = 1,"
        " job_id = 'j' WHERE exec_id = 'x-0007'",
        FAR,
    )
    listed = projector("executions", "--all", "--json").document["executions"]
    names = [one["exec_id"] for one in listed]
    assert names[0] == "x-0007"
    assert sorted(names) == [f"x-{number:04}" for number in range(1_100)]
    assert (listed[0]["status"], listed[0]["missing"]) == ("running", 2)
    assert len(projector("executions").output.splitlines()) == 101
    found = projector("executions", "--job", "j", "--status", "running", "--json").document
    assert [one["exec_id"] for one in found["executions"]] == ["x-0007"]
    nothing = projector("executions", "--status", "expired")
    assert (nothing.code, nothing.errors) == (0, "no matching executions\n")


@pytest.mark.every_engine
def test_an_execution_shows_its_runs_and_who_is_missing(projector: Projector, rows: Rows) -> None:
    rows.insert_execution("e", 6, "running")
    rows.write("UPDATE executions SET success_count = 1, failure_count = 2")
    add(
        rows,
        *({"result_id": name, "pc_id": f"pc-{name}"} for name in ("a", "b", "c", "d")),
        {"result_id": "late", "pc_id": HOSTILE, "expires_at": LATE},
        {"result_id": "other", "exec_id": "f"},
    )
    end(rows, "a", 0, 1)
    end(rows, "b", 1, 1)
    end(rows, "c", -1, 1, reaped=1)
    found = projector("executions", "e", "--json").document
    assert found["runs"] == {"in_flight": 2, "succeeded": 1, "failed": 1, "reaped": 1}
    assert (found["never_started"], found["execution"]["missing"], found["more"]) == (1, 3, False)
    assert [(one["pc_id"], one["overdue"]) for one in found["missing"]] == [
        *(("pc-d", False), (HOSTILE, True))
    ]
    text = projector("executions", "e").output
    assert "pc \\x1b[31m[bold]" in text
    assert "never started      1" in text
    rows.write("UPDATE execution_results SET finished_at = ?", LATE)
    assert "pc-d" not in projector("executions", "e").output
    unknown = projector("executions", "f")
    assert (unknown.code, unknown.output) == (1, "")
    assert "execution f does not exist; 1 runs name it" in unknown.errors
    assert projector("executions", "g").errors == "Error: execution g does not exist\n"
