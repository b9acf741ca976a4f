"""The sweep promotes pending executions that have runs, and counts what has ended."""

import sqlite3
from contextlib import closing

import pytest

from repo.errors import TransientError
from repo.repository import Sweep
from tests.repo.rows import Db, run

pytestmark = pytest.mark.every_engine

END = "UPDATE execution_results SET finished_at = recorded_at, exit_code = ? WHERE result_id = ?"


def swept(db: Db) -> Sweep:
    sweep = Sweep()
    while sweep.after is not None:
        db.repository.sweep(sweep)
    return sweep


def counts(db: Db, exec_id: str) -> str:
    query = "SELECT success_count, failure_count, status FROM executions WHERE exec_id = ?"
    return "{}/{} {}".format(*db.ask(query, (exec_id,))[0])


def add_ended_runs(db: Db, exec_id: str, *exit_codes: int | None) -> None:
    """Add runs that have ended with these exit codes; None is a run in flight."""
    for number, exit_code in enumerate(exit_codes):
        result_id = f"{exec_id}-{number}"
        db.write([run(result_id, exec_id=exec_id)])
        if exit_code is not None:
            db.ask(END, (exit_code, result_id))


@pytest.mark.parametrize(
    ("exit_codes", "expected"),
    [
        ([], "0/0 pending"),
        ([None], "0/0 running"),
        ([0], "1/0 running"),
        ([0, None, 7, -1], "1/2 completed"),
        ([0, 0, 0, 0], "4/0 completed"),
    ],
)
@pytest.mark.parametrize("by", ["sweep", "start"])
def test_a_promotion_counts_every_run_that_has_ended(
    db: Db, exit_codes: list[int | None], expected: str, by: str
) -> None:
    add_ended_runs(db, "e-1", *exit_codes)
    add_ended_runs(db, "e-2", 0, 0)
    db.add_executions(e_1="pending")
    if by == "start" and exit_codes:
        db.write([run("another", exec_id="e-1")])
    else:
        assert swept(db).promoted == bool(exit_codes)
    assert counts(db, "e-1") == expected
    assert swept(db).promoted == 0
    assert counts(db, "e-1") == expected


def test_without_an_ended_run_an_execution_without_targets_is_running(db: Db) -> None:
    add_ended_runs(db, "e-1", None)
    db.add_executions(e_1="pending")
    db.ask("UPDATE executions SET target_count = 0")
    swept(db)
    assert counts(db, "e-1") == "0/0 running"


@pytest.mark.parametrize("status", ["running", "completed", "expired", "PENDING"])
def test_the_sweep_leaves_every_other_status_unchanged(db: Db, status: str) -> None:
    db.accept_every_status()
    add_ended_runs(db, "e-1", 0)
    db.add_executions(e_1=status)
    assert swept(db) == Sweep(after=None)
    assert counts(db, "e-1") == f"0/0 {status}"


@pytest.mark.sqlite_only
def test_the_sweep_reaches_every_page_and_locks_only_for_what_has_runs(db: Db) -> None:
    db.add_executions(**{f"e_{number:04}": "pending" for number in range(1200)})
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert swept(db).promoted == 0
        other.execute("ROLLBACK")
    for exec_id in ("e-0000", "e-0499", "e-0500", "e-1199"):
        add_ended_runs(db, exec_id, None)
    db.ask("UPDATE executions SET status = 'pending'")
    assert swept(db).promoted == 4
    assert sorted(db.statuses().values()) == ["pending"] * 1196 + ["running"] * 4


def test_a_rejected_promotion_costs_no_other_one(db: Db) -> None:
    for exec_id in ("e-1", "e-2", "e-3"):
        add_ended_runs(db, exec_id, None)
    db.add_executions(e_1="pending", e_2="pending", e_3="pending")
    rule = "SELECT RAISE(ABORT, 'frozen')"
    db.add_trigger("BEFORE UPDATE ON executions WHEN NEW.exec_id = 'e-2'", rule)
    sweep = swept(db)
    assert (sweep.promoted, [failure.execution for failure in sweep.failures]) == (2, ["e-2"])
    assert db.statuses() == {"e-1": "running", "e-2": "pending", "e-3": "running"}


@pytest.mark.sqlite_only
def test_the_sweep_raises_when_the_database_stays_locked(db: Db) -> None:
    add_ended_runs(db, "e-1", None)
    db.add_executions(e_1="pending")
    with closing(sqlite3.connect(db.path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientError):
            swept(db)
        other.execute("ROLLBACK")
    assert swept(db).promoted == 1
