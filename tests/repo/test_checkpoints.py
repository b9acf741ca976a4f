"""The checkpoint: written with each batch, and the sign that a file's content went back."""

import shutil
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from repo.checkpoint import Checkpoint, CheckpointGuard, Position
from repo.errors import SchemaError, UnavailableError
from repo.repository import Repository
from repo.sqlite.database import Database
from tests.repo.rows import ask, count, refusal_of, rejected_event, run, runs

CREATED = "2026-05-20T12:00:00+00:00"
CREATED_ANEW = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"
POSITION = Position("EVENTS", "projector")

Opened = tuple[Repository, CheckpointGuard]
Open = Callable[[], Opened]


def at(highest: int, low: int = 0, created: str = CREATED) -> Checkpoint:
    return Checkpoint(created, highest, low, NOW)


def stored(path: Path) -> list[tuple[object, ...]]:
    return ask(path, "SELECT * FROM checkpoints")


@pytest.fixture
def open_one(database: Database) -> Iterator[Open]:
    """Return a function that opens the repository of another process's worker."""
    with ExitStack() as stack:

        def opened() -> Opened:
            guard = CheckpointGuard(POSITION)
            repository = Repository(database, retry_for=0.1, give_up=threading.Event(), guard=guard)
            return stack.enter_context(repository), guard

        yield opened


@pytest.fixture
def begun(open_one: Open) -> Repository:
    repository, _ = open_one()
    repository.begin(at(0), repository.recall())
    return repository


def write(repository: Repository, reached: Checkpoint, *result_ids: str) -> None:
    batch = [run(result_id) for result_id in result_ids]
    repository.write(batch, [], refusal_of(batch), reached)


def test_a_new_file_knows_no_checkpoint_and_no_rows(open_one: Open) -> None:
    recalled = open_one()[0].recall()
    assert recalled.checkpoint is None
    assert not recalled.has_rows


@pytest.mark.parametrize("table", ["execution_results", "rejected_events"])
def test_rows_of_another_program_are_seen(
    path: Path, open_one: Open, repository: Repository, table: str
) -> None:
    if table == "execution_results":
        repository.write([run("theirs")], [], refusal_of([]))
    else:
        repository.write([], [rejected_event()], refusal_of([]))
    recalled = open_one()[0].recall()
    assert recalled.checkpoint is None
    assert recalled.has_rows


def test_a_batch_moves_the_checkpoint_on_in_its_own_transaction(
    path: Path, begun: Repository
) -> None:
    write(begun, at(7, 3), "r1")
    assert stored(path) == [(*POSITION, CREATED, 7, 3, NOW)]


def test_a_batch_that_is_not_written_moves_no_checkpoint(path: Path, begun: Repository) -> None:
    ask(path, "DROP TABLE execution_results")
    with pytest.raises(SchemaError):
        write(begun, at(7, 3), "r1")
    assert stored(path) == [(*POSITION, CREATED, 0, 0, NOW)]


def test_a_batch_that_is_taken_apart_moves_the_checkpoint_on_as_well(
    path: Path, begun: Repository
) -> None:
    ask(
        path,
        "CREATE TRIGGER rule BEFORE INSERT ON execution_results WHEN NEW.pc_id = 'bad'"
        " BEGIN SELECT RAISE(ABORT, 'no such PC'); END",
    )
    batch = runs(3, bad=[1])
    begun.write(batch, [], refusal_of(batch), at(3, 0))
    assert stored(path) == [(*POSITION, CREATED, 3, 0, NOW)]


def test_a_checkpoint_never_goes_back(path: Path, begun: Repository) -> None:
    write(begun, at(9, 5), "r1")
    write(begun, at(4, 2), "late")
    begun.begin(at(1, 1), begun.recall())
    assert stored(path) == [(*POSITION, CREATED, 9, 5, NOW)]


def test_a_checkpoint_starts_anew_with_the_stream(path: Path, begun: Repository) -> None:
    write(begun, at(9, 5), "r1")
    begun.begin(at(0, 0, CREATED_ANEW), begun.recall())
    assert stored(path) == [(*POSITION, CREATED_ANEW, 0, 0, NOW)]
    write(begun, at(12, 11), "late, of the stream that is no more")
    assert stored(path) == [(*POSITION, CREATED_ANEW, 0, 0, NOW)]
    write(begun, at(1, 0, CREATED_ANEW), "r2")
    assert stored(path) == [(*POSITION, CREATED_ANEW, 1, 0, NOW)]
    assert count(path, "execution_results") == 3


def test_a_worker_that_has_not_seen_the_new_stream_yet_still_writes_its_rows(
    path: Path, begun: Repository, open_one: Open
) -> None:
    write(begun, at(9, 5), "r1")
    other, _ = open_one()
    other.begin(at(0, 0, CREATED_ANEW), other.recall())
    write(begun, at(10, 9), "in hand")
    assert count(path, "execution_results") == 2
    assert stored(path) == [(*POSITION, CREATED_ANEW, 0, 0, NOW)]


def test_two_workers_move_one_checkpoint_on(path: Path, begun: Repository, open_one: Open) -> None:
    other, _ = open_one()
    other.begin(at(0), other.recall())
    write(begun, at(500), "r1")
    write(other, at(1000), "r2")
    write(begun, at(700), "r3")
    assert stored(path) == [(*POSITION, CREATED, 1000, 0, NOW)]


def test_nothing_is_written_before_the_file_was_compared(path: Path, open_one: Open) -> None:
    with pytest.raises(UnavailableError, match="another one than was compared"):
        write(open_one()[0], at(1), "r1")
    assert count(path, "execution_results") == 0


def test_nothing_is_written_to_a_file_that_took_the_place_of_the_compared_one(
    path: Path, begun: Repository, tmp_path: Path
) -> None:
    copy = Path(shutil.copyfile(path, tmp_path / "copy.db"))
    write(begun, at(1), "r1")
    copy.replace(path)
    for _ in range(2):
        with pytest.raises(UnavailableError, match=r"replaced|another one"):
            write(begun, at(2), "r2")
    recalled = begun.recall()
    assert (recalled.checkpoint, recalled.has_rows) == (None, False)
    begun.begin(at(0), recalled)
    write(begun, at(3), "r3")
    assert ask(path, "SELECT result_id FROM execution_results") == [("r3",)]
    # The log of the other file is kept, and was not taken for the new file's own.
    assert len(list(path.parent.glob("projector.db-wal-of-*"))) == 1


def test_a_file_that_is_replaced_while_it_is_compared_is_not_begun(
    path: Path, begun: Repository, tmp_path: Path
) -> None:
    recalled = begun.recall()
    copy = Path(shutil.copyfile(path, tmp_path / "copy.db"))
    begun.close()
    copy.replace(path)
    with pytest.raises(UnavailableError, match="replaced"):
        begun.begin(at(0), recalled)


def test_an_older_copy_that_is_put_into_the_open_file_is_noticed(
    path: Path, begun: Repository, tmp_path: Path
) -> None:
    write(begun, at(1), "r1")
    with (
        closing(sqlite3.connect(path)) as live,
        closing(sqlite3.connect(tmp_path / "yesterday.db")) as yesterday,
    ):
        live.backup(yesterday)
        write(begun, at(2), "r2")
        yesterday.backup(live)
    with pytest.raises(UnavailableError, match="went back"):
        write(begun, at(3), "r3")
    assert ask(path, "SELECT result_id FROM execution_results") == [("r1",)]


def test_a_checkpoint_that_is_deleted_under_the_worker_is_noticed(
    path: Path, begun: Repository
) -> None:
    write(begun, at(1), "r1")
    ask(path, "DELETE FROM checkpoints")
    with pytest.raises(UnavailableError, match="went back"):
        write(begun, at(2), "r2")
    assert count(path, "execution_results") == 1


def test_checkpoints_of_several_durables_do_not_meet(
    path: Path, begun: Repository, database: Database
) -> None:
    write(begun, at(5), "r1")
    guard = CheckpointGuard(Position("EVENTS", "another"))
    with Repository(database, retry_for=0.1, give_up=threading.Event(), guard=guard) as another:
        recalled = another.recall()
        assert recalled.checkpoint is None
        another.begin(at(1), recalled)
    assert [row[:4] for row in stored(path)] == [
        ("EVENTS", "projector", CREATED, 5),
        ("EVENTS", "another", CREATED, 1),
    ]
