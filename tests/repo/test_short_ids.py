"""Short ids: the shortest beginning that names one row, and the row that it names."""

import pytest

from repo import Connection, short_ids
from repo.short_ids import EXECUTIONS, RUNS
from tests.repo.rows import Db, run

pytestmark = pytest.mark.every_engine

IDS = [
    *("run-1", "run-10", "run-100", "0d9c6e6e-7e0f-4b0c", "0d9c6e6e-7e0f-4b0d", "0d9c6e6f-1"),
    *("", "é" * 20, "é" * 19 + "è", "雪", "\U0010ffff\U0010ffff", "%_%_%_%_%_", "' OR 1=1 --"),
]


def test_a_short_id_finds_the_run_that_it_was_made_from(db: Db, connection: Connection) -> None:
    db.write([run(one) for one in IDS])
    for whole in IDS:
        short = short_ids.shorten(connection, RUNS, whole)
        assert whole.startswith(short)
        assert short_ids.find(connection, RUNS, short) == [whole]
    assert short_ids.shorten(connection, RUNS, "0d9c6e6e-7e0f-4b0c") == "0d9c6e6e-7e0f-4b0c"
    assert short_ids.shorten(connection, RUNS, "0d9c6e6f-1") == "0d9c6e6f"


def test_a_beginning_that_several_ids_share_finds_the_first_five(
    db: Db, connection: Connection
) -> None:
    db.write([run(f"r{number}") for number in range(9)])
    assert short_ids.find(connection, RUNS, "r") == ["r0", "r1", "r2", "r3", "r4"]
    assert short_ids.find(connection, RUNS, "s") == []
    assert short_ids.find(connection, RUNS, "r\x00") == []
    assert short_ids.find(connection, EXECUTIONS, "r") == []
