"""A database is copied to another engine, and back: every row, the checkpoints last."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from repo.checkpoint import Checkpoint, CheckpointGuard, Lost, Position, record_lost
from repo.copying import Copied, copy_checkpoints, copy_tables, has_checkpoints, verify
from repo.retry import retry_policy
from tests.repo.postgresql import PostgresDb
from tests.repo.rows import Db, rejected_event, result, run, runs
from tests.support.commands import Done, run_projector
from tests.support.postgresql import cluster

COUNTS = {"executions": 3, "execution_results": 357, "rejected_events": 120}
RETRY = retry_policy(1)
CREATED = "2026-05-20T11:00:00+00:00"


@pytest.fixture
def target() -> Iterator[PostgresDb]:
    name = cluster().create_database()
    with PostgresDb(cluster(), name) as db:
        yield db
    cluster().drop_database(name)


@pytest.fixture
def filled(db: Db) -> Db:
    """A database with rows in every state, more than two pages of them."""
    db.add_executions(execution_1="running", e_2="pending", e_3="expired")
    db.write([*runs(350), run("", exec_id=""), run("☃", expires_at=None)])
    db.write([], [rejected_event(number, payload=bytes(range(256))) for number in range(120)])
    db.write_results(
        *(result(f"r{number}", exit_code=number % 3, stdout="o" * number) for number in range(150)),
        *(result(f"skipped-{number}", skipped=True, exec_id=None) for number in range(3)),
        *(result(f"child-{number}", parent_result_id="r1") for number in range(2)),
    )
    with closing(db.database.connect()) as connection, connection.write():
        for consumer in ("starts", "results"):
            position = Position("S", consumer)
            reached = Checkpoint(CREATED, 7, 9, CREATED, CREATED)
            CheckpointGuard(position).begin(connection, reached)
            record_lost(connection, position, Lost(3, 5, CREATED))
    return db


def copied(source: Db, target: Db) -> dict[str, Copied]:
    with source.database.reading() as read, closing(target.database.connect()) as written:
        tables = {table.table: table for table, _ in copy_tables(read, written, RETRY)}
        for _ in verify(read, written, tables):
            pass
        if not any(one.refused or one.different for one in tables.values()):
            copy_checkpoints(read, written)
    return tables


def content(db: Db) -> list[object]:
    orders = {"executions": 1, "execution_results": 1, "checkpoints": "1, 2"}
    found: list[object] = [
        db.ask(f"SELECT * FROM {table} ORDER BY {order}")
        for table, order in orders.items()
        if table != "checkpoints"
    ]
    columns = "stream, stream_sequence, recorded_at, subject, payload, reason, rejected_at"
    found.append(db.ask(f"SELECT {columns} FROM rejected_events ORDER BY rejected_id"))
    columns = "stream, consumer, stream_created_at, caught_up_to, last_sequence, last_stored_at"
    lost = "lost_sequences, lost_up_to, lost_at, committed_at"
    found.append(db.ask(f"SELECT {columns}, {lost} FROM checkpoints ORDER BY 1, 2"))
    return found


def test_every_row_arrives_and_comes_back_the_same(
    filled: Db, target: PostgresDb, empty: Db
) -> None:
    tables = copied(filled, target)
    assert {name: one.copied for name, one in tables.items()} == COUNTS
    assert content(target) == content(filled)
    empty.database.migrate()
    copied(target, empty)
    assert content(empty) == content(filled)


def test_the_place_of_a_copied_checkpoint_is_that_of_the_target(
    filled: Db, target: PostgresDb
) -> None:
    copied(filled, target)
    assert target.ask("SELECT DISTINCT place FROM checkpoints") == [(target.database.place(),)]


def test_a_copy_that_was_interrupted_goes_on(filled: Db, target: PostgresDb) -> None:
    with filled.database.reading() as read, closing(target.database.connect()) as written:
        steps = copy_tables(read, written, RETRY)
        for _ in range(5):
            next(steps)
        assert not has_checkpoints(written)
    assert 0 < target.count() < 357
    tables = copied(filled, target)
    assert tables["execution_results"].present > 0
    assert content(target) == content(filled)


def test_a_row_that_is_there_already_stays_and_is_reported_if_it_differs(
    filled: Db, target: PostgresDb
) -> None:
    target.write([run("r1"), run("r200")])
    tables = copied(filled, target)
    assert tables["execution_results"].different == ["r1"]  # r200 is the same in both
    assert target.row_of("r1")["finished_at"] is None
    assert target.count("checkpoints") == 0


def test_the_marks_of_a_row_that_is_there_already_stay_as_well(
    filled: Db, target: PostgresDb
) -> None:
    target.write_results(result("skipped-0", exec_id=None))
    tables = copied(filled, target)
    assert tables["execution_results"].different == ["skipped-0"]
    assert target.row_of("skipped-0")["skipped"] == 0


def test_rows_without_a_text_as_key_are_reported(filled: Db, target: PostgresDb) -> None:
    columns = "result_id, request_id, pc_id"
    filled.ask(
        f"INSERT INTO execution_results ({columns}) VALUES (NULL, 'q', 'p'), (x'00', 'q', 'p')"
    )
    refused = copied(filled, target)["execution_results"].refused
    assert refused == [("NULL", "1 rows without a key"), (repr(b"\0"), "its key is no text")]
    assert target.count("checkpoints") == 0


def test_a_text_that_the_target_cannot_store_costs_its_row_only(
    filled: Db, target: PostgresDb
) -> None:
    filled.write([run("bad\0")])
    filled.write([], [rejected_event(500, subject="s\0", reason="r\0")])
    tables = copied(filled, target)
    runs_of = tables["execution_results"]
    assert ([key for key, _ in runs_of.refused], runs_of.copied) == (["bad\0"], 357)
    assert tables["rejected_events"].copied == 121
    assert tables["rejected_events"].different == []
    assert target.ask("SELECT subject FROM rejected_events WHERE stream_sequence = 500") == [
        ("s\\x00",)
    ]


def test_a_database_of_the_fleet_without_the_later_columns_is_copied(
    fleet: Db, target: PostgresDb
) -> None:
    fleet.database.migrate()
    fleet.write(runs(3))
    tables = copied(fleet, target)
    assert (tables["execution_results"].copied, target.count()) == (fleet.count(), fleet.count())


# --- the command ----------------------------------------------------------------------------------


def command(source: Db, target: Db, *more: str) -> Done:
    return run_projector(
        *("copy", "--from", source.url, "--to", target.url), *more, cwd=Path(__file__).parent
    )


def test_the_command_copies_once(filled: Db, target: PostgresDb) -> None:
    done = command(filled, target)
    assert (done.code, "357 copied" in done.output) == (0, True), done
    assert content(target) == content(filled)
    again = command(filled, target)
    assert again.code == 64
    assert "was completed" in again.errors


def test_the_command_lists_what_keeps_it_from_completing(filled: Db, target: PostgresDb) -> None:
    filled.write([run("bad\0")])
    done = command(filled, target, "--json")
    assert (done.code, done.document["checkpoints"]) == (1, 0)
    (table,) = [one for one in done.document["tables"] if one["refused"]]
    assert (table["table"], table["refused"][0][0]) == ("execution_results", "bad\0")
    assert "not taken: execution_results bad\\x00" in command(filled, target).output


def test_the_command_says_how_many_more_it_could_list(filled: Db, target: PostgresDb) -> None:
    filled.write([run(f"bad{number}\0") for number in range(30)])
    output = command(filled, target).output
    assert output.count("not taken:") == 20
    assert "and 10 more in execution_results" in output


def test_the_command_needs_the_tables_and_two_databases(
    filled: Db, tmp_path: Path, target: PostgresDb
) -> None:
    assert command(filled, filled).code == 64
    missing = Db(tmp_path / "missing.db")
    assert command(missing, target).code == 78
