"""Rejected events: stored once and as they came, retried, discarded, and read."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from repo import rejected as rejected_events
from repo.batch_writer import WriteResult
from repo.errors import SchemaError, TransientError
from repo.execution_results import START_WRITER, Run
from repo.reader import Reader
from repo.rejected import AFTER_ALL, RejectedEvent
from repo.sqlite.connection import Connection
from repo.sqlite.database import Database
from tests.repo.rows import (
    Repository,
    add_executions,
    add_trigger,
    ask,
    count,
    reject_bad_pc,
    reject_every_run,
    rejected_event,
    row_of,
    run,
    runs,
    statuses,
    write,
)


def store(connection: Connection, *events: RejectedEvent) -> None:
    rejected_events.insert_all(connection, events)


def stored(path: Path) -> list[tuple[int, str]]:
    return ask(path, "SELECT rejected_id, reason FROM rejected_events ORDER BY rejected_id")


def retry(
    repository: Repository,
    *pairs: tuple[RejectedEvent, Run],
    rejected: tuple[RejectedEvent, ...] = (),
) -> WriteResult:
    return repository.write_again(
        [run for _, run in pairs],
        rejected,
        lambda index, reason: pairs[index][0]._replace(reason=reason),
    )


# --- stored ---------------------------------------------------------------------------------------


def test_a_rejected_event_is_stored_with_every_column_in_the_transaction_of_its_batch(
    repository: Repository, path: Path
) -> None:
    event = rejected_event(7)
    written = write(repository, runs(3), [event])
    assert (written.inserted, written.rows_rejected, written.rejected) == (3, 0, [event])
    columns = ", ".join(event._fields)
    assert ask(path, f"SELECT {columns} FROM rejected_events") == [tuple(event)]
    assert count(path, "execution_results") == 3


def test_a_replayed_event_makes_no_second_row_and_is_not_new(
    repository: Repository, path: Path
) -> None:
    first, other = rejected_event(7), rejected_event(8)
    assert write(repository, [], [first, first]).rejected == [first]
    replayed = first._replace(reason="other", rejected_at="2026-06-01T00:00:00+00:00")
    assert write(repository, [], [replayed, other]).rejected == [other]
    assert ask(path, "SELECT stream_sequence, reason, rejected_at FROM rejected_events") == [
        (7, first.reason, first.rejected_at),
        (8, other.reason, other.rejected_at),
    ]


@pytest.mark.parametrize(
    "difference",
    [
        {"recorded_at": "2026-05-27T12:00:01.500+00:00"},
        {"recorded_at": "2026-05-20T12:00:01.500000001+00:00"},
        {"stream": "EVENTS2"},
        {"stream_sequence": 8},
    ],
)
def test_an_event_of_another_or_a_recreated_stream_is_a_second_row(
    repository: Repository, path: Path, difference: dict[str, object]
) -> None:
    first = rejected_event(7)
    second = first._replace(**difference)  # type: ignore[arg-type]
    write(repository, [], [first])
    assert write(repository, [], [second]).rejected == [second]
    assert count(path, "rejected_events") == 2


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", bytes(range(256)), b"\xff\xfe\xfd", "☃".encode(), b"x" * 2_000_000],
    ids=["empty", "nul", "all bytes", "no utf-8", "unicode", "long"],
)
def test_the_payload_is_stored_byte_for_byte(
    connection: Connection, path: Path, payload: bytes
) -> None:
    store(connection, rejected_event(2**63 - 1, payload=payload))
    assert ask(path, "SELECT stream_sequence, payload, typeof(payload) FROM rejected_events") == [
        (2**63 - 1, payload, "blob")
    ]


@pytest.mark.parametrize("text", ["", "with\x00nul", "☃ \U0001f600", "x" * 100_000])
def test_subject_and_reason_are_stored_unchanged(
    connection: Connection, path: Path, text: str
) -> None:
    store(connection, rejected_event(subject=text, reason=text))
    assert ask(path, "SELECT subject, reason FROM rejected_events") == [(text, text)]


def test_the_id_of_a_deleted_event_is_never_used_again(connection: Connection, path: Path) -> None:
    store(connection, rejected_event(1), rejected_event(2))
    ask(path, "DELETE FROM rejected_events")
    store(connection, rejected_event(3))
    assert stored(path) == [(3, rejected_event().reason)]


# --- retried --------------------------------------------------------------------------------------


def test_an_event_is_deleted_in_the_transaction_that_writes_its_run_and_promotes(
    repository: Repository, connection: Connection, path: Path
) -> None:
    first, second, other = (rejected_event(number) for number in (1, 2, 3))
    store(connection, first, second, other)
    add_executions(path, execution_1="pending")
    written = retry(repository, (first, run("r1")), (second, run("r2")))
    assert written.removed == {first.key, second.key}
    assert (written.still_rejected, written.inserted) == ({}, 2)
    assert stored(path) == [(3, other.reason)]
    assert count(path, "execution_results") == 2
    assert statuses(path) == {"execution-1": "running"}


def test_an_existing_run_is_left_unchanged_and_its_event_is_deleted(
    repository: Repository, connection: Connection, path: Path
) -> None:
    event = rejected_event()
    store(connection, event)
    write(repository, [run("r1")])
    ask(path, "UPDATE execution_results SET finished_at = '2026-05-21T00:00:00+00:00'")
    before = row_of(path, "r1")
    written = retry(repository, (event, run("r1", version="other")))
    assert (set(written.removed), written.inserted) == ({event.key}, 0)
    assert row_of(path, "r1") == before
    assert stored(path) == []


@pytest.mark.parametrize("action", ["ROLLBACK", "FAIL", "ABORT"])
def test_an_event_that_is_rejected_again_keeps_its_row_and_gets_its_new_reason(
    repository: Repository, connection: Connection, path: Path, action: str
) -> None:
    reject_bad_pc(path, "AFTER", action)
    good, bad, malformed = events = [rejected_event(number) for number in (1, 2, 3)]
    store(connection, *events)
    later = malformed._replace(reason="still malformed", rejected_at="2030-01-01T00:00:00+00:00")
    pairs = (good, run("r1")), (bad, run("r2", pc_id="bad"))
    written = retry(repository, *pairs, rejected=(later,))
    assert written.removed == {good.key}
    assert set(written.still_rejected) == {bad.key, malformed.key}
    assert "no such PC" in written.still_rejected[bad.key]
    assert stored(path) == [(2, written.still_rejected[bad.key]), (3, "still malformed")]
    times = ask(path, "SELECT DISTINCT rejected_at FROM rejected_events")
    assert times == [(malformed.rejected_at,)]
    assert ask(path, "SELECT result_id FROM execution_results") == [("r1",)]


def test_an_unchanged_reason_writes_nothing(connection: Connection) -> None:
    event = rejected_event()
    store(connection, event)
    assert not rejected_events.change_reason(connection, event)
    assert rejected_events.change_reason(connection, event._replace(reason="other"))


def test_an_event_that_was_discarded_meanwhile_does_not_come_back(
    repository: Repository, path: Path
) -> None:
    reject_bad_pc(path)
    pairs = (rejected_event(3), run("r1")), (rejected_event(2), run("r2", pc_id="bad"))
    assert retry(repository, *pairs, rejected=(rejected_event(1),)).removed == frozenset()
    assert count(path, "rejected_events") == 0


def ignore_every_run(path: Path) -> None:
    reject_every_run(path, "BEFORE", "IGNORE")


def keep_every_event(path: Path) -> None:
    add_trigger(path, "BEFORE DELETE ON rejected_events", "SELECT RAISE(ABORT, 'kept')")


@pytest.mark.parametrize("rule", [reject_every_run, ignore_every_run, keep_every_event])
def test_a_run_is_not_written_without_deleting_its_event_nor_the_reverse(
    repository: Repository, connection: Connection, path: Path, rule: Callable[[Path], None]
) -> None:
    event = rejected_event()
    store(connection, event)
    rule(path)
    with pytest.raises(SchemaError, match=r"closed|dropped the row|kept"):
        retry(repository, (event, run("r1")))
    assert count(path, "execution_results") == 0
    assert stored(path) == [(1, event.reason)]


def test_a_lock_that_outlasts_the_retries_is_transient_and_changes_nothing(
    repository: Repository, connection: Connection, path: Path, database: Database
) -> None:
    event = rejected_event()
    store(connection, event)
    second = Database(database.url, busy_timeout=0.02)
    other = Repository(second, START_WRITER, retry_for=0.1, give_up=threading.Event())
    with connection.write(), other:
        with pytest.raises(TransientError):
            retry(other, (event, run("r1")))
        with pytest.raises(TransientError):
            other.discard_rejected([event.key])
    assert stored(path) == [(1, event.reason)]
    assert retry(repository, (event, run("r1"))).removed == {event.key}


# --- discarded and read ---------------------------------------------------------------------------


def test_discarding_deletes_the_named_messages_only(
    repository: Repository, connection: Connection, path: Path
) -> None:
    events = [rejected_event(number) for number in range(1, 5)]
    store(connection, *events)
    keys = [events[0].key, events[2].key, rejected_event(77).key]
    assert repository.discard_rejected(keys) == 2
    assert [rejected_id for rejected_id, _ in stored(path)] == [2, 4]
    assert repository.discard_rejected(keys) == 0
    ask(path, "DROP TABLE rejected_events")
    with pytest.raises(SchemaError):
        repository.discard_rejected(keys)


def test_events_are_listed_newest_first_in_pages(
    connection: Connection, database: Database
) -> None:
    store(connection, *(rejected_event(n, payload=b"\0" * n) for n in range(1, 8)))
    with Reader(database, retry_for=0.1) as reader:
        first = reader.read(rejected_events.list_before, AFTER_ALL, 3)
        second = reader.read(rejected_events.list_before, first[-1].rejected_id, 3)
        with pytest.raises(Exception, match="readonly"):
            reader.read(rejected_events.discard, rejected_event().key)
    assert [(event.rejected_id, event.bytes) for event in first] == [(7, 7), (6, 6), (5, 5)]
    assert [event.rejected_id for event in second] == [4, 3, 2]


def test_an_event_is_read_whole(connection: Connection, path: Path, database: Database) -> None:
    event = rejected_event(payload=b"\xff\x00", subject="events.\x1b[31m", reason="[bold]")
    store(connection, event)
    ask(
        path,
        "INSERT INTO rejected_events SELECT 2, stream, 2, recorded_at, subject, reason,"
        " rejected_at, 'text \u00fc' FROM rejected_events",
    )
    with Reader(database, retry_for=0.1) as reader:
        assert reader.read(rejected_events.find, 1) == event
        inserted_as_text = reader.read(rejected_events.find, 2)
        assert inserted_as_text is not None
        assert inserted_as_text.payload == "text \u00fc".encode()
        assert reader.read(rejected_events.find, 3) is None
