"""The checkpoint: advanced with each batch, and proof that a file's content did not go back."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from repo.checkpoint import Checkpoint, CheckpointGuard, Position
from repo.errors import SchemaError, UnavailableError
from repo.execution_results import START_WRITER, Run
from repo.repository import GuardedRepository
from tests.repo.rows import Db, reject_bad_pc, reject_of, rejected_event, run, runs

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"
Guarded = GuardedRepository[Run]
Open = Callable[..., Guarded]


def at(highest: int, caught_up_to: int = 0, created: str = CREATED) -> Checkpoint:
    return Checkpoint(created, highest, caught_up_to, NOW)


def stored(db: Db) -> list[tuple[object, ...]]:
    """Return the columns of each checkpoint that `at` takes."""
    return db.ask("SELECT highest_sequence, caught_up_to, stream_created_at FROM checkpoints")


@pytest.fixture
def open_guarded(db: Db) -> Iterator[Open]:
    """Return a function that opens the repository of another process's worker."""
    with ExitStack() as stack:

        def opened(begin_at: Checkpoint | None = None, consumer: str = "projector") -> Guarded:
            guard, stop = CheckpointGuard(Position("EVENTS", consumer)), threading.Event()
            repository = stack.enter_context(
                Guarded(db.database, START_WRITER, retry_for=0.1, give_up=stop, guard=guard)
            )
            if begin_at:
                repository.begin(begin_at, repository.recall())
            return repository

        yield opened


@pytest.fixture
def begun(open_guarded: Open) -> Guarded:
    return open_guarded(at(0))


def advance(repository: Guarded, reached: Checkpoint, *result_ids: str) -> None:
    batch = [run(result_id, pc_id=result_id) for result_id in result_ids]
    repository.write(batch, [], reject_of(batch), reached)


@pytest.mark.parametrize(("batch", "rejected"), [(0, 0), (1, 0), (0, 1)])
def test_a_file_without_a_checkpoint_may_have_rows_of_another_program(
    open_guarded: Open, db: Db, batch: int, rejected: int
) -> None:
    db.write(runs(batch), [rejected_event()] * rejected)
    recalled = open_guarded().recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, bool(batch or rejected))


def test_a_batch_advances_the_checkpoint_in_its_own_transaction(db: Db, begun: Guarded) -> None:
    advance(begun, at(7, 3), "r1")
    assert db.ask("SELECT * FROM checkpoints") == [("EVENTS", "projector", CREATED, 7, 3, NOW)]
    db.ask("DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        advance(begun, at(9, 9), "r2")
    assert stored(db) == [(7, 3, CREATED)]


def test_a_batch_with_a_rejected_row_advances_the_checkpoint_too(db: Db, begun: Guarded) -> None:
    reject_bad_pc(db)
    advance(begun, at(3), "r1", "bad", "r2")
    assert (stored(db), db.result_ids()) == ([(3, 0, CREATED)], ["r1", "r2"])


def test_a_checkpoint_never_goes_back(db: Db, begun: Guarded) -> None:
    advance(begun, at(9, 5), "r1")
    advance(begun, at(4, 2), "late")
    begun.begin(at(1, 1), begun.recall())
    assert stored(db) == [(9, 5, CREATED)]


def test_a_checkpoint_is_reset_for_a_recreated_stream_and_late_rows_are_still_written(
    db: Db, begun: Guarded, open_guarded: Open
) -> None:
    advance(begun, at(9, 5), "r1")
    open_guarded(at(0, 0, RECREATED))
    advance(begun, at(10, 9), "outstanding in a worker that does not know of it yet")
    assert stored(db) == [(0, 0, RECREATED)]
    begun.begin(at(0, 0, RECREATED), begun.recall())
    advance(begun, at(12, 11), "late, of the former stream")
    assert stored(db) == [(0, 0, RECREATED)]
    advance(begun, at(1, 0, RECREATED), "r2")
    assert stored(db) == [(1, 0, RECREATED)]
    assert db.count() == 4


def test_two_workers_advance_one_checkpoint(db: Db, begun: Guarded, open_guarded: Open) -> None:
    other = open_guarded(at(0))
    advance(begun, at(500), "r1")
    advance(other, at(1000), "r2")
    advance(begun, at(700), "r3")
    assert stored(db) == [(1000, 0, CREATED)]


def test_consumers_have_independent_checkpoints(db: Db, begun: Guarded, open_guarded: Open) -> None:
    advance(begun, at(5), "r1")
    assert open_guarded(consumer="another").recall().checkpoint is None
    open_guarded(at(1), "another")
    assert db.ask("SELECT stream, consumer, highest_sequence FROM checkpoints") == [
        ("EVENTS", "projector", 5),
        ("EVENTS", "another", 1),
    ]


def test_nothing_is_written_before_the_file_was_compared(db: Db, open_guarded: Open) -> None:
    with pytest.raises(UnavailableError, match="not been compared"):
        advance(open_guarded(), at(1), "r1")
    assert db.count() == 0


def test_nothing_is_written_to_a_file_that_replaced_the_compared_one(
    db: Db, begun: Guarded
) -> None:
    copy = Path(shutil.copyfile(db.path, db.path.with_name("copy.db")))
    advance(begun, at(1), "r1")
    copy.replace(db.path)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"replaced|not been compared"):
            advance(begun, at(2), "r2")
    recalled = begun.recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, False)
    begun.begin(at(0), recalled)
    advance(begun, at(3), "r3")
    assert db.result_ids() == ["r3"]
    # The log of the former file is kept, and was not taken for the new file's own.
    assert len(list(db.path.parent.glob("projector.db-wal-of-*"))) == 1


def test_a_file_that_is_replaced_while_it_is_compared_is_not_begun(db: Db, begun: Guarded) -> None:
    recalled = begun.recall()
    copy = Path(shutil.copyfile(db.path, db.path.with_name("copy.db")))
    begun.close()
    copy.replace(db.path)
    with pytest.raises(UnavailableError, match="replaced"):
        begun.begin(at(0), recalled)


def test_a_checkpoint_that_is_deleted_under_the_worker_is_noticed(db: Db, begun: Guarded) -> None:
    advance(begun, at(1), "r1")
    db.ask("DELETE FROM checkpoints")
    with pytest.raises(UnavailableError, match="went back"):
        advance(begun, at(2), "r2")
    assert db.count() == 1
