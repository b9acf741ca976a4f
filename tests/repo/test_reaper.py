"""Overdue runs are given up, old executions expire, and old rows are deleted."""

import pytest

from repo import execution_results, executions, reaper
from repo.errors import RowRejected, SchemaError
from repo.reaper import NOTE, Overdue, Reaping
from repo.repository import Sweep
from tests.repo.rows import Db, result, run

pytestmark = pytest.mark.every_engine

NOW = "2026-05-20T13:00:00+00:00"
A_DAY_AGO = "2026-05-19T13:00:00+00:00"
UNTIL = "2026-05-20T12:30:00+00:00"
BEFORE = "2026-05-20T12:29:59.999999999+00:00"
LATER = "2026-05-20T12:30:00.000000001+00:00"

NO_TIMES = [
    *("", "now", "2026-05-20", "2026-05-20 12:00:00", "2026-05-20 12:00:00+00:00"),
    *("2026-05-20T12:00:00Z", "2026-05-20T12:00:00", "2026-05-20T12:00:00+01:00"),
    *("2026-02-30T12:00:00+00:00", "2026-05-19T24:00:00+00:00", "2026-05-20T12:00:60+00:00"),
    *("2026-05-20T12:00:00.1+00:00", "2026-05-20T12:00:00.12 +00:00", "2026-05-20t12:00:00+00:00"),
    *(
        "2026-05-20T12:00:00.12x+00:00",
        "2026-05-20T12:00:00+00:00\x00",
        "2026-05-20T12:00:00\x00+0",
    ),
    *("-001-05-20T12:00:00+00:00", "02026-05-20T12:00:00+00:00", "20260520", "0", "-1.5"),
]


def reap(db: Db) -> tuple[list[Overdue], dict[str, str]]:
    """Let the reaper take page after page; return what it gave up, and what it could not."""
    reaping, reaped = Reaping(NOW, UNTIL, A_DAY_AGO), []
    while not reaping.is_complete:
        reaped += db.repository.reap(reaping)
    return reaped, reaping.failures


def unreadable(db: Db) -> int:
    with db.database.reading() as connection:
        return reaper.count_unreadable(connection, UNTIL, UNTIL)


def rule(action: str) -> str:
    return "SELECT RAISE(IGNORE)" if action == "IGNORE" else f"SELECT RAISE({action}, 'closed')"


@pytest.fixture(autouse=True)
def execution(db: Db) -> None:
    db.add_executions(execution_1="running")


# --- which runs are overdue -----------------------------------------------------------------------


def test_what_a_reaped_run_has_written_is_kept_with_a_note_below_it(db: Db) -> None:
    db.write([run("r1"), run("r2")])
    db.ask("UPDATE execution_results SET stdout = 'o', stderr = 'e' WHERE result_id = 'r1'")
    before = db.row_of("r1")
    assert [one.result_id for one in reap(db)[0]] == ["r1", "r2"]
    changed = {"finished_at": NOW, "exit_code": -1, "reaped": 1, "stderr": f"e\n{NOTE}"}
    assert db.row_of("r1") == before | changed
    assert db.row_of("r2")["stderr"] == NOTE
    assert db.counts() == "0/2 running"
    assert reap(db) == ([], {})


@pytest.mark.parametrize("digits", ["", ".001", ".000001", ".000000001"])
def test_a_run_is_overdue_strictly_after_its_deadline(db: Db, digits: str) -> None:
    db.write([run("r1", expires_at=UNTIL.replace("+", f"{digits}+", 1))])
    assert reap(db)[0] == []
    db.write([run("r2", expires_at=BEFORE)])
    assert [one.result_id for one in reap(db)[0]] == ["r2"]


def test_a_run_without_a_deadline_is_overdue_a_day_after_it_was_stored(db: Db) -> None:
    early = "2026-05-19T12:59:59.999999999+00:00"
    db.write([run("r1", expires_at=None, recorded_at=A_DAY_AGO, started_at="2020-01-01T00:00:00Z")])
    db.write([run("r2", expires_at=None, recorded_at=early)])
    assert [one.result_id for one in reap(db)[0]] == ["r2"]


@pytest.mark.parametrize("text", NO_TIMES, ids=repr)
def test_a_text_that_is_no_stored_time_never_makes_a_run_overdue_and_is_counted(
    db: Db, text: str
) -> None:
    if "\0" in text and db.engine == "postgresql":
        pytest.skip("no text of this engine holds a NUL")
    db.write([run("r1", expires_at=text), run("r2", expires_at=None, recorded_at=text)])
    db.write([run("r3", expires_at=LATER), run("r4", expires_at=None)])
    assert reap(db) == ([], {})
    is_number = db.engine == "sqlite" and text.isdigit()  # which sorts before any text
    is_later = UNTIL < text < ":" and not is_number
    assert unreadable(db) == (2 - 2 * is_later)


@pytest.mark.parametrize(
    "time",
    [
        *("0000-01-01T00:00:00+00:00", "2024-02-29T23:59:59.999999999+00:00"),
        *("2026-05-20T12:00:00.120+00:00", "1999-12-31T00:00:00.000001+00:00"),
    ],
)
def test_any_stored_time_makes_a_run_overdue(db: Db, time: str) -> None:
    db.write([run("r1", expires_at=time)])
    assert [one.expires_at for one in reap(db)[0]] == [time]
    assert unreadable(db) == 0


def test_the_reaper_takes_pages_of_the_longest_overdue_first(db: Db) -> None:
    times = [
        f"2026-05-20T12:{minute:02}:{second:02}+00:00"
        for minute in range(20)
        for second in range(60)
    ]
    db.write([run(f"r{at}", expires_at=time) for at, time in enumerate(reversed(times))])
    reaping = Reaping(NOW, UNTIL, A_DAY_AGO)
    pages = []
    while not reaping.is_complete:
        pages.append([one.expires_at for one in db.repository.reap(reaping)])
    assert [len(page) for page in pages] == [500, 500, 200, 0]
    assert [time for page in pages for time in page] == times
    assert db.counts() == "0/1200 completed"


def test_a_result_between_two_pages_is_counted_once(db: Db) -> None:
    db.write([run(f"r{number:03}") for number in range(501)])
    reaping = Reaping(NOW, UNTIL, A_DAY_AGO)
    db.repository.reap(reaping)
    db.write_results(result("r500"), result("r000"))
    db.repository.reap(reaping)
    assert db.counts() == "2/499 completed"


# --- what the tables reject -----------------------------------------------------------------------


@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK", "IGNORE"])
@pytest.mark.parametrize(
    "event",
    ["execution_results WHEN NEW.result_id = 'r1'", "executions WHEN NEW.exec_id = 'e-2'"],
)
def test_a_run_that_the_tables_reject_is_reported_and_costs_no_other_one(
    db: Db, action: str, event: str
) -> None:
    db.add_executions(e_2="running")
    db.write([run("r0"), run("r1", exec_id="e-2"), run("r2")])
    db.add_trigger(f"BEFORE UPDATE ON {event}", rule(action))
    reaped, failures = reap(db)
    assert ([one.result_id for one in reaped], list(failures)) == (["r0", "r2"], ["r1"])
    assert db.row_of("r1")["finished_at"] is None
    assert (db.counts(), db.counts("e-2")) == ("0/2 running", "0/0 running")


def test_many_rejected_runs_do_not_hold_back_the_ones_behind_them(db: Db) -> None:
    for minute, (name, number) in enumerate([("bad", 300), ("r", 200), ("bad", 300), ("r", 100)]):
        time = f"2026-05-20T12:{minute:02}:00+00:00"
        db.write([run(f"{name}-{minute}-{at}", expires_at=time) for at in range(number)])
    event = "BEFORE UPDATE ON execution_results WHEN NEW.result_id LIKE 'bad%'"
    db.add_trigger(event, rule("ABORT"))
    reaped, failures = reap(db)
    assert (len(reaped), len(failures)) == (300, 600)


def test_the_reaper_ends_where_every_run_is_rejected(db: Db) -> None:
    db.write([run(f"r{number}") for number in range(700)])
    db.add_trigger("BEFORE UPDATE ON execution_results", rule("ABORT"))
    reaped, failures = reap(db)
    assert (reaped, len(failures)) == ([], 500)
    db.ask("DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        reap(db)


# --- expiry ---------------------------------------------------------------------------------------


def sweep(db: Db, old_before: str | None) -> Sweep:
    sweep = Sweep(old_before)
    while sweep.after is not None:
        db.repository.sweep(sweep)
    return sweep


def initiate(db: Db, **times: str) -> None:
    db.add_executions(**dict.fromkeys(times, "pending"))
    for exec_id, time in times.items():
        query = "UPDATE executions SET initiated_at = ? WHERE exec_id = ?"
        db.ask(query, (time, exec_id))


def test_a_pending_execution_without_runs_expires_strictly_after_the_limit(db: Db) -> None:
    initiate(db, old=BEFORE, same=UNTIL, busy=BEFORE)
    db.write([run("r1", exec_id="other")])
    db.ask("UPDATE execution_results SET exec_id = 'busy'")
    assert sweep(db, None).expired == 0
    found = sweep(db, UNTIL)
    assert (found.promoted, found.expired) == (0, 1)
    assert db.statuses() == {
        "execution-1": "running",
        "old": "expired",
        "same": "pending",
        "busy": "running",
    }


@pytest.mark.parametrize("text", NO_TIMES, ids=repr)
def test_an_execution_of_no_stored_time_neither_expires_nor_is_deleted(db: Db, text: str) -> None:
    if "\0" in text and db.engine == "postgresql":
        pytest.skip("no text of this engine holds a NUL")
    initiate(db, e1=text)
    assert sweep(db, UNTIL).expired == 0
    assert db.repository.delete_old(executions.delete_old, UNTIL) == 1  # execution-1
    assert db.statuses() == {"e1": "pending"}


@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
def test_an_expiry_that_the_tables_reject_costs_no_other_one(db: Db, action: str) -> None:
    initiate(db, e1=BEFORE, e2=BEFORE, e3=BEFORE)
    db.add_trigger("BEFORE UPDATE ON executions WHEN NEW.exec_id = 'e2'", rule(action))
    found = sweep(db, UNTIL)
    assert (found.expired, found.failures) == (2, [])
    assert [failure.execution for failure in found.expiry_failures] == ["e2"]
    assert (db.statuses()["e2"], db.statuses()["e3"]) == ("pending", "expired")


# --- retention ------------------------------------------------------------------------------------


def test_retention_deletes_what_is_older_and_never_a_run_in_flight(db: Db) -> None:
    db.write([run("flight", recorded_at=BEFORE), run("reaped", recorded_at=BEFORE)])
    db.ask(
        "UPDATE execution_results SET finished_at = ?, reaped = 1 WHERE result_id = 'reaped'",
        (NOW,),
    )
    db.write_results(
        *(result("old", recorded_at=BEFORE), result("same", recorded_at=UNTIL)),
        result("odd", recorded_at="2026-05-20 12:00:00"),
    )
    assert db.repository.delete_old(execution_results.delete_old, UNTIL) == 2
    assert sorted(db.result_ids()) == ["flight", "odd", "same"]
    initiate(db, pending=BEFORE, same=UNTIL)
    assert db.repository.delete_old(executions.delete_old, UNTIL) == 2
    assert set(db.statuses()) == {"same"}


def test_retention_takes_ten_thousand_rows_at_once_the_oldest_first(db: Db) -> None:
    db.ask(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 12000)"
        " INSERT INTO execution_results (result_id, request_id, pc_id, finished_at, recorded_at)"
        " SELECT CAST(i AS TEXT), '', '', '',"
        "  '2026-05-' || (20 - i / 1400) || 'T00:00:00+00:00' FROM n"
    )
    delete = execution_results.delete_old
    assert [db.repository.delete_old(delete, UNTIL) for _ in range(3)] == [10_000, 2_000, 0]


def test_a_row_that_may_not_be_deleted_is_an_error(db: Db) -> None:
    db.write_results(result("old", recorded_at=BEFORE))
    db.add_trigger("BEFORE DELETE ON execution_results", rule("ABORT"))
    with pytest.raises(RowRejected):
        db.repository.delete_old(execution_results.delete_old, UNTIL)
    assert db.count() == 1
