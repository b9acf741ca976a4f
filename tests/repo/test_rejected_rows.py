"""A rejected row costs only itself; a schema that rejects every row costs none."""

import re
from collections.abc import Callable, Sequence

import pytest

from repo import execution_results
from repo.errors import RowRejected, SchemaError, UnavailableError
from repo.sqlite.connection import Connection
from tests.repo.rows import (
    Db,
    ignore_every_run,
    reject_bad_pc,
    reject_every_run,
    rejected_event,
    run,
    runs,
)

pytestmark = pytest.mark.every_engine


def reject_after_insert(db: Db) -> None:
    reject_bad_pc(db, "AFTER")


def reject_by_check(db: Db) -> None:
    db.ask("ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")


RULES = pytest.mark.parametrize("rule", [reject_bad_pc, reject_after_insert, reject_by_check])


# --- many runs in one statement -------------------------------------------------------------------


@pytest.mark.sqlite_only
@pytest.mark.parametrize("number", [1, 99, 100, 101, 199, 200, 350])
def test_a_batch_of_any_size_is_written_in_its_order(db: Db, number: int) -> None:
    batch = runs(number)
    assert db.write(batch).inserted == number
    stored = db.ask("SELECT result_id, pc_id FROM execution_results ORDER BY rowid")
    assert stored == [(one.result_id, one.pc_id) for one in batch]


def test_the_first_of_two_starts_of_a_run_wins_within_and_between_statements(db: Db) -> None:
    db.write([run("there", pc_id="before")])
    batch = runs(1250)
    for position in (7, 998, 1150, 1230):
        batch[position] = run("r3", pc_id=f"later-{position}")
    batch[1020] = batch[1249] = run("there", pc_id="later")
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (1244, 0)
    rows = dict(db.ask("SELECT result_id, pc_id FROM execution_results"))
    assert (rows["r3"], rows["there"], len(rows)) == ("pc-of-r3", "before", 1245)


@pytest.mark.parametrize("count", [1, 5, 6, 99, 100, 999, 1000, 1101, 2250])
def test_every_row_of_a_batch_is_written_whatever_its_size(db: Db, count: int) -> None:
    assert db.write(runs(count)).inserted == count
    assert db.ask("SELECT count(DISTINCT pc_id) FROM execution_results") == [(count,)]


@pytest.mark.sqlite_only
def test_an_engine_that_binds_few_values_inserts_row_by_row(connection: Connection, db: Db) -> None:
    connection.max_values = 899
    with connection.write():
        assert execution_results.insert_all(connection, runs(250)) == 250
    assert db.count() == 250


@pytest.mark.sqlite_only
def test_a_trigger_keeps_its_own_conflict_resolution(db: Db) -> None:
    # The engine lets the OR FAIL of a statement override the OR IGNORE of a trigger it fires.
    db.ask("CREATE TABLE seen (exec_id TEXT PRIMARY KEY)")
    db.add_trigger(
        "AFTER INSERT ON execution_results", "INSERT OR IGNORE INTO seen VALUES (NEW.exec_id)"
    )
    written = db.write(runs(250))
    assert (written.inserted, written.rejected) == (250, [])
    assert db.ask("SELECT exec_id FROM seen") == [("execution-1",)]


# --- one rejected row -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "bad"),
    [
        *((reject_bad_pc, bad) for bad in ([0], [99], [100], [3, 103, 203], [499])),
        *((reject_bad_pc, bad) for bad in (range(0, 500, 10), range(50), range(1, 500))),
        *((reject_after_insert, [123]), (reject_by_check, [123])),
    ],
)
def test_every_rejected_row_becomes_an_event_and_every_other_row_is_written(
    db: Db, rule: Callable[[Db], None], bad: Sequence[int]
) -> None:
    rule(db)
    written = db.write(runs(500, bad=bad))
    assert (written.inserted, written.rows_rejected) == (500 - len(bad), len(bad))
    assert all(re.search(db.rejection, event.reason) for event in written.rejected)
    assert db.ask("SELECT stream_sequence, payload, reason FROM rejected_events") == [
        (at + 1, f"r{at}".encode(), event.reason)
        for at, event in zip(bad, written.rejected, strict=True)
    ]
    assert db.count() == 500 - len(bad)
    assert db.ask("SELECT 1 FROM execution_results WHERE pc_id = 'bad'") == []


@pytest.mark.parametrize("column", ["result_id", "request_id", "exec_id", "pc_id", "version"])
def test_text_that_sqlite_cannot_store_costs_one_row(db: Db, column: str) -> None:
    batch = [run("r0"), run("r1")._replace(**{column: "\udfff"}), run("r2")]
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (2, 1)
    assert [event.stream_sequence for event in written.rejected] == [2]


@RULES
@pytest.mark.parametrize("size", [1, 50])
def test_a_batch_of_rejected_rows_is_rejected_if_a_plain_row_would_be_accepted(
    db: Db, rule: Callable[[Db], None], size: int
) -> None:
    rule(db)
    db.add_executions(execution_1="pending")
    written = db.write(runs(size, bad=range(size)))
    assert (written.inserted, written.rows_rejected, len(written.rejected)) == (0, size, size)
    assert db.count() == 0  # the plain row that was tried is gone
    assert db.statuses() == {"execution-1": "pending"}


def test_a_rejected_row_that_is_delivered_again_makes_no_second_event(db: Db) -> None:
    reject_bad_pc(db)
    for new in ([2, 40], []):
        written = db.write(runs(3, bad=[1]), [rejected_event(40)])
        assert (written.inserted, written.rows_rejected) == (len(new), 1)
        assert [event.stream_sequence for event in written.rejected] == new
        assert db.count("rejected_events") == 2


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
    db: Db, batch: list[execution_results.Run], rows: list[object]
) -> None:
    reject_bad_pc(db)
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (len(rows), 1)
    assert db.ask("SELECT result_id, version FROM execution_results ORDER BY 1") == rows


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
@pytest.mark.parametrize("action", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_trigger_costs_one_row_however_it_rejects_it(db: Db, when: str, action: str) -> None:
    reject_bad_pc(db, when, action)
    written = db.write(runs(5, bad=[2]))
    assert (written.inserted, written.rows_rejected) == (4, 1)
    assert db.count() == 4


@pytest.mark.sqlite_only
def test_a_row_that_an_index_expression_rejects_costs_one_row(db: Db) -> None:
    db.ask("CREATE INDEX foreign_index ON execution_results (json_extract(request_id, '$'))")
    batch = [run("r0", request_id="{}"), run("r1", request_id="{bad"), run("r2", request_id="1")]
    assert db.write(batch).rows_rejected == 1
    assert db.count() == 2


def test_a_row_that_a_trigger_drops_without_an_error_is_rejected(db: Db) -> None:
    reject_bad_pc(db, action="IGNORE")
    batch = runs(4, bad=[2])
    written = db.write(batch)
    assert (written.inserted, written.rows_rejected) == (3, 1)
    assert [event.payload for event in written.rejected] == [b"r2"]
    assert "ignored the row" in written.rejected[0].reason
    again = db.write(batch)
    assert (again.inserted, again.rows_rejected, again.rejected) == (0, 1, [])


# --- a schema that rejects every row --------------------------------------------------------------


def require_foreign_column(db: Db) -> None:
    db.require_foreign_column()


def drop_table(db: Db) -> None:
    db.ask("DROP TABLE execution_results")


def rename_column(db: Db) -> None:
    db.ask("ALTER TABLE execution_results RENAME COLUMN expires_at TO deadline")


def lose_key(db: Db) -> None:
    db.ask("CREATE TABLE copy AS SELECT * FROM execution_results")
    drop_table(db)
    db.ask("ALTER TABLE copy RENAME TO execution_results")


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize(
    "drift",
    [
        *(require_foreign_column, drop_table, rename_column, lose_key),
        *(reject_every_run, ignore_every_run),
    ],
)
def test_a_schema_that_rejects_every_row_is_a_schema_error_and_writes_nothing(
    db: Db, drift: Callable[[Db], None], size: int
) -> None:
    db.add_executions(execution_1="pending")
    drift(db)
    with pytest.raises(SchemaError) as caught:
        db.write(runs(size), [rejected_event(99)])
    assert isinstance(caught.value, UnavailableError)
    assert isinstance(caught.value.__cause__, RowRejected | SchemaError)
    assert db.count("rejected_events") == 0
    assert db.statuses() == {"execution-1": "pending"}
    if drift is not drop_table:
        assert db.count() == 0


def test_a_fixed_schema_accepts_the_same_batch(db: Db) -> None:
    db.write([run("there")])
    reject_every_run(db)
    batch = [run("there"), *runs(3)]  # an existing row does not prove that rows are accepted
    with pytest.raises(SchemaError):
        db.write(batch)
    db.drop_trigger("execution_results")
    assert db.write(batch).inserted == 3
    assert db.count("rejected_events") == 0


def test_rejected_events_that_cannot_be_stored_lose_nothing(db: Db) -> None:
    reject_bad_pc(db)
    db.ask(
        "CREATE TRIGGER closed BEFORE INSERT ON rejected_events"
        " BEGIN SELECT RAISE(ABORT, 'closed'); END"
    )
    with pytest.raises(SchemaError, match="rejected events cannot be stored") as caught:
        db.write(runs(3, bad=[1]))
    assert isinstance(caught.value.__cause__, RowRejected)
    db.ask("DROP TABLE rejected_events")
    with pytest.raises(SchemaError):
        db.write(runs(2), [rejected_event()])
    assert db.count() == 0
    assert db.write(runs(2)).inserted == 2
