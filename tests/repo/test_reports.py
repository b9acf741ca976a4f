"""The queries that a person runs, by the real shell and by the driver, give the right rows."""

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest

from repo.reaper import count_unreadable
from repo.statements import statement, texts
from tests.repo.rows import Db, rejected_event, run, runs

STATEMENTS = {str(name): text for name, text in texts("sqlite").items()}
REPORTS = (
    "executions_by_status",
    "latest_rejected_events",
    "overdue_runs",
    "reaped_runs_by_job",
    "rejected_events_by_reason",
    "row_counts",
    "runs_ended_per_hour",
    "runs_in_flight",
    "runs_in_flight_by_job",
    "runs_of_pc",
    "runs_without_deadline_by_job",
)
PARAMETERS = {"runs_of_pc": {"pc_id": "pc-1"}}

Report = Callable[[str], list[str]]


def by_driver(db: Db, name: str) -> list[str]:
    with closing(sqlite3.connect(db.path)) as connection:
        rows = connection.execute(STATEMENTS[name], PARAMETERS.get(name, {})).fetchall()
    return ["|".join("" if value is None else str(value) for value in row) for row in rows]


def by_shell(db: Db, name: str) -> list[str]:
    shell = shutil.which("sqlite3")
    if shell is None and not os.environ.get("CI"):
        pytest.skip("no sqlite3 shell on PATH; scripts/setup installs it")
    assert shell, "CI needs the sqlite3 shell"
    parameters = PARAMETERS.get(name, {}).items()
    values = "".join(f".parameter set :{parameter} {value}\n" for parameter, value in parameters)
    done = subprocess.run(
        [shell, db.path],
        input=values + files("sql").joinpath("sqlite", "queries", f"{name}.sql").read_text("utf-8"),
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "HOME": str(db.path.parent)},  # without the user's .sqliterc
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


@pytest.fixture(params=[by_driver, by_shell])
def report(request: pytest.FixtureRequest, db: Db) -> Report:
    return lambda name: request.param(db, name)


def insert_run(db: Db, result_id: str, **columns: Any) -> None:
    row = {**run(result_id)._asdict(), **columns}
    names, marks = ", ".join(row), ", ".join("?" * len(row))
    db.ask(f"INSERT INTO execution_results ({names}) VALUES ({marks})", [*row.values()])


def test_the_reports_are_all_queries_that_a_person_runs() -> None:
    assert {name for name, sql in STATEMENTS.items() if "Operators:" in sql} == set(REPORTS)


def test_every_report_runs_on_an_empty_database(report: Report) -> None:
    empty = {name: report(name) for name in REPORTS}
    assert empty == {
        **{name: [] for name in REPORTS},
        "executions_by_status": ["pending|0", "running|0", "completed|0", "expired|0"],
        "row_counts": ["execution_results|0", "executions|0", "rejected_events|0"],
    }


def test_executions_are_counted_by_status_in_order_of_their_life(report: Report, db: Db) -> None:
    statuses = ["expired"] * 4 + ["pending"] * 2 + ["completed"] * 3 + ["running"]
    db.add_executions(**{f"e{index}": status for index, status in enumerate(statuses)})
    assert report("executions_by_status") == ["pending|2", "running|1", "completed|3", "expired|4"]


def test_the_latest_rejected_events_are_a_hundred_newest_first(report: Report, db: Db) -> None:
    db.write(
        [],
        [
            rejected_event(index, payload=b"\0" * index, subject=f"s{index}", reason="r")
            for index in range(1, 131)
        ],
    )
    lines = report("latest_rejected_events")
    assert len(lines) == 100
    assert lines[0] == "130|2026-05-20T12:00:02+00:00|EVENTS|130|s130|r|130|yes"
    assert [line.split("|")[0] for line in lines] == [str(number) for number in range(130, 30, -1)]


def test_rejected_events_are_counted_by_reason(report: Report, db: Db) -> None:
    db.write([], [rejected_event(n, reason=reason) for n, reason in enumerate("abb", 1)])
    at = "2026-05-20T12:00:02+00:00"
    assert report("rejected_events_by_reason") == [f"b|2|{at}", f"a|1|{at}"]


def test_rows_are_counted_by_table(report: Report, db: Db) -> None:
    db.write(runs(3), [rejected_event()])
    db.add_executions(e1="running", e2="pending")
    expected = ["execution_results|3", "executions|2", "rejected_events|1"]
    assert report("row_counts") == expected


def test_runs_are_counted_by_the_hour_of_their_end_and_how_they_ended(
    report: Report, db: Db
) -> None:
    now = datetime.now(UTC).replace(microsecond=0)
    ends = [(0, 0), (0, 0), (1, 0), (None, 0), (-1, 1), (0, 1)]
    for number, (exit_code, reaped) in enumerate(ends):
        at = (now - timedelta(hours=number // 4)).isoformat()
        given = {"exit_code": exit_code, "reaped": reaped, "finished_at": at, "recorded_at": at}
        insert_run(db, str(number), **given)
    long_ago = (now - timedelta(hours=25)).isoformat()
    insert_run(db, "old", exit_code=0, finished_at=long_ago, recorded_at=long_ago)
    insert_run(db, "in flight", recorded_at=now.isoformat())
    hours = [(now - timedelta(hours=back)).isoformat()[:13] + ":00:00+00:00" for back in (0, 1)]
    assert report("runs_ended_per_hour") == [f"{hours[0]}|2|2|0", f"{hours[1]}|1|0|1"]


def test_overdue_runs_are_open_and_past_their_deadline_oldest_first(report: Report, db: Db) -> None:
    year = "2020-01-01T00:00:0"
    for name, expires_at in (
        *(("b", f"{year}0.000000001+00:00"), ("c", f"{year}0.5+00:00"), ("d", f"{year}1+00:00")),
        *(("a", f"{year}0+00:00"), ("future", "9999-12-31T23:59:59.999+00:00"), ("unknown", None)),
    ):
        insert_run(db, name, expires_at=expires_at)
    insert_run(db, "finished", expires_at=f"{year}0+00:00", finished_at=f"{year}0+00:00")
    lines = report("overdue_runs")
    assert [line.split("|")[4] for line in lines] == ["a", "b", "c", "d"]
    assert lines[0] == (
        "2020-01-01T00:00:00+00:00|job-1|pc-of-a|execution-1|a|2026-05-20T12:00:00.123456789+00:00|no"
    )


def test_runs_in_flight_are_counted_by_job_the_largest_first(report: Report, db: Db) -> None:
    past, future = "2020-01-01T00:00:00.250+00:00", "9999-01-01T00:00:00+00:00"
    insert_run(db, "1", job_id="small", pc_id="x", expires_at=None)
    for number, (pc, expires_at) in enumerate([("x", past), ("x", future), ("y", None)]):
        started_at = f"2026-05-20T12:00:0{number}+00:00"
        insert_run(
            db, f"2{number}", job_id="big", pc_id=pc, expires_at=expires_at, started_at=started_at
        )
    insert_run(db, "3", job_id="also small", pc_id="z", expires_at=future)
    insert_run(db, "4", job_id="over", finished_at="2026-05-20T13:00:00+00:00")
    insert_run(db, "5", job_id="big", finished_at="2026-05-20T13:00:00+00:00")
    at = "2026-05-20T12:00:00.123456789+00:00"
    assert report("runs_in_flight_by_job") == [
        f"big|3|2|2026-05-20T12:00:00+00:00|{past}|{future}|1|1",
        f"also small|1|1|{at}|{future}|{future}|0|0",
        f"small|1|1|{at}|||1|0",
    ]


def test_runs_in_flight_are_the_open_ones_the_longest_running_first(report: Report, db: Db) -> None:
    for name, started_at in (("new", "2026-05-20T12:00:01"), ("old", "2026-05-20T12:00:00.5")):
        insert_run(db, name, started_at=f"{started_at}+00:00")
    insert_run(db, "over", finished_at="2026-05-20T13:00:00+00:00")
    assert [line.split("|")[-2] for line in report("runs_in_flight")] == ["old", "new"]


def test_runs_without_deadline_are_the_open_ones_by_job(report: Report, db: Db) -> None:
    finished = {"job_id": "many", "finished_at": "2026-05-20T13:00:00+00:00"}
    many, one = {"job_id": "many", "pc_id": "x"}, {"job_id": "one", "pc_id": "y"}
    for number, columns in enumerate((many, many, one, finished)):
        insert_run(db, str(number), expires_at=None, **columns)
    insert_run(db, "with", job_id="many")
    at = "2026-05-20T12:00:00.123456789+00:00|2026-05-20T12:00:01.500+00:00"
    assert report("runs_without_deadline_by_job") == [f"many|2|1|{at}", f"one|1|1|{at}"]


def test_reaped_runs_are_those_of_the_last_seven_days_by_job(report: Report, db: Db) -> None:
    now = datetime.now(UTC).replace(microsecond=0)

    def ago(**span: int) -> str:
        return (now - timedelta(**span)).isoformat()

    reaped = [("hangs", ago(days=6, hours=23)), ("hangs", ago(hours=1)), ("other", ago(minutes=1))]
    for number, (job, finished_at) in enumerate([*reaped, ("hangs", ago(days=7, hours=1))]):
        insert_run(db, str(number), job_id=job, finished_at=finished_at, reaped=1)
    insert_run(db, "not reaped", job_id="hangs", finished_at=ago(hours=1))
    assert report("reaped_runs_by_job") == [
        f"hangs|2|2|{ago(days=6, hours=23)}|{ago(hours=1)}",
        f"other|1|1|{ago(minutes=1)}|{ago(minutes=1)}",
    ]


def test_runs_of_a_pc_are_its_newest_hundred_newest_first(report: Report, db: Db) -> None:
    for number in range(105):
        recorded_at = f"2026-05-20T12:{number // 60:02}:{number % 60:02}+00:00"
        insert_run(db, f"{number}", pc_id="pc-1", recorded_at=recorded_at)
    insert_run(db, "elsewhere", pc_id="pc-2")
    names = [line.split("|")[-2] for line in report("runs_of_pc")]
    assert names == [str(number) for number in range(104, 4, -1)]


@pytest.mark.every_engine
@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("runs_in_flight", 1000),
        ("overdue_runs", 100),
        ("runs_of_pc", 100),
        ("latest_rejected_events", 100),
    ],
)
def test_a_report_says_in_each_row_whether_it_was_cut(db: Db, name: str, most: int) -> None:
    def add(first: int, last: int) -> None:
        numbers = range(first, last + 1)
        if name == "latest_rejected_events":
            db.write([], [rejected_event(number) for number in numbers])
            return
        at = "2020-01-01T00:00:00+00:00"
        db.write([run(f"{number}", pc_id="pc-1", expires_at=at) for number in numbers])

    def last_column() -> list[str]:
        with db.database.reading() as connection:
            rows = connection.fetch(statement(name), PARAMETERS.get(name, ()))
        return [row[-1] for row in rows]

    add(1, most)
    assert last_column() == ["no"] * most
    add(most + 1, most + 1)
    assert last_column() == ["yes"] * most


@pytest.mark.parametrize(
    ("time", "overdue"),
    [
        *((f"12:00:08{fraction}", True) for fraction in ("", ".999", ".999999", ".999999999")),
        *(("12:00:10", False), ("12:00:10.001", False), ("12:00:09.500000001", False)),
        *(("12:00:09.501", False), ("11:59:59.999", True), ("12:01:00", False)),
    ],
)
def test_a_deadline_is_compared_with_and_without_fraction(db: Db, time: str, overdue: bool) -> None:
    insert_run(db, "r1", expires_at=f"2026-05-20T{time}+00:00")
    with closing(sqlite3.connect(db.path)) as connection:

        def at_a_fixed_now(format_: str, _now: str) -> str:
            with closing(sqlite3.connect(":memory:")) as plain:
                at = plain.execute("SELECT strftime(?, '2026-05-20 12:00:09.500')", (format_,))
                return str(at.fetchone()[0])

        connection.create_function("strftime", 2, at_a_fixed_now)
        assert bool(connection.execute(STATEMENTS["overdue_runs"]).fetchall()) is overdue
        (by_job,) = connection.execute(STATEMENTS["runs_in_flight_by_job"]).fetchall()
        assert bool(by_job[-1]) is overdue


@pytest.mark.skipif(shutil.which("sqlite3") is None, reason="the sqlite3 shell is missing")
def test_the_sample_is_of_every_state_and_every_report_shows_it(db: Db, report: Report) -> None:
    sample = Path(__file__).parents[2] / "sql" / "sqlite" / "sample.sql"
    subprocess.run(
        ["sqlite3", str(db.path), ".parameter set :runs 2000", f".read {sample}"],
        check=True,
        capture_output=True,
    )
    states = "SELECT count(*), sum(finished_at IS NULL), sum(reaped), min(recorded_at) > '2' FROM"
    assert db.ask(f"{states} execution_results") == [(2000, 2, 10, 1)]
    assert db.count("executions") == 20
    names = ("job_id", "version", "request_id", "exec_id", "pc_id")
    distinct = ", ".join(f"count(DISTINCT {name})" for name in names)
    assert db.ask(f"SELECT {distinct} FROM execution_results") == [(20, 5, 20, 20, 2000)]
    with db.database.reading() as connection:
        assert count_unreadable(connection, "9", "9") == 0
    assert len(report("reaped_runs_by_job")) > 0
    assert len(report("runs_in_flight_by_job")) == 1
