"""The first start of an execution turns it from pending to running, and never costs a row."""

from pathlib import Path

import pytest

from repo.executions import promote
from repo.sqlite.connection import Connection
from tests.repo.rows import (
    Repository,
    add_executions,
    add_trigger,
    ask,
    count,
    run,
    runs,
    statuses,
    write,
)


def reject_promotion(path: Path, when: str, action: str, *, only: str = "") -> None:
    condition = f"WHEN NEW.exec_id = '{only}'" if only else ""
    rule = f"SELECT RAISE({action}, 'frozen')"
    add_trigger(path, f"{when} UPDATE ON executions {condition}", rule)


def note_updates(path: Path) -> None:
    ask(path, "CREATE TABLE updates (exec_id TEXT)")
    add_trigger(path, "AFTER UPDATE ON executions", "INSERT INTO updates VALUES (NEW.exec_id)")


@pytest.mark.parametrize(
    "status", ["running", "completed", "expired", "PENDING", " pending", "cancelled", ""]
)
def test_an_execution_that_is_not_pending_is_left_unchanged(
    repository: Repository, path: Path, status: str
) -> None:
    add_executions(path, execution_1=status)
    note_updates(path)
    write(repository, runs(2))
    assert statuses(path) == {"execution-1": status}
    assert count(path, "updates") == 0


def test_only_the_status_of_a_pending_execution_changes(repository: Repository, path: Path) -> None:
    add_executions(path, execution_1="pending", execution_2="pending")
    ask(path, "UPDATE executions SET success_count = 7, failure_count = 8")
    before, other = ask(path, "SELECT * FROM executions ORDER BY exec_id")
    assert write(repository, [run("r1")]).promotion_failures == []
    found = ask(path, "SELECT * FROM executions ORDER BY exec_id")
    assert found == [(*before[:-1], "running"), other]


def test_a_missing_execution_is_normal_and_is_not_created(
    repository: Repository, path: Path
) -> None:
    written = write(repository, [run("r1", exec_id="unknown")])
    assert (written.inserted, written.promotion_failures) == (1, [])
    assert count(path, "executions") == 0


def test_a_replayed_start_promotes_a_pending_execution_only(
    repository: Repository, path: Path
) -> None:
    batch = [run("r1")]
    write(repository, batch)
    add_executions(path, execution_1="pending")
    assert write(repository, batch).inserted == 0
    assert statuses(path) == {"execution-1": "running"}
    ask(path, "UPDATE executions SET status = 'completed'")
    write(repository, batch)
    assert statuses(path) == {"execution-1": "completed"}


def test_every_execution_of_a_batch_is_promoted_once_and_an_empty_id_never(
    repository: Repository, path: Path
) -> None:
    add_executions(path, a="pending", b="pending", c="expired", d="pending")
    ask(path, "INSERT INTO executions SELECT '', '', '', '', '', 1, 0, 0, 'pending'")
    note_updates(path)
    exec_ids = ["b", "a", "b", "", "c", "a", "b"]
    write(repository, [run(f"r{index}", exec_id=each) for index, each in enumerate(exec_ids)])
    expected = {"": "pending", "a": "running", "b": "running", "c": "expired", "d": "pending"}
    assert statuses(path) == expected
    assert ask(path, "SELECT exec_id FROM updates ORDER BY rowid") == [("b",), ("a",)]


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("action", ["ABORT", "FAIL"])
def test_a_rejected_promotion_costs_no_row_and_no_other_promotion(
    repository: Repository, path: Path, action: str, when: str
) -> None:
    add_executions(path, e_0="pending", e_1="pending", e_2="pending")
    reject_promotion(path, when, action, only="e-1")
    written = write(repository, [run(f"r{index}", exec_id=f"e-{index}") for index in range(3)])
    assert (written.inserted, written.rows_rejected, written.rejected) == (3, 0, [])
    (failure,) = written.promotion_failures
    assert failure.exec_id == "e-1"
    assert "frozen" in failure.reason
    assert count(path, "execution_results") == 3
    assert statuses(path) == {"e-0": "running", "e-1": "pending", "e-2": "running"}


@pytest.mark.parametrize(
    "rule", ["SELECT RAISE(ABORT, 'frozen')", "INSERT INTO nowhere VALUES (1)"]
)
def test_promotions_that_are_all_rejected_cost_no_row(
    repository: Repository, path: Path, rule: str
) -> None:
    add_executions(path, e_0="pending", e_1="pending")
    add_trigger(path, "AFTER UPDATE ON executions", rule)
    written = write(repository, [run(f"r{index}", exec_id=f"e-{index % 2}") for index in range(4)])
    assert written.inserted == count(path, "execution_results") == 4
    assert [failure.exec_id for failure in written.promotion_failures] == ["e-0", "e-1"]
    assert set(statuses(path).values()) == {"pending"}


@pytest.mark.parametrize("only", ["execution-1", ""])
def test_a_promotion_that_rolls_the_transaction_back_costs_no_row(
    repository: Repository, path: Path, only: str
) -> None:
    add_executions(path, execution_1="pending")
    reject_promotion(path, "BEFORE", "ROLLBACK", only=only)
    written = write(repository, [run("r1"), run("r2", exec_id="execution-2")])
    assert written.inserted == count(path, "execution_results") == 2
    assert [failure.exec_id for failure in written.promotion_failures] == ["execution-1"]


@pytest.mark.parametrize(
    "changes",
    [
        ["DROP TABLE executions"],
        ["ALTER TABLE executions RENAME COLUMN status TO state"],
        ["ALTER TABLE executions RENAME COLUMN exec_id TO id"],
        [
            "ALTER TABLE executions RENAME TO foreign_executions",
            "CREATE VIEW executions AS SELECT * FROM foreign_executions",
        ],
    ],
)
def test_a_table_that_does_not_fit_costs_no_row_and_is_reported_for_each_execution(
    repository: Repository, path: Path, changes: list[str]
) -> None:
    for change in changes:
        ask(path, change)
    batch = [run("r1", exec_id="e-1"), run("r2", exec_id="e-2"), run("r3", exec_id="")]
    written = write(repository, batch)
    assert written.inserted == count(path, "execution_results") == 3
    assert [failure.exec_id for failure in written.promotion_failures] == ["e-1", "e-2"]


def test_only_the_written_rows_of_a_batch_promote(repository: Repository, path: Path) -> None:
    add_executions(path, e_1="pending", e_2="pending", e_3="pending")
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    reject_promotion(path, "BEFORE", "ABORT", only="e-3")
    batch = [run(f"r{number}", exec_id=f"e-{number}") for number in (1, 2, 3)]
    batch[1] = batch[1]._replace(pc_id="bad")
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert [failure.exec_id for failure in written.promotion_failures] == ["e-3"]
    assert statuses(path) == {"e-1": "running", "e-2": "pending", "e-3": "pending"}


def test_no_executions_cause_no_work(connection: Connection, path: Path) -> None:
    ask(path, "DROP TABLE executions")
    with connection.write():
        promote(connection, [])
    assert connection.driver.total_changes == 0
