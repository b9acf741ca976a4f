"""The first start of an execution turns it from pending to running, at nobody's cost."""

from pathlib import Path

import pytest

from repo.executions import promote
from repo.repository import Repository
from repo.sqlite.database import Connection
from tests.repo.rows import add_executions, ask, count, refusal_of, run, runs, statuses

FAILS_FOR_EXECUTION_1 = """
CREATE TRIGGER foreign_rule {when} UPDATE ON executions WHEN NEW.exec_id = 'execution-1'
BEGIN SELECT RAISE({action}, 'frozen'); END
"""
FAILS_FOR_ALL = """
CREATE TRIGGER foreign_rule {when} UPDATE ON executions BEGIN SELECT RAISE({action}, 'frozen'); END
"""
NEEDS_A_MISSING_TABLE = """
CREATE TRIGGER foreign_rule AFTER UPDATE ON executions BEGIN INSERT INTO nowhere VALUES (1); END
"""
LOGS_EACH_UPDATE = """
CREATE TRIGGER foreign_log AFTER UPDATE ON executions
BEGIN INSERT INTO updates VALUES (NEW.exec_id); END
"""


def test_a_start_makes_its_pending_execution_running(repository: Repository, path: Path) -> None:
    add_executions(path, execution_1="pending", execution_2="pending")
    batch = [run("r1")]
    assert repository.write(batch, [], refusal_of(batch)).promotion_failures == []
    assert statuses(path) == {"execution-1": "running", "execution-2": "pending"}


@pytest.mark.parametrize(
    "status", ["running", "completed", "expired", "PENDING", " pending", "cancelled", ""]
)
def test_an_execution_that_is_not_pending_is_left_alone(
    repository: Repository, path: Path, status: str
) -> None:
    add_executions(path, execution_1=status)
    ask(path, "CREATE TABLE updates (exec_id TEXT)")
    ask(path, LOGS_EACH_UPDATE)
    batch = runs(2)
    repository.write(batch, [], refusal_of(batch))
    assert statuses(path) == {"execution-1": status}
    assert count(path, "updates") == 0


def test_no_other_column_of_the_execution_changes(repository: Repository, path: Path) -> None:
    add_executions(path, execution_1="pending")
    ask(path, "UPDATE executions SET success_count = 7, failure_count = 8")
    (before,) = ask(path, "SELECT * FROM executions")
    batch = [run("r1")]
    repository.write(batch, [], refusal_of(batch))
    assert ask(path, "SELECT * FROM executions") == [(*before[:-1], "running")]


def test_an_unknown_execution_is_normal_and_is_not_made(repository: Repository, path: Path) -> None:
    batch = [run("r1", exec_id="unknown")]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.promotion_failures) == (1, [])
    assert count(path, "executions") == 0


def test_a_replayed_start_does_not_turn_a_completed_execution_back(
    repository: Repository, path: Path
) -> None:
    add_executions(path, execution_1="pending")
    batch = [run("r1")]
    repository.write(batch, [], refusal_of(batch))
    ask(path, "UPDATE executions SET status = 'completed'")
    repository.write(batch, [], refusal_of(batch))
    assert statuses(path) == {"execution-1": "completed"}


def test_a_start_whose_row_is_there_already_still_promotes(
    repository: Repository, path: Path
) -> None:
    batch = [run("r1")]
    repository.write(batch, [], refusal_of(batch))
    add_executions(path, execution_1="pending")
    assert repository.write(batch, [], refusal_of(batch)).inserted == 0
    assert statuses(path) == {"execution-1": "running"}


def test_an_empty_exec_id_promotes_nothing(repository: Repository, path: Path) -> None:
    ask(path, "INSERT INTO executions SELECT '', '', '', '', '', 1, 0, 0, 'pending'")
    batch = [run("r1", exec_id="")]
    repository.write(batch, [], refusal_of(batch))
    assert statuses(path) == {"": "pending"}


def test_an_execution_is_promoted_once_in_a_batch(
    repository: Repository, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[str] = []

    def note(connection: Connection, exec_ids: list[str]) -> None:
        named.extend(exec_ids)

    monkeypatch.setattr("repo.executions.promote_together", note)
    exec_ids = ["b", "a", "b", "", "c", "a", "b"]
    batch = [run(f"r{index}", exec_id=exec_id) for index, exec_id in enumerate(exec_ids)]
    repository.write(batch, [], refusal_of(batch))
    assert named == ["b", "a", "c"]


def test_all_executions_of_a_batch_are_promoted(repository: Repository, path: Path) -> None:
    add_executions(path, e_1="pending", e_2="expired", e_3="pending", e_4="pending")
    batch = [run("r1", exec_id="e-1"), run("r2", exec_id="e-2"), run("r3", exec_id="e-3")]
    repository.write(batch, [], refusal_of(batch))
    assert statuses(path) == {
        "e-1": "running",
        "e-2": "expired",
        "e-3": "running",
        "e-4": "pending",
    }


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("action", ["ABORT", "FAIL"])
def test_a_failing_promotion_costs_no_row_and_no_other_promotion(
    repository: Repository, path: Path, action: str, when: str
) -> None:
    add_executions(path, execution_0="pending", execution_1="pending", execution_2="pending")
    ask(path, FAILS_FOR_EXECUTION_1.format(when=when, action=action))
    batch = [run(f"r{index}", exec_id=f"execution-{index}") for index in range(3)]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused, written.rejected) == (3, 0, [])
    (failure,) = written.promotion_failures
    assert failure.exec_id == "execution-1"
    assert "frozen" in failure.reason
    assert count(path, "execution_results") == 3
    assert statuses(path) == {
        "execution-0": "running",
        "execution-1": "pending",
        "execution-2": "running",
    }


@pytest.mark.parametrize(
    "trigger",
    [FAILS_FOR_ALL.format(when="BEFORE", action="ABORT"), NEEDS_A_MISSING_TABLE],
    ids=["raise", "table"],
)
def test_a_promotion_that_fails_for_all_costs_no_row(
    repository: Repository, path: Path, trigger: str
) -> None:
    add_executions(path, execution_0="pending", execution_1="pending")
    ask(path, trigger)
    batch = [run(f"r{index}", exec_id=f"execution-{index % 2}") for index in range(4)]
    written = repository.write(batch, [], refusal_of(batch))
    assert written.inserted == 4
    assert [failure.exec_id for failure in written.promotion_failures] == [
        "execution-0",
        "execution-1",
    ]
    assert count(path, "execution_results") == 4
    assert set(statuses(path).values()) == {"pending"}


@pytest.mark.parametrize(
    "change",
    [
        "DROP TABLE executions",
        "ALTER TABLE executions RENAME COLUMN status TO state",
        "ALTER TABLE executions RENAME COLUMN exec_id TO id",
    ],
)
def test_a_missing_table_or_column_costs_no_row_and_is_reported_for_each_execution(
    repository: Repository, path: Path, change: str
) -> None:
    ask(path, change)
    batch = [run("r1", exec_id="e-1"), run("r2", exec_id="e-2"), run("r3", exec_id="")]
    written = repository.write(batch, [], refusal_of(batch))
    assert written.inserted == count(path, "execution_results") == 3
    assert [failure.exec_id for failure in written.promotion_failures] == ["e-1", "e-2"]
    assert all("no such" in failure.reason for failure in written.promotion_failures)


def test_executions_that_are_a_view_cost_no_row(repository: Repository, path: Path) -> None:
    ask(path, "ALTER TABLE executions RENAME TO foreign_executions")
    ask(path, "CREATE VIEW executions AS SELECT * FROM foreign_executions")
    batch = [run("r1")]
    written = repository.write(batch, [], refusal_of(batch))
    assert written.inserted == count(path, "execution_results") == 1
    assert [failure.exec_id for failure in written.promotion_failures] == ["execution-1"]


def test_a_batch_with_a_refused_row_promotes_only_for_the_rows_that_are_written(
    repository: Repository, path: Path
) -> None:
    add_executions(path, e_1="pending", e_2="pending", e_3="pending")
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")
    ask(
        path,
        FAILS_FOR_EXECUTION_1.format(when="BEFORE", action="ABORT").replace("execution-1", "e-3"),
    )
    batch = [
        run("r1", exec_id="e-1"),
        run("r2", exec_id="e-2", pc_id="bad"),
        run("r3", exec_id="e-3"),
    ]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (2, 1)
    assert [failure.exec_id for failure in written.promotion_failures] == ["e-3"]
    assert statuses(path) == {"e-1": "running", "e-2": "pending", "e-3": "pending"}


@pytest.mark.parametrize(
    "trigger", [FAILS_FOR_EXECUTION_1, FAILS_FOR_ALL], ids=["one execution", "all executions"]
)
def test_a_promotion_that_rolls_the_transaction_back_costs_no_row(
    repository: Repository, path: Path, trigger: str
) -> None:
    add_executions(path, execution_1="pending")
    ask(path, trigger.format(when="BEFORE", action="ROLLBACK"))
    batch = [run("r1"), run("r2", exec_id="execution-2")]
    written = repository.write(batch, [], refusal_of(batch))
    assert written.inserted == count(path, "execution_results") == 2
    assert [failure.exec_id for failure in written.promotion_failures] == ["execution-1"]


def test_no_executions_are_no_work(connection: Connection) -> None:
    with connection.write():
        assert promote(connection, []) == []
