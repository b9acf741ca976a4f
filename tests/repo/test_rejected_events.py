"""Rejected events: stored once and as they came, retried, discarded, and read."""

from collections.abc import Callable

import pytest

from repo import rejected as rejected_events
from repo.batch_writer import WriteResult
from repo.errors import SchemaError
from repo.execution_results import Run
from repo.reader import Reader
from repo.rejected import RejectedEvent
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


def stored(db: Db) -> list[tuple[int, str]]:
    return db.ask("SELECT rejected_id, reason FROM rejected_events ORDER BY rejected_id")


def retry(
    db: Db, *pairs: tuple[RejectedEvent, Run], rejected: tuple[RejectedEvent, ...] = ()
) -> WriteResult:
    return db.repository.write_again(
        [run for _, run in pairs],
        rejected,
        lambda index, reason: pairs[index][0]._replace(reason=reason),
    )


# --- stored ---------------------------------------------------------------------------------------


def test_a_rejected_event_is_stored_with_every_column_beside_the_runs_of_its_batch(db: Db) -> None:
    event = rejected_event(7)
    written = db.write(runs(3), [event])
    assert (written.inserted, written.rows_rejected, written.rejected) == (3, 0, [event])
    columns = ", ".join(event._fields)
    assert db.ask(f"SELECT {columns} FROM rejected_events") == [tuple(event)]
    assert db.count() == 3


def test_a_replayed_event_makes_no_second_row_and_is_not_new(db: Db) -> None:
    first, other = rejected_event(7), rejected_event(8)
    assert db.write([], [first, first]).rejected == [first]
    replayed = first._replace(reason="other", rejected_at="2026-06-01T00:00:00+00:00")
    assert db.write([], [replayed, other]).rejected == [other]
    assert db.ask("SELECT stream_sequence, reason, rejected_at FROM rejected_events") == [
        (7, first.reason, first.rejected_at),
        (8, other.reason, other.rejected_at),
    ]


def test_an_event_of_another_or_a_recreated_stream_is_another_row(db: Db) -> None:
    first = rejected_event(7)
    others = [
        first._replace(recorded_at="2026-05-27T12:00:01.500+00:00"),
        first._replace(recorded_at="2026-05-20T12:00:01.500000001+00:00"),
        first._replace(stream="EVENTS2"),
        first._replace(stream_sequence=8),
    ]
    assert db.write([], [first]).rejected == [first]
    assert set(db.write([], others).rejected) == set(others)
    assert db.count("rejected_events") == 5


@pytest.mark.parametrize("text", ["", "with\x00nul", "☃ \U0001f600", "x" * 100_000], ids=range(4))
@pytest.mark.parametrize(
    "payload", [b"", b"\x00", bytes(range(256)), b"\xff\xfe", b"x" * 2_000_000], ids=range(5)
)
def test_subject_reason_and_payload_are_stored_unchanged(db: Db, payload: bytes, text: str) -> None:
    db.write([], [rejected_event(2**63 - 1, subject=text, reason=text, payload=payload)])
    columns = "stream_sequence, subject, reason, payload, typeof(payload)"
    stored = db.ask(f"SELECT {columns} FROM rejected_events")
    assert stored == [(2**63 - 1, db.shown(text), db.shown(text), payload, "blob")]


def test_the_id_of_a_deleted_event_is_never_used_again(db: Db) -> None:
    db.write([], [rejected_event(1), rejected_event(2)])
    db.ask("DELETE FROM rejected_events")
    db.write([], [rejected_event(3)])
    assert stored(db) == [(3, rejected_event().reason)]


# --- retried --------------------------------------------------------------------------------------


def test_an_event_is_deleted_in_the_transaction_of_its_run(db: Db) -> None:
    first, second, other = (rejected_event(number) for number in (1, 2, 3))
    db.write([], [first, second, other])
    db.add_executions(execution_1="pending")
    written = retry(db, (first, run("r1")), (second, run("r2")))
    assert written.removed == {first.key, second.key}
    assert (written.still_rejected, written.inserted) == ({}, 2)
    assert stored(db) == [(3, other.reason)]
    assert db.count() == 2
    assert db.statuses() == {"execution-1": "running"}


@pytest.mark.parametrize("action", ["ROLLBACK", "FAIL", "ABORT"])
def test_an_event_that_is_rejected_again_keeps_its_row_and_gets_its_new_reason(
    db: Db, action: str
) -> None:
    reject_bad_pc(db, "AFTER", action)
    good, bad, malformed = events = [rejected_event(number) for number in (1, 2, 3)]
    db.write([], events)
    later = malformed._replace(reason="still malformed", rejected_at="2030-01-01T00:00:00+00:00")
    pairs = (good, run("r1")), (bad, run("r2", pc_id="bad"))
    written = retry(db, *pairs, rejected=(later,))
    assert written.removed == {good.key}
    assert set(written.still_rejected) == {bad.key, malformed.key}
    assert "no such PC" in written.still_rejected[bad.key]
    assert stored(db) == [(2, written.still_rejected[bad.key]), (3, "still malformed")]
    times = db.ask("SELECT DISTINCT rejected_at FROM rejected_events")
    assert times == [(malformed.rejected_at,)]
    assert db.result_ids() == ["r1"]


def test_an_unchanged_reason_writes_nothing(connection: Connection, db: Db) -> None:
    event = rejected_event()
    db.write([], [event])
    assert not rejected_events.change_reason(connection, event)
    assert rejected_events.change_reason(connection, event._replace(reason="other"))


def test_an_event_that_was_discarded_meanwhile_does_not_come_back(db: Db) -> None:
    reject_bad_pc(db)
    pairs = (rejected_event(3), run("r1")), (rejected_event(2), run("r2", pc_id="bad"))
    assert retry(db, *pairs, rejected=(rejected_event(1),)).removed == frozenset()
    assert db.count("rejected_events") == 0


def keep_every_event(db: Db) -> None:
    db.add_trigger("BEFORE DELETE ON rejected_events", "SELECT RAISE(ABORT, 'kept')")


@pytest.mark.parametrize("rule", [reject_every_run, ignore_every_run, keep_every_event])
def test_a_run_is_not_written_without_deleting_its_event_nor_the_reverse(
    db: Db, rule: Callable[[Db], None]
) -> None:
    event = rejected_event()
    db.write([], [event])
    rule(db)
    with pytest.raises(SchemaError, match=r"closed|ignored the row|kept"):
        retry(db, (event, run("r1")))
    assert db.count() == 0
    assert stored(db) == [(1, event.reason)]


def test_events_without_their_table_cannot_be_discarded(db: Db) -> None:
    db.ask("DROP TABLE rejected_events")
    with pytest.raises(SchemaError):
        db.repository.discard_rejected([rejected_event().key])


def test_a_payload_that_another_program_inserted_as_text_is_read_as_bytes(db: Db) -> None:
    event = rejected_event(payload=b"x")
    db.write([], [event])
    db.ask("UPDATE rejected_events SET payload = 'text \u00fc'")
    with Reader(db.database, retry_for=0.1) as reader:
        expected = event._replace(payload="text \u00fc".encode())
        assert reader.read(rejected_events.find, 1) == expected
        assert reader.read(rejected_events.find, 2) is None
