"""The checkpoint: advanced with each batch, and proof that a file's content did not go back."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from repo import executions, open_database
from repo.checkpoint import Checkpoint, CheckpointGuard, Lost, Position
from repo.errors import SchemaError, UnavailableError
from repo.execution_results import START_WRITER, Run
from repo.reaper import Reaping
from repo.repository import GuardedRepository, Sweep
from tests.repo.rows import Db, reject_bad_pc, reject_of, rejected_event, run, runs

pytestmark = pytest.mark.every_engine

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"
Guarded = GuardedRepository[Run]
Open = Callable[..., Guarded]


def at(sequence: int, caught_up_to: int = 0, created: str = CREATED) -> Checkpoint:
    return Checkpoint(created, caught_up_to, sequence, f"stored {sequence}", NOW)


def stored(db: Db) -> list[tuple[object, ...]]:
    """Return the columns of each checkpoint that `at` takes."""
    return db.ask("SELECT last_sequence, caught_up_to, stream_created_at FROM checkpoints")


def begin(repository: Guarded, created: str = CREATED, *, start_over: bool = False) -> Checkpoint:
    return repository.begin(repository.recall(), created, NOW, start_over=start_over)


@pytest.fixture
def open_guarded(db: Db) -> Iterator[Open]:
    """Return a function that opens the repository of another process's worker."""
    with ExitStack() as stack:

        def opened(created: str | None = CREATED, consumer: str = "projector") -> Guarded:
            guard, stop = CheckpointGuard(Position("EVENTS", consumer)), threading.Event()
            repository = stack.enter_context(
                Guarded(db.database, START_WRITER, retry_for=0.1, give_up=stop, guard=guard)
            )
            if created:
                begin(repository, created)
            return repository

        yield opened


@pytest.fixture
def begun(open_guarded: Open) -> Guarded:
    return open_guarded()


def advance(repository: Guarded, reached: Checkpoint, *result_ids: str) -> None:
    batch = [run(result_id, pc_id=result_id) for result_id in result_ids]
    repository.write(batch, [], reject_of(batch), reached)


def test_a_database_without_a_checkpoint_begins_at_the_streams_start(
    open_guarded: Open, db: Db
) -> None:
    db.write(runs(1), [rejected_event()])
    repository = open_guarded(None)
    assert repository.recall().stored is None
    assert begin(repository) == Checkpoint(CREATED, committed_at=NOW)


def test_a_batch_advances_the_checkpoint_in_its_own_transaction(db: Db, begun: Guarded) -> None:
    advance(begun, at(7, 3), "r1")
    (row,) = db.ask("SELECT * FROM checkpoints")
    assert row[:6] == ("EVENTS", "projector", CREATED, 3, 7, "stored 7")
    assert row[7:] == (1, NOW, 0, 0, None)
    db.ask("DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        advance(begun, at(9, 9), "r2")
    assert stored(db) == [(7, 3, CREATED)]


def test_a_batch_with_a_rejected_row_advances_the_checkpoint_too(db: Db, begun: Guarded) -> None:
    reject_bad_pc(db)
    advance(begun, at(3), "r1", "bad", "r2")
    assert (stored(db), db.result_ids()) == ([(3, 0, CREATED)], ["r1", "r2"])


def test_a_checkpoint_never_goes_back_by_itself(db: Db, begun: Guarded) -> None:
    advance(begun, at(9, 5), "r1")
    advance(begun, at(4, 2), "late")
    assert begin(begun)[:4] == at(9, 5)[:4]
    assert stored(db) == [(9, 5, CREATED)]


def test_a_checkpoint_starts_over_when_the_stream_went_back(db: Db, begun: Guarded) -> None:
    advance(begun, at(9, 5), "r1")
    assert begin(begun, start_over=True) == Checkpoint(CREATED, committed_at=NOW)
    advance(begun, at(3, 2), "r2")
    assert stored(db) == [(3, 2, CREATED)]


def test_a_checkpoint_that_another_worker_has_moved_is_not_started_over(
    db: Db, begun: Guarded, open_guarded: Open
) -> None:
    advance(begun, at(9, 5), "r1")
    recalled = begun.recall()
    advance(open_guarded(), at(10, 10), "r2")
    checkpoint = begun.begin(recalled, CREATED, NOW, start_over=True)
    assert checkpoint[:3] == (CREATED, 10, 10)


def test_a_checkpoint_starts_over_for_a_recreated_stream_and_late_rows_are_still_written(
    db: Db, begun: Guarded, open_guarded: Open
) -> None:
    advance(begun, at(9, 5), "r1")
    open_guarded(RECREATED)
    advance(begun, at(10, 9), "outstanding in a worker that does not know of it yet")
    assert stored(db) == [(0, 0, RECREATED)]
    begin(begun, RECREATED)
    advance(begun, at(12, 11), "late, of the former stream")
    assert stored(db) == [(0, 0, RECREATED)]
    advance(begun, at(1, 0, RECREATED), "r2")
    assert stored(db) == [(1, 0, RECREATED)]
    assert db.count() == 4


def test_lost_sequences_are_added_up_and_survive_a_new_start(db: Db, begun: Guarded) -> None:
    begun.advance(at(0, 20), Lost(10, 20, NOW))
    begun.advance(at(0, 35), Lost(5, 35, RECREATED))
    begin(begun, start_over=True)
    recalled = begun.recall()
    assert recalled.stored
    assert recalled.stored.lost == Lost(15, 35, RECREATED)


def test_two_workers_advance_one_checkpoint(db: Db, begun: Guarded, open_guarded: Open) -> None:
    other = open_guarded()
    advance(begun, at(500), "r1")
    advance(other, at(1000), "r2")
    advance(begun, at(700), "r3")
    assert stored(db) == [(1000, 0, CREATED)]


def test_consumers_have_independent_checkpoints(db: Db, begun: Guarded, open_guarded: Open) -> None:
    advance(begun, at(5), "r1")
    assert open_guarded(None, "another").recall().stored is None
    open_guarded(consumer="another")
    assert db.ask("SELECT stream, consumer, last_sequence FROM checkpoints") == [
        ("EVENTS", "projector", 5),
        ("EVENTS", "another", 0),
    ]


def test_nothing_is_written_before_the_checkpoint_was_read(db: Db, open_guarded: Open) -> None:
    open_guarded()
    with pytest.raises(UnavailableError, match="not been read"):
        advance(open_guarded(None), at(1), "r1")
    assert db.count() == 0


@pytest.mark.sqlite_only
def test_nothing_is_written_to_a_file_that_took_the_place_of_another(
    db: Db, begun: Guarded
) -> None:
    copy = Path(shutil.copyfile(db.path, db.path.with_name("copy.db")))
    advance(begun, at(1), "r1")
    copy.replace(db.path)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"replaced|not the one"):
            advance(begun, at(2), "r2")
    begin(begun)
    advance(begun, at(3), "r3")
    assert db.result_ids() == ["r3"]
    # The log of the former file is kept, and was not taken for the new file's own.
    assert len(list(db.path.parent.glob("projector.db-wal-of-*"))) == 1


@pytest.mark.sqlite_only
def test_a_file_that_is_replaced_while_its_checkpoint_is_read_is_refused(
    db: Db, begun: Guarded
) -> None:
    recalled = begun.recall()
    copy = Path(shutil.copyfile(db.path, db.path.with_name("copy.db")))
    begun.close()
    copy.replace(db.path)
    with pytest.raises(UnavailableError, match="replaced"):
        begun.begin(recalled, CREATED, NOW, start_over=False)


def test_a_checkpoint_that_is_deleted_under_the_worker_is_noticed(db: Db, begun: Guarded) -> None:
    advance(begun, at(1), "r1")
    db.ask("DELETE FROM checkpoints")
    with pytest.raises(UnavailableError, match="not the one"):
        advance(begun, at(2), "r2")
    assert db.count() == 1


def test_an_older_copy_in_the_open_file_is_noticed_although_the_batch_is_older_still(
    db: Db, begun: Guarded
) -> None:
    advance(begun, at(9, 5), "r1")
    db.ask("UPDATE checkpoints SET commits = commits - 1")
    with pytest.raises(UnavailableError, match="older copy"):
        advance(begun, at(3), "r2")


@pytest.mark.sqlite_only
def test_a_copy_that_was_put_in_place_is_refused_by_every_worker_until_it_is_begun(
    db: Db, begun: Guarded, open_guarded: Open
) -> None:
    idle = open_guarded()
    advance(begun, at(9, 5), "r1")
    db.ask("PRAGMA wal_checkpoint(TRUNCATE)")
    copy = Path(shutil.copyfile(db.path, db.path.with_name("copy.db")))
    begun.close()
    idle.close()
    copy.replace(db.path)
    for worker in (idle, begun):
        with pytest.raises(UnavailableError, match="not the one"):
            advance(worker, at(20, 19), "r2")
    begin(begun)
    advance(idle, at(21, 5), "r3")
    assert stored(db) == [(21, 5, CREATED)]


@pytest.mark.sqlite_only
def test_two_hard_links_to_one_file_are_two_places(db: Db) -> None:
    link = db.path.with_name("link.db")
    link.hardlink_to(db.path)
    first, second = open_database(f"sqlite:///{db.path}"), open_database(f"sqlite:///{link}")
    assert first.place() != second.place()


def test_upkeep_changes_only_a_database_that_was_caught_up(db: Db, open_guarded: Open) -> None:
    db.write([run("r1")])
    db.add_executions(old="pending")
    before = db.row_of("r1"), db.statuses()
    repository = open_guarded(None)
    changes: list[Callable[[], object]] = [
        lambda: repository.reap(Reaping(NOW, NOW, NOW)),
        lambda: repository.sweep(Sweep(old_before=NOW)),
        lambda: repository.delete_old(executions.delete_old, NOW),
    ]
    for change in changes:
        with pytest.raises(UnavailableError, match="the checkpoint has not been read"):
            change()
    assert (db.row_of("r1"), db.statuses()) == before
    begin(repository)
    for change in changes[:2]:
        change()
    assert (db.row_of("r1")["reaped"], db.statuses()) == (1, {"old": "expired"})
    changes[2]()
    assert db.statuses() == {}
