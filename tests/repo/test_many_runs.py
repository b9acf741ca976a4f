"""A hundred runs in one statement do what a hundred statements would have done."""

from pathlib import Path

import pytest

from repo import execution_results
from repo.repository import Repository
from repo.sqlite.database import Connection
from tests.repo.rows import ask, count, refusal_of, refuse_bad_pc, run, runs


def stored(path: Path) -> list[tuple[str, str]]:
    return ask(path, "SELECT result_id, pc_id FROM execution_results ORDER BY rowid")


@pytest.mark.parametrize("number", [1, 99, 100, 101, 199, 200, 350])
def test_a_batch_of_any_size_is_written_in_its_order(
    repository: Repository, path: Path, number: int
) -> None:
    batch = runs(number)
    assert repository.write(batch, [], refusal_of(batch)).inserted == number
    assert stored(path) == [(one.result_id, one.pc_id) for one in batch]


def test_the_first_of_two_starts_of_a_run_wins_within_a_hundred_and_between_them(
    repository: Repository, path: Path
) -> None:
    repository.write([run("there", pc_id="before")], [], refusal_of([]))
    batch = runs(250)
    for position in (7, 98, 150, 230):
        batch[position] = run("r3", pc_id=f"later-{position}")
    batch[120] = batch[249] = run("there", pc_id="later")
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (244, 0)
    rows = dict(stored(path))
    assert (rows["r3"], rows["there"]) == ("pc-of-r3", "before")
    assert len(rows) == 245


def test_an_engine_that_takes_few_values_gets_row_by_row(
    connection: Connection, path: Path
) -> None:
    connection.most_values = 899
    with connection.write():
        assert execution_results.insert_all(connection, runs(250)) == 250
    assert count(path, "execution_results") == 250


def test_a_trigger_of_somebody_else_keeps_its_own_way_with_conflicts(
    repository: Repository, path: Path
) -> None:
    # The engine has a trigger's OR IGNORE give way to the OR FAIL of the statement that fires it.
    ask(path, "CREATE TABLE seen (exec_id TEXT PRIMARY KEY)")
    ask(
        path,
        """
        CREATE TRIGGER note AFTER INSERT ON execution_results
        BEGIN INSERT OR IGNORE INTO seen VALUES (NEW.exec_id); END
        """,
    )
    batch = runs(250)
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.rejected) == (250, [])
    assert ask(path, "SELECT exec_id FROM seen") == [("execution-1",)]


@pytest.mark.parametrize("bad", [[0], [99], [100], [249], [3, 103, 203]])
def test_a_refused_row_costs_itself_wherever_it_stands(
    repository: Repository, path: Path, bad: list[int]
) -> None:
    refuse_bad_pc(path)
    batch = runs(250, bad=bad)
    written = repository.write(batch, [], refusal_of(batch))
    assert (written.inserted, written.refused) == (250 - len(bad), len(bad))
    assert [event.stream_sequence for event in written.rejected] == [at + 1 for at in bad]
    assert count(path, "execution_results") == 250 - len(bad)
