"""Rejected events leave their table with their run, or not at all."""

import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from repo import rejected as rejected_events
from repo.errors import SchemaError, TransientError
from repo.execution_results import Run
from repo.reader import Reader
from repo.rejected import AFTER_ALL, RejectedEvent
from repo.repository import Repository
from repo.rewriting import RetryResult
from repo.sqlite.database import Connection, Database
from tests.repo.rows import (
    add_executions,
    ask,
    count,
    refuse_bad_pc,
    rejected_event,
    row_of,
    run,
    statuses,
)


def reject(connection: Connection, *events: RejectedEvent) -> None:
    rejected_events.insert_all(connection, events)


def stored(path: Path) -> list[tuple[int, str]]:
    return ask(path, "SELECT rejected_id, reason FROM rejected_events ORDER BY rejected_id")


def write_again(
    repository: Repository,
    pairs: list[tuple[RejectedEvent, Run]],
    rejected: list[RejectedEvent] | None = None,
) -> RetryResult:
    return repository.write_again(
        [run for _, run in pairs],
        rejected or [],
        lambda index, reason: pairs[index][0]._replace(reason=reason),
    )


def test_a_row_goes_in_the_transaction_that_writes_its_run_and_promotes(
    repository: Repository, connection: Connection, path: Path
) -> None:
    first, second, other = (rejected_event(number) for number in (1, 2, 3))
    reject(connection, first, second, other)
    add_executions(path, execution_1="pending")
    rewritten = write_again(repository, [(first, run("r1")), (second, run("r2"))])
    assert rewritten.removed == {first.key, second.key}
    assert (rewritten.refused, rewritten.written.inserted) == ({}, 2)
    assert stored(path) == [(3, other.reason)]
    assert count(path, "execution_results") == 2
    assert statuses(path) == {"execution-1": "running"}


def test_a_run_that_is_there_already_stays_as_it_is_and_its_event_goes(
    repository: Repository, connection: Connection, path: Path
) -> None:
    event = rejected_event()
    reject(connection, event)
    write_again(repository, [(rejected_event(9), run("r1"))])
    ask(
        path,
        "UPDATE execution_results SET finished_at = '2026-05-21T00:00:00+00:00', exit_code = 3",
    )
    before = row_of(path, "r1")
    rewritten = write_again(repository, [(event, run("r1", version="other"))])
    assert rewritten.removed == {event.key}
    assert rewritten.written.inserted == 0
    assert row_of(path, "r1") == before
    assert stored(path) == []


def test_an_event_that_is_refused_again_keeps_row_id_and_time_and_gets_the_reason_of_now(
    repository: Repository, connection: Connection, path: Path
) -> None:
    refuse_bad_pc(path)
    good, refused, malformed = (rejected_event(number) for number in (1, 2, 3))
    reject(connection, good, refused, malformed)
    rewritten = write_again(
        repository,
        [(good, run("r1")), (refused, run("r2", pc_id="bad"))],
        [malformed._replace(reason="still none", rejected_at="2030-01-01T00:00:00+00:00")],
    )
    assert rewritten.removed == {good.key}
    assert set(rewritten.refused) == {refused.key, malformed.key}
    assert "no such PC" in rewritten.refused[refused.key]
    assert stored(path) == [(2, rewritten.refused[refused.key]), (3, "still none")]
    assert ask(path, "SELECT DISTINCT rejected_at FROM rejected_events") == [
        (malformed.rejected_at,)
    ]


def test_the_same_reason_writes_nothing(connection: Connection) -> None:
    event = rejected_event()
    reject(connection, event)
    assert not rejected_events.change_reason(connection, event)
    assert rejected_events.change_reason(connection, event._replace(reason="other"))


def test_a_row_that_somebody_discarded_meanwhile_does_not_come_back(
    repository: Repository, path: Path
) -> None:
    refuse_bad_pc(path)
    gone, refused = rejected_event(1), rejected_event(2)
    rewritten = write_again(
        repository,
        [(rejected_event(3), run("r1")), (refused, run("r2", pc_id="bad"))],
        [gone],
    )
    assert rewritten.removed == frozenset()
    assert count(path, "rejected_events") == 0


def ignore(path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER foreign_rule BEFORE INSERT ON execution_results
        BEGIN SELECT RAISE(IGNORE); END
        """,
    )


def test_a_row_stays_where_a_trigger_ignores_its_run_without_a_word(
    repository: Repository, connection: Connection, path: Path
) -> None:
    event = rejected_event()
    reject(connection, event)
    ignore(path)
    with pytest.raises(SchemaError, match="took no row"):
        write_again(repository, [(event, run("r1"))])
    assert stored(path) == [(1, event.reason)]


@pytest.mark.parametrize("verb", ["ROLLBACK", "FAIL", "ABORT"])
def test_a_refused_row_costs_only_itself_however_it_is_refused(
    repository: Repository, connection: Connection, path: Path, verb: str
) -> None:
    ask(
        path,
        f"""
        CREATE TRIGGER foreign_rule AFTER INSERT ON execution_results WHEN NEW.pc_id = 'bad'
        BEGIN SELECT RAISE({verb}, 'no such PC'); END
        """,
    )
    events = [rejected_event(number) for number in range(1, 4)]
    reject(connection, *events)
    runs = [run("r1"), run("r2", pc_id="bad"), run("r3")]
    rewritten = write_again(repository, list(zip(events, runs, strict=True)))
    assert rewritten.removed == {events[0].key, events[2].key}
    assert [rejected_id for rejected_id, _ in stored(path)] == [2]
    assert ask(path, "SELECT result_id FROM execution_results ORDER BY 1") == [("r1",), ("r3",)]


def refuse_removal(path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER keep BEFORE DELETE ON rejected_events
        BEGIN SELECT RAISE(ABORT, 'kept'); END
        """,
    )


def refuse_every_run(path: Path) -> None:
    ask(
        path,
        """
        CREATE TRIGGER closed BEFORE INSERT ON execution_results
        BEGIN SELECT RAISE(ABORT, 'closed'); END
        """,
    )


@pytest.mark.parametrize("rule", [refuse_removal, refuse_every_run])
def test_without_the_removal_there_is_no_run_and_the_other_way_round(
    repository: Repository, connection: Connection, path: Path, rule: Callable[[Path], None]
) -> None:
    event = rejected_event()
    reject(connection, event)
    rule(path)
    with pytest.raises(Exception, match=r"kept|closed"):
        write_again(repository, [(event, run("r1"))])
    assert count(path, "execution_results") == 0
    assert stored(path) == [(1, event.reason)]


def test_a_lock_is_waited_for_and_then_told_with_nothing_changed(
    repository: Repository, connection: Connection, path: Path, database: Database
) -> None:
    event = rejected_event()
    reject(connection, event)
    with connection.write():
        other = Repository(
            Database(database.url, busy_timeout=0.02), retry_for=0.1, give_up=threading.Event()
        )
        with other, pytest.raises(TransientError):
            write_again(other, [(event, run("r1"))])
        with other, pytest.raises(TransientError):
            other.discard_rejected([event.key])
    assert stored(path) == [(1, event.reason)]
    assert write_again(repository, [(event, run("r1"))]).removed == {event.key}


def test_discarding_takes_the_named_messages_alone(
    repository: Repository, connection: Connection, path: Path
) -> None:
    events = [rejected_event(number) for number in range(1, 5)]
    reject(connection, *events)
    keys = [events[0].key, events[2].key, rejected_event(77).key]
    assert repository.discard_rejected(keys) == 2
    assert [rejected_id for rejected_id, _ in stored(path)] == [2, 4]
    assert repository.discard_rejected(keys) == 0


def test_a_missing_table_is_a_fault_of_the_schema(repository: Repository, path: Path) -> None:
    ask(path, "DROP TABLE rejected_events")
    with pytest.raises(SchemaError):
        repository.discard_rejected([rejected_event().key])


# --- reading --------------------------------------------------------------------------------------


def test_events_are_listed_newest_first_in_pages(
    connection: Connection, database: Database
) -> None:
    reject(connection, *(rejected_event(n, payload=b"\0" * n) for n in range(1, 8)))
    with Reader(database, retry_for=0.1) as reader:
        first = reader.read(rejected_events.list_before, AFTER_ALL, 3)
        second = reader.read(rejected_events.list_before, first[-1].rejected_id, 3)
    assert [(event.rejected_id, event.bytes) for event in first] == [(7, 7), (6, 6), (5, 5)]
    assert [event.rejected_id for event in second] == [4, 3, 2]


def test_an_event_is_found_whole(connection: Connection, path: Path, database: Database) -> None:
    event = rejected_event(payload=b"\xff\x00", subject="events.\x1b[31m", reason="[bold]")
    reject(connection, event)
    ask(
        path,
        "INSERT INTO rejected_events SELECT 2, stream, 2, recorded_at, subject, reason,"
        " rejected_at, 'text \u00fc' FROM rejected_events",
    )
    with Reader(database, retry_for=0.1) as reader:
        assert reader.read(rejected_events.find, 1) == event
        typed_in = reader.read(rejected_events.find, 2)
        assert typed_in is not None
        assert typed_in.payload == "text \u00fc".encode()
        assert reader.read(rejected_events.find, 3) is None


def test_a_reader_cannot_write(database: Database) -> None:
    with Reader(database, retry_for=0.1) as reader, pytest.raises(Exception, match="readonly"):
        reader.read(rejected_events.discard, rejected_event().key)
