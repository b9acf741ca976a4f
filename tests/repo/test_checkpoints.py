"""The checkpoint: advanced with each batch, and proof that a file's content did not go back."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from repo.checkpoint import Checkpoint, CheckpointGuard, Position
from repo.errors import SchemaError, UnavailableError
from repo.execution_results import START_WRITER, Run
from tests.repo.rows import (
    Db,
    GuardedRepository,
    reject_bad_pc,
    reject_of,
    rejected_event,
    run,
    runs,
)

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"
POSITION = Position("EVENTS", "projector")

Open = Callable[..., GuardedRepository]


def at(highest: int, caught_up_to: int = 0, created: str = CREATED) -> Checkpoint:
    return Checkpoint(created, highest, caught_up_to, NOW)


def stored(db: Db) -> list[tuple[object, ...]]:
    """Return the columns of each checkpoint that `at` takes."""
    return db.ask("SELECT highest_sequence, caught_up_to, stream_created_at FROM checkpoints")


@pytest.fixture
def open_guarded(db: Db) -> Iterator[Open]:
    """Return a function that opens the repository of another process's worker."""
    with ExitStack() as stack:

        def opened(position: Position = POSITION) -> GuardedRepository:
            guard, give_up = CheckpointGuard(position), threading.Event()
            repository = GuardedRepository(
                db.database, START_WRITER, retry_for=0.1, give_up=give_up, guard=guard
            )
            return stack.enter_context(repository)

        yield opened


@pytest.fixture
def begun(open_guarded: Open) -> GuardedRepository:
    repository = open_guarded()
    repository.begin(at(0), repository.recall())
    return repository


def advance(repository: GuardedRepository, reached: Checkpoint, *result_ids: str) -> None:
    write_batch(repository, reached, [run(result_id) for result_id in result_ids])


def write_batch(repository: GuardedRepository, reached: Checkpoint, batch: list[Run]) -> None:
    repository.write(batch, [], reject_of(batch), reached)


@pytest.mark.parametrize(("batch", "rejected"), [(0, 0), (1, 0), (0, 1)])
def test_a_file_without_a_checkpoint_may_have_rows_of_another_program(
    open_guarded: Open, db: Db, batch: int, rejected: int
) -> None:
    db.write(runs(batch), [rejected_event()] * rejected)
    recalled = open_guarded().recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, bool(batch or rejected))


def test_a_batch_advances_the_checkpoint_in_its_own_transaction(
    db: Db, begun: GuardedRepository
) -> None:
    advance(begun, at(7, 3), "r1")
    assert db.ask("SELECT * FROM checkpoints") == [(*POSITION, CREATED, 7, 3, NOW)]
    db.ask("DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        advance(begun, at(9, 9), "r2")
    assert stored(db) == [(7, 3, CREATED)]


def test_a_batch_with_a_rejected_row_advances_the_checkpoint_too(
    db: Db, begun: GuardedRepository
) -> None:
    reject_bad_pc(db)
    write_batch(begun, at(3, 0), runs(3, bad=[1]))
    assert stored(db) == [(3, 0, CREATED)]


def test_a_checkpoint_never_goes_back(db: Db, begun: GuardedRepository) -> None:
    advance(begun, at(9, 5), "r1")
    advance(begun, at(4, 2), "late")
    begun.begin(at(1, 1), begun.recall())
    assert stored(db) == [(9, 5, CREATED)]


def test_a_checkpoint_is_reset_for_a_recreated_stream(db: Db, begun: GuardedRepository) -> None:
    advance(begun, at(9, 5), "r1")
    begun.begin(at(0, 0, RECREATED), begun.recall())
    assert stored(db) == [(0, 0, RECREATED)]
    advance(begun, at(12, 11), "late, of the former stream")
    assert stored(db) == [(0, 0, RECREATED)]
    advance(begun, at(1, 0, RECREATED), "r2")
    assert stored(db) == [(1, 0, RECREATED)]
    assert db.count() == 3


def test_a_worker_that_does_not_know_the_recreated_stream_yet_still_writes_its_rows(
    db: Db, begun: GuardedRepository, open_guarded: Open
) -> None:
    advance(begun, at(9, 5), "r1")
    other = open_guarded()
    other.begin(at(0, 0, RECREATED), other.recall())
    advance(begun, at(10, 9), "outstanding")
    assert db.count() == 2
    assert stored(db) == [(0, 0, RECREATED)]


def test_two_workers_advance_one_checkpoint(
    db: Db, begun: GuardedRepository, open_guarded: Open
) -> None:
    other = open_guarded()
    other.begin(at(0), other.recall())
    advance(begun, at(500), "r1")
    advance(other, at(1000), "r2")
    advance(begun, at(700), "r3")
    assert stored(db) == [(1000, 0, CREATED)]


def test_checkpoints_of_several_consumers_are_independent(
    db: Db, begun: GuardedRepository, open_guarded: Open
) -> None:
    advance(begun, at(5), "r1")
    other = open_guarded(Position("EVENTS", "another"))
    recalled = other.recall()
    assert recalled.checkpoint is None
    other.begin(at(1), recalled)
    assert db.ask("SELECT stream, consumer, highest_sequence FROM checkpoints") == [
        ("EVENTS", "projector", 5),
        ("EVENTS", "another", 1),
    ]


def test_nothing_is_written_before_the_file_was_compared(db: Db, open_guarded: Open) -> None:
    with pytest.raises(UnavailableError, match="not compared"):
        advance(open_guarded(), at(1), "r1")
    assert db.count() == 0


def test_nothing_is_written_to_a_file_that_replaced_the_compared_one(
    db: Db, begun: GuardedRepository, tmp_path: Path
) -> None:
    copy = Path(shutil.copyfile(db.path, tmp_path / "copy.db"))
    advance(begun, at(1), "r1")
    copy.replace(db.path)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"replaced|not compared"):
            advance(begun, at(2), "r2")
    recalled = begun.recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, False)
    begun.begin(at(0), recalled)
    advance(begun, at(3), "r3")
    assert db.result_ids() == ["r3"]
    # The log of the former file is kept, and was not taken for the new file's own.
    assert len(list(db.path.parent.glob("projector.db-wal-of-*"))) == 1


def test_a_file_that_is_replaced_while_it_is_compared_is_not_begun(
    db: Db, begun: GuardedRepository, tmp_path: Path
) -> None:
    recalled = begun.recall()
    copy = Path(shutil.copyfile(db.path, tmp_path / "copy.db"))
    begun.close()
    copy.replace(db.path)
    with pytest.raises(UnavailableError, match="replaced"):
        begun.begin(at(0), recalled)


def test_an_older_copy_that_is_restored_into_the_open_file_is_noticed(
    db: Db, begun: GuardedRepository, tmp_path: Path
) -> None:
    advance(begun, at(1), "r1")
    with (
        closing(sqlite3.connect(db.path)) as live,
        closing(sqlite3.connect(tmp_path / "yesterday.db")) as yesterday,
    ):
        live.backup(yesterday)
        advance(begun, at(2), "r2")
        yesterday.backup(live)
    with pytest.raises(UnavailableError, match="went back"):
        advance(begun, at(3), "r3")
    assert db.result_ids() == ["r1"]


def test_a_checkpoint_that_is_deleted_under_the_worker_is_noticed(
    db: Db, begun: GuardedRepository
) -> None:
    advance(begun, at(1), "r1")
    db.ask("DELETE FROM checkpoints")
    with pytest.raises(UnavailableError, match="went back"):
        advance(begun, at(2), "r2")
    assert db.count() == 1
