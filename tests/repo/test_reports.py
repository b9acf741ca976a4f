"""The queries that a person runs, by the real shell and by the driver, give the right rows."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import pytest

from repo.statements import texts
from tests.repo.rows import INSERT_EXECUTION, rejected_event, run

STATEMENTS = {str(name): text for name, text in texts("sqlite").items()}
REPORTS = (
    "executions_by_status",
    "latest_rejected_events",
    "overdue_runs",
    "reaped_runs_by_job",
    "runs_in_flight",
    "runs_in_flight_by_job",
    "runs_of_pc",
)
PARAMETERS = {"runs_of_pc": {"pc_id": "pc-1"}}

Report = Callable[[str], list[str]]


def by_driver(path: Path, name: str) -> list[str]:
    with closing(sqlite3.connect(path)) as connection:
        rows = connection.execute(STATEMENTS[name], PARAMETERS.get(name, {})).fetchall()
    return ["|".join("" if value is None else str(value) for value in row) for row in rows]


def by_shell(path: Path, name: str) -> list[str]:
    shell = shutil.which("sqlite3")
    if shell is None and not os.environ.get("CI"):
        pytest.skip("no sqlite3 shell on PATH; scripts/setup installs it")
    assert shell, "CI needs the sqlite3 shell"
    with as_file(files("sql").joinpath("sqlite", "queries", f"{name}.sql")) as file:
        values = "".join(
            f".parameter set :{parameter} {value}\n"
            for parameter, value in PARAMETERS.get(name, {}).items()
        )
        done = subprocess.run(
            [shell, path],
            input=values + file.read_text("utf-8"),
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "HOME": str(path.parent)},  # without the user's .sqliterc
        )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(params=[by_driver, by_shell])
def report(request: pytest.FixtureRequest, path: Path) -> Report:
    return lambda name: request.param(path, name)


def insert(path: Path, table: str, rows: list[dict[str, Any]]) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for row in rows:
            names, marks = ", ".join(row), ", ".join("?" * len(row))
            connection.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", [*row.values()])


def insert_run(path: Path, result_id: str, **columns: Any) -> None:
    insert(path, "execution_results", [{**run(result_id)._asdict(), **columns}])


def test_the_reports_are_all_queries_that_a_person_runs() -> None:
    assert {name for name, sql in STATEMENTS.items() if "Operators:" in sql} == set(REPORTS)
    assert all(
        files("sql").joinpath("sqlite", "queries", f"{name}.sql").is_file() for name in REPORTS
    )


def test_every_report_runs_on_an_empty_database(report: Report) -> None:
    empty = {name: report(name) for name in REPORTS}
    assert empty == {
        **{name: [] for name in REPORTS},
        "executions_by_status": ["pending|0", "running|0", "completed|0", "expired|0"],
    }


def test_executions_are_counted_by_status_in_the_order_of_their_life(
    report: Report, path: Path
) -> None:
    statuses = ["expired"] * 4 + ["pending"] * 2 + ["completed"] * 3 + ["running"]
    with closing(sqlite3.connect(path)) as connection, connection:
        rows = [(f"e{index}", status) for index, status in enumerate(statuses)]
        connection.executemany(INSERT_EXECUTION, rows)
    assert report("executions_by_status") == ["pending|2", "running|1", "completed|3", "expired|4"]


def test_the_latest_rejected_events_are_the_newest_hundred_newest_first(
    report: Report, path: Path
) -> None:
    events = [
        rejected_event(
            1000 - index, payload=b"\x00" * index, subject=f"s{index}", reason="no start"
        )
        for index in range(1, 131)
    ]
    insert(path, "rejected_events", [event._asdict() for event in events])
    lines = report("latest_rejected_events")
    assert len(lines) == 100
    assert lines[0] == "130|2026-05-20T12:00:02+00:00|EVENTS|870|s130|no start|130"
    assert [line.split("|")[0] for line in lines] == [str(number) for number in range(130, 30, -1)]


def test_overdue_runs_are_the_open_ones_past_their_deadline_longest_overdue_first(
    report: Report, path: Path
) -> None:
    insert_run(path, "b", expires_at="2020-01-01T00:00:00.000000001+00:00")
    insert_run(path, "c", expires_at="2020-01-01T00:00:00.5+00:00")
    insert_run(path, "d", expires_at="2020-01-01T00:00:01+00:00")
    insert_run(path, "a", expires_at="2020-01-01T00:00:00+00:00")
    insert_run(path, "future", expires_at="9999-12-31T23:59:59.999+00:00")
    insert_run(path, "unknown", expires_at=None)
    insert_run(
        path,
        "finished",
        expires_at="2020-01-01T00:00:00+00:00",
        finished_at="2020-01-01T00:00:00+00:00",
    )
    lines = report("overdue_runs")
    assert [line.split("|")[4] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0] == (
        "2020-01-01T00:00:00+00:00|job-1|pc-of-a|execution-1|a|2026-05-20T12:00:00.123456789+00:00"
    )


def test_runs_in_flight_are_counted_by_job_the_largest_first(report: Report, path: Path) -> None:
    past, future = "2020-01-01T00:00:00.250+00:00", "9999-01-01T00:00:00+00:00"
    insert_run(path, "1", job_id="small", pc_id="x", expires_at=None)
    for number, (pc, expires_at) in enumerate([("x", past), ("x", future), ("y", None)]):
        started_at = f"2026-05-20T12:00:0{number}+00:00"
        insert_run(
            path, f"2{number}", job_id="big", pc_id=pc, expires_at=expires_at, started_at=started_at
        )
    insert_run(path, "3", job_id="also small", pc_id="z", expires_at=future)
    insert_run(path, "4", job_id="over", finished_at="2026-05-20T13:00:00+00:00")
    insert_run(path, "5", job_id="big", finished_at="2026-05-20T13:00:00+00:00")
    at = "2026-05-20T12:00:00.123456789+00:00"
    assert report("runs_in_flight_by_job") == [
        f"big|3|2|2026-05-20T12:00:00+00:00|{past}|{future}|1|1",
        f"also small|1|1|{at}|{future}|{future}|0|0",
        f"small|1|1|{at}|||1|0",
    ]


def test_runs_in_flight_are_the_open_ones_the_longest_running_first(
    report: Report, path: Path
) -> None:
    for name, started_at in (("new", "2026-05-20T12:00:01"), ("old", "2026-05-20T12:00:00.5")):
        insert_run(path, name, started_at=f"{started_at}+00:00")
    insert_run(path, "over", finished_at="2026-05-20T13:00:00+00:00")
    assert [line.split("|")[-1] for line in report("runs_in_flight")] == ["old", "new"]


def test_reaped_runs_are_those_of_the_last_seven_days_by_job(report: Report, path: Path) -> None:
    now = datetime.now(UTC).replace(microsecond=0)

    def ago(**span: int) -> str:
        return (now - timedelta(**span)).isoformat()

    for number, (job, finished_at, reaped) in enumerate(
        (
            ("hangs", ago(days=6, hours=23), 1),
            ("hangs", ago(hours=1), 1),
            ("hangs", ago(days=7, hours=1), 1),
            ("hangs", ago(hours=1), 0),
            ("other", ago(minutes=1), 1),
        )
    ):
        insert_run(path, str(number), job_id=job, finished_at=finished_at, reaped=reaped)
    assert report("reaped_runs_by_job") == [
        f"hangs|2|2|{ago(days=6, hours=23)}|{ago(hours=1)}",
        f"other|1|1|{ago(minutes=1)}|{ago(minutes=1)}",
    ]


def test_runs_of_a_pc_are_its_newest_hundred_newest_first(report: Report, path: Path) -> None:
    for number in range(105):
        recorded_at = f"2026-05-20T12:{number // 60:02}:{number % 60:02}+00:00"
        insert_run(path, f"{number}", pc_id="pc-1", recorded_at=recorded_at)
    insert_run(path, "elsewhere", pc_id="pc-2")
    names = [line.split("|")[-1] for line in report("runs_of_pc")]
    assert names == [str(number) for number in range(104, 4, -1)]


@pytest.mark.parametrize(
    ("expires_at", "overdue"),
    [
        ("2026-05-20T12:00:08+00:00", True),
        ("2026-05-20T12:00:08.999+00:00", True),
        ("2026-05-20T12:00:08.999999+00:00", True),
        ("2026-05-20T12:00:08.999999999+00:00", True),
        ("2026-05-20T12:00:10+00:00", False),
        ("2026-05-20T12:00:10.001+00:00", False),
        ("2026-05-20T12:00:09.500000001+00:00", False),
        ("2026-05-20T12:00:09.501+00:00", False),
        ("2026-05-20T11:59:59.999+00:00", True),
        ("2026-05-20T12:01:00+00:00", False),
    ],
)
def test_a_deadline_is_compared_right_with_and_without_a_fraction(
    path: Path, expires_at: str, overdue: bool
) -> None:
    insert_run(path, "r1", expires_at=expires_at)
    with closing(sqlite3.connect(path)) as connection:

        def at_a_fixed_now(format_: str, _now: str) -> str:
            with closing(sqlite3.connect(":memory:")) as plain:
                at = plain.execute("SELECT strftime(?, '2026-05-20 12:00:09.500')", (format_,))
                return str(at.fetchone()[0])

        connection.create_function("strftime", 2, at_a_fixed_now)
        assert bool(connection.execute(STATEMENTS["overdue_runs"]).fetchall()) is overdue
        (by_job,) = connection.execute(STATEMENTS["runs_in_flight_by_job"]).fetchall()
        assert bool(by_job[-1]) is overdue
