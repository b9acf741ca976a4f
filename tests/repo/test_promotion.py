"""The first start of an execution turns it from pending to running, and never costs a row."""

import pytest

from repo.batch_writer import WriteResult
from repo.execution_results import Run
from tests.repo.rows import Db, run, runs

pytestmark = pytest.mark.every_engine


def runs_of(*exec_ids: str) -> list[Run]:
    return [run(f"r{index}", exec_id=exec_id) for index, exec_id in enumerate(exec_ids)]


def failed(written: WriteResult) -> list[str]:
    return [failure.execution for failure in written.promotion_failures]


def reject_promotion(db: Db, when: str, action: str, *, only: str = "") -> None:
    condition = f"WHEN NEW.exec_id = '{only}'" if only else ""
    rule = f"SELECT RAISE({action}, 'frozen')"
    db.add_trigger(f"{when} UPDATE ON executions {condition}", rule)


def note_updates(db: Db) -> None:
    db.ask("CREATE TABLE updates (exec_id TEXT)")
    db.add_trigger("AFTER UPDATE ON executions", "INSERT INTO updates VALUES (NEW.exec_id)")


@pytest.mark.parametrize(
    "status", ["running", "completed", "expired", "PENDING", " pending", "cancelled", ""]
)
def test_an_execution_that_is_not_pending_is_left_unchanged(db: Db, status: str) -> None:
    db.accept_every_status()
    db.add_executions(execution_1=status)
    note_updates(db)
    db.write(runs(2))
    assert db.statuses() == {"execution-1": status}
    assert db.count("updates") == 0


def test_only_the_status_of_a_pending_execution_changes(db: Db) -> None:
    db.add_executions(execution_1="pending", execution_2="pending")
    db.ask("UPDATE executions SET success_count = 7, failure_count = 8")
    before, other = db.ask("SELECT * FROM executions ORDER BY exec_id")
    assert db.write([run("r1")]).promotion_failures == []
    found = db.ask("SELECT * FROM executions ORDER BY exec_id")
    assert found == [(*before[:-1], "running"), other]


def test_a_replayed_start_promotes_a_pending_execution_only(db: Db) -> None:
    batch = [run("r1")]
    db.write(batch)
    db.add_executions(execution_1="pending")
    assert db.write(batch).inserted == 0
    assert db.statuses() == {"execution-1": "running"}
    db.ask("UPDATE executions SET status = 'completed'")
    db.write(batch)
    assert db.statuses() == {"execution-1": "completed"}


def test_every_execution_of_a_batch_is_promoted_once_and_an_empty_id_never(db: Db) -> None:
    db.add_executions(a="pending", b="pending", c="expired", d="pending")
    db.ask("INSERT INTO executions SELECT '', '', '', '', '', 1, 0, 0, 'pending'")
    note_updates(db)
    db.write(runs_of("b", "a", "b", "", "c", "a", "b"))
    expected = {"": "pending", "a": "running", "b": "running", "c": "expired", "d": "pending"}
    assert db.statuses() == expected
    assert db.ask("SELECT exec_id FROM updates ORDER BY exec_id") == [("a",), ("b",)]


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("action", ["ABORT", "FAIL"])
def test_a_rejected_promotion_costs_no_row_and_no_other_one(db: Db, action: str, when: str) -> None:
    db.add_executions(e_0="pending", e_1="pending", e_2="pending")
    reject_promotion(db, when, action, only="e-1")
    written = db.write(runs_of("e-0", "e-1", "e-2"))
    assert (written.inserted, written.rows_rejected, written.rejected) == (3, 0, [])
    assert failed(written) == ["e-1"]
    assert "frozen" in written.promotion_failures[0].reason
    assert db.count() == 3
    assert db.statuses() == {"e-0": "running", "e-1": "pending", "e-2": "running"}


@pytest.mark.sqlite_only
@pytest.mark.parametrize("only", ["execution-1", ""])
def test_a_promotion_that_rolls_the_transaction_back_costs_no_row(db: Db, only: str) -> None:
    db.add_executions(execution_1="pending")
    reject_promotion(db, "BEFORE", "ROLLBACK", only=only)
    written = db.write(runs_of("execution-1", "execution-2"))
    assert written.inserted == db.count() == 2
    assert failed(written) == ["execution-1"]


@pytest.mark.parametrize(
    "changes",
    [
        ["CREATE TRIGGER t AFTER UPDATE ON executions BEGIN SELECT RAISE(ABORT, 'frozen'); END"],
        ["CREATE TRIGGER t AFTER UPDATE ON executions BEGIN INSERT INTO nowhere VALUES (1); END"],
        ["ALTER TABLE executions RENAME COLUMN status TO state"],
        ["ALTER TABLE executions RENAME COLUMN exec_id TO id"],
        ["DROP TABLE executions"],
        [
            "ALTER TABLE executions RENAME TO others",
            "CREATE VIEW executions AS SELECT exec_id, status FROM others",
        ],
    ],
)
def test_rejected_promotions_cost_no_row_and_are_all_reported(db: Db, changes: list[str]) -> None:
    db.add_executions(e_1="pending", e_2="pending")
    for change in changes:
        db.ask(change)
    written = db.write(runs_of("e-1", "e-2", "e-1", ""))
    assert written.inserted == db.count() == 4
    assert failed(written) == ["e-1", "e-2"]
    if "TRIGGER" in changes[0]:
        assert set(db.statuses().values()) == {"pending"}


def test_only_the_written_rows_of_a_batch_promote(db: Db) -> None:
    db.add_executions(e_1="pending", e_2="pending", e_3="pending")
    db.ask("ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    reject_promotion(db, "BEFORE", "ABORT", only="e-3")
    first, second, third = runs_of("e-1", "e-2", "e-3")
    written = db.write([first, second._replace(pc_id="bad"), third])
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert failed(written) == ["e-3"]
    assert db.statuses() == {"e-1": "running", "e-2": "pending", "e-3": "pending"}
