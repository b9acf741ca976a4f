"""A run's life in the tables: the worked examples, and what they leave open."""

from typing import Any

import pytest

from tests.repo.rows import Db
from tests.support.lifecycle import EXAMPLES, Life

pytestmark = pytest.mark.every_engine

# The object store does not answer, so nothing is written: this is not about the tables.
WITHOUT_A_WRITE = {42}


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example["number"] not in WITHOUT_A_WRITE],
    ids=lambda example: f"{example['number']} {example['name']}",
)
def test_the_worked_examples(db: Db, example: dict[str, Any]) -> None:
    with Life(db.database, db.ask) as life:
        answer = [life.apply(operation) for operation in example["operations"]][-1]
    assert example["answer"] in (None, answer)
    if example["columns"]:
        (row,) = [row for row in rows(db) if example["result_id"] in (None, row["result_id"])]
        assert {name: row[name] for name in example["columns"]} == example["columns"]
    if example["e1"]:
        names = ", ".join(example["e1"])
        values = db.ask(f"SELECT {names} FROM executions WHERE exec_id = 'e1'")
        assert values == [tuple(example["e1"].values())]


def rows(db: Db) -> list[dict[str, Any]]:
    return [db.row_of(result_id) for result_id in db.result_ids()]
