"""One refused row costs one row; a schema that refuses everything costs none."""

from collections.abc import Callable
from pathlib import Path

import pytest

from repo.errors import RowRejected, SchemaError, UnavailableError
from repo.repository import Repository
from tests.repo.rows import (
    add_executions,
    ask,
    count,
    refusal_of,
    refuse_bad_pc,
    rejected_event,
    require_foreign_column,
    run,
    runs,
    statuses,
)


def refuse_by_trigger_after(path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER foreign_rule AFTER INSERT ON execution_results WHEN NEW.pc_id = 'bad'
        BEGIN SELECT RAISE(ABORT, 'no such PC'); END
        """,
    )


def refuse_by_check(path: Path) -> None:
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT CHECK (pc_id <> 'bad')")


RULES = pytest.mark.parametrize("rule", [refuse_bad_pc, refuse_by_trigger_after, refuse_by_check])


@RULES
def test_a_refused_row_in_a_batch_of_500_costs_one_row_and_becomes_a_rejected_event(
    repository: Repository, path: Path, rule: Callable[[Path], None]
) -> None:
    rule(path)
    batch = runs(500, bad=[123])
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (499, 1)
    (event,) = written.rejected
    assert (event.stream_sequence, event.payload) == (124, b"r123")
    assert "SQLITE_CONSTRAINT" in event.reason
    assert ask(path, "SELECT stream_sequence, payload, reason FROM rejected_events") == [
        (124, b"r123", event.reason)
    ]
    assert count(path, "execution_results") == 499
    assert ask(path, "SELECT 1 FROM execution_results WHERE result_id = 'r123'") == []


@pytest.mark.parametrize("bad", [[0], [499], range(0, 500, 10), range(50), range(1, 500)])
def test_every_refused_row_is_rejected_and_every_other_one_is_written(
    repository: Repository, path: Path, bad: range
) -> None:
    refuse_bad_pc(path)
    batch = runs(500, bad=bad)
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (500 - len(bad), len(bad))
    assert [event.stream_sequence for event in written.rejected] == [index + 1 for index in bad]
    assert count(path, "rejected_events") == len(bad)
    assert count(path, "execution_results") == 500 - len(bad)


def test_a_refused_row_leaves_the_batchs_own_rejected_events_in_place(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    batch = runs(3, bad=[1])
    malformed = rejected_event(40)
    written = repository.write(batch, [malformed], refusal_of(batch))
    assert written.refused == 1
    assert [event.stream_sequence for event in written.rejected] == [40, 2]
    assert count(path, "rejected_events") == 2


@pytest.mark.parametrize("column", ["result_id", "request_id", "exec_id", "pc_id", "version"])
def test_text_that_sqlite_cannot_store_costs_one_row(
    repository: Repository, path: Path, column: str
) -> None:
    batch = [run("r0"), run("r1")._replace(**{column: "\udfff"}), run("r2")]
    written = repository.write(
        batch, [], lambda index, reason: rejected_event(index, reason=reason)
    )
    assert (written.inserted, written.refused) == (2, 1)
    assert [event.stream_sequence for event in written.rejected] == [1]


@RULES
def test_a_lone_refused_row_is_rejected_where_a_plain_row_would_be_accepted(
    repository: Repository, path: Path, rule: Callable[[Path], None]
) -> None:
    rule(path)
    batch = runs(1, bad=[0])
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused, len(written.rejected)) == (0, 1, 1)
    assert count(path, "rejected_events") == 1
    assert count(path, "execution_results") == 0  # and the plain row that was tried is gone


def test_a_whole_batch_of_refused_rows_is_rejected_where_a_plain_row_would_be_accepted(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    add_executions(path, execution_1="pending")
    batch = runs(50, bad=range(50))
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (0, 50)
    assert count(path, "execution_results") == 0
    assert statuses(path) == {"execution-1": "pending"}


def test_a_refused_row_that_is_delivered_again_makes_no_second_rejected_event(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    batch = runs(3, bad=[1])
    repository.write(batch, [], refusal_of(batch))
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused, written.rejected) == (0, 1, [])
    assert count(path, "rejected_events") == 1


def test_a_result_id_twice_in_a_batch_with_a_refused_row_makes_one_row(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    batch = [run("same"), run("bad", pc_id="bad"), run("same", version="2"), run("other")]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (2, 1)
    assert ask(path, "SELECT result_id, version FROM execution_results ORDER BY 1") == [
        ("other", "1.0.0"),
        ("same", "1.0.0"),
    ]


def test_a_result_id_refused_once_and_then_accepted_is_one_row_and_one_rejected_event(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    batch = [run("same", pc_id="bad"), run("same", pc_id="good")]
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (1, 1)
    assert ask(path, "SELECT result_id, pc_id FROM execution_results") == [("same", "good")]


def drop_table(path: Path) -> None:
    ask(path, "DROP TABLE execution_results")


def rename_column(path: Path) -> None:
    ask(path, "ALTER TABLE execution_results RENAME COLUMN expires_at TO deadline")


def lose_key(path: Path) -> None:
    ask(path, "CREATE TABLE copy AS SELECT * FROM execution_results")
    ask(path, "DROP TABLE execution_results")
    ask(path, "ALTER TABLE copy RENAME TO execution_results")


def refuse_all(path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER foreign_rule AFTER INSERT ON execution_results
        BEGIN SELECT RAISE(ABORT, 'closed'); END
        """,
    )


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize(
    "drift", [require_foreign_column, drop_table, rename_column, lose_key, refuse_all]
)
def test_a_schema_that_refuses_everything_is_a_schema_fault_and_writes_nothing(
    repository: Repository, path: Path, drift: Callable[[Path], None], size: int
) -> None:
    add_executions(path, execution_1="pending")
    drift(path)
    batch = runs(size)
    with pytest.raises(SchemaError) as caught:
        repository.write(batch, [rejected_event(99)], refusal_of(batch))
    assert isinstance(caught.value, UnavailableError)
    assert isinstance(caught.value.__cause__, RowRejected | SchemaError)
    assert count(path, "rejected_events") == 0
    assert statuses(path) == {"execution-1": "pending"}
    if drift is not drop_table:
        assert count(path, "execution_results") == 0


def test_a_schema_that_is_mended_takes_the_same_batch(repository: Repository, path: Path) -> None:
    refuse_all(path)
    batch = runs(5)
    with pytest.raises(SchemaError):
        repository.write(batch, [], refusal_of(batch))
    ask(path, "DROP TRIGGER foreign_rule")
    assert repository.write(batch, [], refusal_of(batch)).inserted == 5


def test_rejected_events_that_cannot_be_stored_lose_nothing(
    repository: Repository, path: Path
) -> None:
    ask(path, "DROP TABLE rejected_events")
    batch = runs(2)
    with pytest.raises(SchemaError):
        repository.write(batch, [rejected_event()], refusal_of(batch))
    assert count(path, "execution_results") == 0
    assert repository.write(batch, [], refusal_of(batch)).inserted == 2


def test_a_refused_row_that_cannot_become_a_rejected_event_is_a_schema_fault(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    ask(
        path,
        """
        CREATE TRIGGER closed BEFORE INSERT ON rejected_events
        BEGIN SELECT RAISE(ABORT, 'closed'); END
        """,
    )
    batch = runs(3, bad=[1])
    with pytest.raises(SchemaError, match="not even a rejected event") as caught:
        repository.write(batch, [], refusal_of(batch))
    assert isinstance(caught.value.__cause__, RowRejected)
    assert count(path, "execution_results") == 0


def test_foreign_columns_indexes_and_triggers_do_no_harm(
    repository: Repository, path: Path
) -> None:
    ask(path, "ALTER TABLE execution_results ADD COLUMN site TEXT NOT NULL DEFAULT 'north'")
    ask(path, "ALTER TABLE execution_results ADD COLUMN hours AS (length(stdout)) VIRTUAL")
    ask(path, "CREATE INDEX foreign_index ON execution_results (site, version DESC)")
    ask(path, "CREATE TABLE foreign_log (result_id TEXT)")
    ask(
        path,
        """
        CREATE TRIGGER foreign_log_runs AFTER INSERT ON execution_results
        BEGIN INSERT INTO foreign_log VALUES (NEW.result_id), (NEW.result_id); END
        """,
    )
    ask(path, "ALTER TABLE executions ADD COLUMN priority INTEGER NOT NULL DEFAULT 5")
    ask(path, "CREATE UNIQUE INDEX foreign_unique ON executions (job_id, exec_id)")
    add_executions(path, execution_1="pending")
    batch = [*runs(3), run("r0")]
    assert repository.write(batch, [], refusal_of(batch)).inserted == 3
    assert ask(path, "SELECT DISTINCT site FROM execution_results") == [("north",)]
    assert count(path, "foreign_log") == 6
    assert statuses(path) == {"execution-1": "running"}


@pytest.mark.parametrize("when", ["BEFORE", "AFTER"])
def test_a_refusal_that_rolls_the_transaction_back_never_leaves_half_a_batch(
    repository: Repository, path: Path, when: str
) -> None:
    ask(
        path,
        f"""
        CREATE TRIGGER foreign_rule {when} INSERT ON execution_results WHEN NEW.pc_id = 'bad'
        BEGIN SELECT RAISE(ROLLBACK, 'no such PC'); END
        """,
    )
    batch = runs(5, bad=[2])
    try:
        written = repository.write(batch, [], refusal_of(batch))
    except UnavailableError:
        assert count(path, "execution_results") == count(path, "rejected_events") == 0
    else:
        assert (written.inserted, written.refused) == (4, 1)
        assert count(path, "execution_results") == 4


def test_a_refused_row_is_not_written_as_well(repository: Repository, path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER foreign_rule AFTER INSERT ON execution_results WHEN NEW.pc_id = 'bad'
        BEGIN SELECT RAISE(FAIL, 'no such PC'); END
        """,
    )
    batch = runs(3, bad=[1])
    assert repository.write(batch, [], refusal_of(batch)).refused == 1
    assert count(path, "execution_results") == 2


def test_a_replayed_row_is_no_proof_that_the_schema_accepts_rows(
    repository: Repository, path: Path
) -> None:
    there = [run("there")]
    repository.write(there, [], refusal_of(there))
    refuse_all(path)
    batch = [*there, *runs(3)]
    with pytest.raises(SchemaError):
        repository.write(batch, [], refusal_of(batch))
    assert count(path, "rejected_events") == 0


def test_a_row_that_a_foreign_expression_cannot_digest_costs_one_row(
    repository: Repository, path: Path
) -> None:
    ask(path, "CREATE INDEX foreign_index ON execution_results (json_extract(request_id, '$'))")
    batch = [run("r0", request_id="{}"), run("r1", request_id="{bad"), run("r2", request_id="1")]
    assert repository.write(batch, [], refusal_of(batch)).refused == 1
    assert count(path, "execution_results") == 2


def test_a_row_that_a_trigger_drops_without_a_word_is_rejected_and_the_others_are_written(
    path: Path, repository: Repository
) -> None:
    ask(
        path,
        "CREATE TRIGGER silent BEFORE INSERT ON execution_results WHEN NEW.pc_id = 'bad'"
        " BEGIN SELECT RAISE(IGNORE); END",
    )
    batch = runs(4, bad=[2])
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (3, 1)
    assert [event.payload for event in written.rejected] == [b"r2"]
    assert "took no row" in written.rejected[0].reason
    again = repository.write(batch, [], refusal_of(batch))
    assert (again.inserted, again.refused, again.rejected) == (0, 1, [])


def test_a_table_that_drops_every_row_without_a_word_is_the_places_fault(
    path: Path, repository: Repository
) -> None:
    ask(
        path,
        "CREATE TRIGGER silent BEFORE INSERT ON execution_results BEGIN SELECT RAISE(IGNORE); END",
    )
    batch = runs(3)
    with pytest.raises(SchemaError):
        repository.write(batch, [], refusal_of(batch))
    assert count(path, "rejected_events") == 0
