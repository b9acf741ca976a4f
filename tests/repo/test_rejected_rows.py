"""A rejected row costs only itself; a schema that rejects every row costs none."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from repo import execution_results
from repo.errors import RowRejected, SchemaError, UnavailableError
from repo.sqlite.connection import Connection
from tests.repo.rows import (
    Repository,
    add_executions,
    add_trigger,
    ask,
    count,
    reject_bad_pc,
    reject_every_run,
    rejected_event,
    require_foreign_column,
    run,
    runs,
    statuses,
    write,
)


def reject_after_insert(path: Path) -> None:
    reject_bad_pc(path, "AFTER")


def reject_by_check(path: Path) -> None:
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")


RULES = pytest.mark.parametrize("rule", [reject_bad_pc, reject_after_insert, reject_by_check])


# --- many runs in one statement -------------------------------------------------------------------


@pytest.mark.parametrize("number", [1, 99, 100, 101, 199, 200, 350])
def test_a_batch_of_any_size_is_written_in_its_order(
    repository: Repository, path: Path, number: int
) -> None:
    batch = runs(number)
    assert write(repository, batch).inserted == number
    stored = ask(path, "SELECT result_id, pc_id FROM execution_results ORDER BY rowid")
    assert stored == [(one.result_id, one.pc_id) for one in batch]


def test_the_first_of_two_starts_of_a_run_wins_within_and_between_statements(
    repository: Repository, path: Path
) -> None:
    write(repository, [run("there", pc_id="before")])
    batch = runs(250)
    for position in (7, 98, 150, 230):
        batch[position] = run("r3", pc_id=f"later-{position}")
    batch[120] = batch[249] = run("there", pc_id="later")
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (244, 0)
    rows = dict(ask(path, "SELECT result_id, pc_id FROM execution_results"))
    assert (rows["r3"], rows["there"], len(rows)) == ("pc-of-r3", "before", 245)


def test_an_engine_that_binds_few_values_inserts_row_by_row(
    connection: Connection, path: Path
) -> None:
    connection.max_values = 899
    with connection.write():
        assert execution_results.insert_all(connection, runs(250)) == 250
    assert count(path, "execution_results") == 250


def test_a_trigger_keeps_its_own_conflict_resolution(repository: Repository, path: Path) -> None:
    # The engine lets the OR FAIL of a statement override the OR IGNORE of a trigger it fires.
    ask(path, "CREATE TABLE seen (exec_id TEXT PRIMARY KEY)")
    add_trigger(
        path, "AFTER INSERT ON execution_results", "INSERT OR IGNORE INTO seen VALUES (NEW.exec_id)"
    )
    written = write(repository, runs(250))
    assert (written.inserted, written.rejected) == (250, [])
    assert ask(path, "SELECT exec_id FROM seen") == [("execution-1",)]


# --- one rejected row -----------------------------------------------------------------------------


@RULES
def test_a_rejected_row_in_a_batch_of_500_becomes_a_rejected_event(
    repository: Repository, path: Path, rule: Callable[[Path], None]
) -> None:
    rule(path)
    written = write(repository, runs(500, bad=[123]))
    assert (written.inserted, written.rows_rejected) == (499, 1)
    (event,) = written.rejected
    assert (event.stream_sequence, event.payload) == (124, b"r123")
    assert "SQLITE_CONSTRAINT" in event.reason
    assert ask(path, "SELECT stream_sequence, payload, reason FROM rejected_events") == [
        (124, b"r123", event.reason)
    ]
    assert count(path, "execution_results") == 499
    assert ask(path, "SELECT 1 FROM execution_results WHERE result_id = 'r123'") == []


@pytest.mark.parametrize(
    "bad", [[0], [99], [100], [3, 103, 203], [499], range(0, 500, 10), range(50), range(1, 500)]
)
def test_every_rejected_row_becomes_an_event_and_every_other_row_is_written(
    repository: Repository, path: Path, bad: Sequence[int]
) -> None:
    reject_bad_pc(path)
    written = write(repository, runs(500, bad=bad))
    assert (written.inserted, written.rows_rejected) == (500 - len(bad), len(bad))
    assert [event.stream_sequence for event in written.rejected] == [at + 1 for at in bad]
    assert count(path, "rejected_events") == len(bad)
    assert count(path, "execution_results") == 500 - len(bad)


def test_a_rejected_row_leaves_the_rejected_events_of_the_batch_in_place(
    repository: Repository, path: Path
) -> None:
    reject_bad_pc(path)
    written = write(repository, runs(3, bad=[1]), [rejected_event(40)])
    assert [event.stream_sequence for event in written.rejected] == [40, 2]
    assert count(path, "rejected_events") == 2


@pytest.mark.parametrize("column", ["result_id", "request_id", "exec_id", "pc_id", "version"])
def test_text_that_sqlite_cannot_store_costs_one_row(repository: Repository, column: str) -> None:
    batch = [run("r0"), run("r1")._replace(**{column: "\udfff"}), run("r2")]
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert [event.stream_sequence for event in written.rejected] == [2]


@RULES
@pytest.mark.parametrize("size", [1, 50])
def test_a_batch_of_rejected_rows_is_rejected_if_a_plain_row_would_be_accepted(
    repository: Repository, path: Path, rule: Callable[[Path], None], size: int
) -> None:
    rule(path)
    add_executions(path, execution_1="pending")
    written = write(repository, runs(size, bad=range(size)))
    assert (written.inserted, written.rows_rejected, len(written.rejected)) == (0, size, size)
    assert count(path, "execution_results") == 0  # the plain row that was tried is gone
    assert statuses(path) == {"execution-1": "pending"}


def test_a_rejected_row_that_is_delivered_again_makes_no_second_event(
    repository: Repository, path: Path
) -> None:
    reject_bad_pc(path)
    batch = runs(3, bad=[1])
    write(repository, batch)
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected, written.rejected) == (0, 1, [])
    assert count(path, "rejected_events") == 1


@pytest.mark.parametrize(
    ("batch", "rows"),
    [
        (
            [run("same"), run("x", pc_id="bad"), run("same", version="2"), run("other")],
            [("other", "1.0.0"), ("same", "1.0.0")],
        ),
        ([run("same", pc_id="bad"), run("same", version="2")], [("same", "2")]),
    ],
)
def test_a_result_id_that_comes_twice_beside_a_rejected_row_makes_one_row(
    repository: Repository, path: Path, batch: list[execution_results.Run], rows: list[object]
) -> None:
    reject_bad_pc(path)
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (len(rows), 1)
    assert ask(path, "SELECT result_id, version FROM execution_results ORDER BY 1") == rows


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_rejected_row_costs_only_itself_whatever_the_trigger_does_to_the_transaction(
    repository: Repository, path: Path, when: str, action: str
) -> None:
    reject_bad_pc(path, when, action)
    written = write(repository, runs(5, bad=[2]))
    assert (written.inserted, written.rows_rejected) == (4, 1)
    assert count(path, "execution_results") == 4


def test_a_row_that_an_index_expression_rejects_costs_one_row(
    repository: Repository, path: Path
) -> None:
    ask(path, "CREATE INDEX foreign_index ON execution_results (json_extract(request_id, '$'))")
    batch = [run("r0", request_id="{}"), run("r1", request_id="{bad"), run("r2", request_id="1")]
    assert write(repository, batch).rows_rejected == 1
    assert count(path, "execution_results") == 2


def test_a_row_that_a_trigger_drops_without_an_error_is_rejected(
    repository: Repository, path: Path
) -> None:
    reject_bad_pc(path, action="IGNORE")
    batch = runs(4, bad=[2])
    written = write(repository, batch)
    assert (written.inserted, written.rows_rejected) == (3, 1)
    assert [event.payload for event in written.rejected] == [b"r2"]
    assert "dropped the row" in written.rejected[0].reason
    again = write(repository, batch)
    assert (again.inserted, again.rows_rejected, again.rejected) == (0, 1, [])


# --- a schema that rejects every row --------------------------------------------------------------


def drop_table(path: Path) -> None:
    ask(path, "DROP TABLE execution_results")


def rename_column(path: Path) -> None:
    ask(path, "ALTER TABLE execution_results RENAME COLUMN expires_at TO deadline")


def lose_key(path: Path) -> None:
    ask(path, "CREATE TABLE copy AS SELECT * FROM execution_results")
    drop_table(path)
    ask(path, "ALTER TABLE copy RENAME TO execution_results")


def drop_every_row_silently(path: Path) -> None:
    reject_every_run(path, "BEFORE", "IGNORE")


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize(
    "drift",
    [
        *(require_foreign_column, drop_table, rename_column, lose_key),
        *(reject_every_run, drop_every_row_silently),
    ],
)
def test_a_schema_that_rejects_every_row_is_a_schema_error_and_writes_nothing(
    repository: Repository, path: Path, drift: Callable[[Path], None], size: int
) -> None:
    add_executions(path, execution_1="pending")
    drift(path)
    with pytest.raises(SchemaError) as caught:
        write(repository, runs(size), [rejected_event(99)])
    assert isinstance(caught.value, UnavailableError)
    assert isinstance(caught.value.__cause__, RowRejected | SchemaError)
    assert count(path, "rejected_events") == 0
    assert statuses(path) == {"execution-1": "pending"}
    if drift is not drop_table:
        assert count(path, "execution_results") == 0


def test_a_fixed_schema_accepts_the_same_batch(repository: Repository, path: Path) -> None:
    write(repository, [run("there")])
    reject_every_run(path)
    batch = [run("there"), *runs(3)]  # an existing row does not prove that rows are accepted
    with pytest.raises(SchemaError):
        write(repository, batch)
    ask(path, "DROP TRIGGER foreign_rule")
    assert write(repository, batch).inserted == 3
    assert count(path, "rejected_events") == 0


def test_rejected_events_that_cannot_be_stored_lose_nothing(
    repository: Repository, path: Path
) -> None:
    reject_bad_pc(path)
    ask(
        path,
        "CREATE TRIGGER closed BEFORE INSERT ON rejected_events"
        " BEGIN SELECT RAISE(ABORT, 'closed'); END",
    )
    with pytest.raises(SchemaError, match="rejected events cannot be stored") as caught:
        write(repository, runs(3, bad=[1]))
    assert isinstance(caught.value.__cause__, RowRejected)
    ask(path, "DROP TABLE rejected_events")
    with pytest.raises(SchemaError):
        write(repository, runs(2), [rejected_event()])
    assert count(path, "execution_results") == 0
    assert write(repository, runs(2)).inserted == 2


def test_columns_indexes_and_triggers_of_other_programs_do_no_harm(
    repository: Repository, path: Path
) -> None:
    for change in (
        "ALTER TABLE execution_results ADD COLUMN site TEXT NOT NULL DEFAULT 'north'",
        "ALTER TABLE execution_results ADD COLUMN hours AS (length(stdout)) VIRTUAL",
        "CREATE INDEX foreign_index ON execution_results (site, version DESC)",
        "CREATE TABLE foreign_log (result_id TEXT)",
        "ALTER TABLE executions ADD COLUMN priority INTEGER NOT NULL DEFAULT 5",
        "CREATE UNIQUE INDEX foreign_unique ON executions (job_id, exec_id)",
    ):
        ask(path, change)
    add_trigger(
        path,
        "AFTER INSERT ON execution_results",
        "INSERT INTO foreign_log VALUES (NEW.result_id), (NEW.result_id)",
    )
    add_executions(path, execution_1="pending")
    assert write(repository, [*runs(3), run("r0")]).inserted == 3
    assert ask(path, "SELECT DISTINCT site FROM execution_results") == [("north",)]
    assert count(path, "foreign_log") == 6
    assert statuses(path) == {"execution-1": "running"}
