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
from repo.sqlite.database import Database
from tests.repo.rows import (
    GuardedRepository,
    Repository,
    ask,
    count,
    reject_bad_pc,
    reject_of,
    rejected_event,
    run,
    runs,
    write,
)

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"
POSITION = Position("EVENTS", "projector")

Open = Callable[..., GuardedRepository]


def at(highest: int, caught_up_to: int = 0, created: str = CREATED) -> Checkpoint:
    return Checkpoint(created, highest, caught_up_to, NOW)


def stored(path: Path) -> list[tuple[object, ...]]:
    return ask(path, "SELECT * FROM checkpoints")


@pytest.fixture
def open_guarded(database: Database) -> Iterator[Open]:
    """Return a function that opens the repository of another process's worker."""
    with ExitStack() as stack:

        def opened(position: Position = POSITION) -> GuardedRepository:
            guard, give_up = CheckpointGuard(position), threading.Event()
            repository = GuardedRepository(
                database, START_WRITER, retry_for=0.1, give_up=give_up, guard=guard
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


def test_a_new_file_has_no_checkpoint_and_no_rows(open_guarded: Open) -> None:
    recalled = open_guarded().recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, False)


@pytest.mark.parametrize("table", ["execution_results", "rejected_events"])
def test_rows_of_another_program_are_noticed(
    open_guarded: Open, repository: Repository, table: str
) -> None:
    write(repository, runs(1) if table == "execution_results" else [], [rejected_event()])
    recalled = open_guarded().recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, True)


def test_a_batch_advances_the_checkpoint_in_its_own_transaction(
    path: Path, begun: GuardedRepository
) -> None:
    advance(begun, at(7, 3), "r1")
    assert stored(path) == [(*POSITION, CREATED, 7, 3, NOW)]
    ask(path, "DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        advance(begun, at(9, 9), "r2")
    assert stored(path) == [(*POSITION, CREATED, 7, 3, NOW)]


def test_a_batch_with_a_rejected_row_advances_the_checkpoint_too(
    path: Path, begun: GuardedRepository
) -> None:
    reject_bad_pc(path)
    write_batch(begun, at(3, 0), runs(3, bad=[1]))
    assert stored(path) == [(*POSITION, CREATED, 3, 0, NOW)]


def test_a_checkpoint_never_goes_back(path: Path, begun: GuardedRepository) -> None:
    advance(begun, at(9, 5), "r1")
    advance(begun, at(4, 2), "late")
    begun.begin(at(1, 1), begun.recall())
    assert stored(path) == [(*POSITION, CREATED, 9, 5, NOW)]


def test_a_checkpoint_is_reset_for_a_recreated_stream(path: Path, begun: GuardedRepository) -> None:
    advance(begun, at(9, 5), "r1")
    begun.begin(at(0, 0, RECREATED), begun.recall())
    assert stored(path) == [(*POSITION, RECREATED, 0, 0, NOW)]
    advance(begun, at(12, 11), "late, of the former stream")
    assert stored(path) == [(*POSITION, RECREATED, 0, 0, NOW)]
    advance(begun, at(1, 0, RECREATED), "r2")
    assert stored(path) == [(*POSITION, RECREATED, 1, 0, NOW)]
    assert count(path, "execution_results") == 3


def test_a_worker_that_does_not_know_the_recreated_stream_yet_still_writes_its_rows(
    path: Path, begun: GuardedRepository, open_guarded: Open
) -> None:
    advance(begun, at(9, 5), "r1")
    other = open_guarded()
    other.begin(at(0, 0, RECREATED), other.recall())
    advance(begun, at(10, 9), "outstanding")
    assert count(path, "execution_results") == 2
    assert stored(path) == [(*POSITION, RECREATED, 0, 0, NOW)]


def test_two_workers_advance_one_checkpoint(
    path: Path, begun: GuardedRepository, open_guarded: Open
) -> None:
    other = open_guarded()
    other.begin(at(0), other.recall())
    advance(begun, at(500), "r1")
    advance(other, at(1000), "r2")
    advance(begun, at(700), "r3")
    assert stored(path) == [(*POSITION, CREATED, 1000, 0, NOW)]


def test_checkpoints_of_several_consumers_are_independent(
    path: Path, begun: GuardedRepository, open_guarded: Open
) -> None:
    advance(begun, at(5), "r1")
    other = open_guarded(Position("EVENTS", "another"))
    recalled = other.recall()
    assert recalled.checkpoint is None
    other.begin(at(1), recalled)
    assert [row[:4] for row in stored(path)] == [
        ("EVENTS", "projector", CREATED, 5),
        ("EVENTS", "another", CREATED, 1),
    ]


def test_nothing_is_written_before_the_file_was_compared(path: Path, open_guarded: Open) -> None:
    with pytest.raises(UnavailableError, match="not compared"):
        advance(open_guarded(), at(1), "r1")
    assert count(path, "execution_results") == 0


def test_nothing_is_written_to_a_file_that_replaced_the_compared_one(
    path: Path, begun: GuardedRepository, tmp_path: Path
) -> None:
    copy = Path(shutil.copyfile(path, tmp_path / "copy.db"))
    advance(begun, at(1), "r1")
    copy.replace(path)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"replaced|not compared"):
            advance(begun, at(2), "r2")
    recalled = begun.recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, False)
    begun.begin(at(0), recalled)
    advance(begun, at(3), "r3")
    assert ask(path, "SELECT result_id FROM execution_results") == [("r3",)]
    # The log of the former file is kept, and was not taken for the new file's own.
    assert len(list(path.parent.glob("projector.db-wal-of-*"))) == 1


def test_a_file_that_is_replaced_while_it_is_compared_is_not_begun(
    path: Path, begun: GuardedRepository, tmp_path: Path
) -> None:
    recalled = begun.recall()
    copy = Path(shutil.copyfile(path, tmp_path / "copy.db"))
    begun.close()
    copy.replace(path)
    with pytest.raises(UnavailableError, match="replaced"):
        begun.begin(at(0), recalled)


def test_an_older_copy_that_is_restored_into_the_open_file_is_noticed(
    path: Path, begun: GuardedRepository, tmp_path: Path
) -> None:
    advance(begun, at(1), "r1")
    with (
        closing(sqlite3.connect(path)) as live,
        closing(sqlite3.connect(tmp_path / "yesterday.db")) as yesterday,
    ):
        live.backup(yesterday)
        advance(begun, at(2), "r2")
        yesterday.backup(live)
    with pytest.raises(UnavailableError, match="went back"):
        advance(begun, at(3), "r3")
    assert ask(path, "SELECT result_id FROM execution_results") == [("r1",)]


def test_a_checkpoint_that_is_deleted_under_the_worker_is_noticed(
    path: Path, begun: GuardedRepository
) -> None:
    advance(begun, at(1), "r1")
    ask(path, "DELETE FROM checkpoints")
    with pytest.raises(UnavailableError, match="went back"):
        advance(begun, at(2), "r2")
    assert count(path, "execution_results") == 1
