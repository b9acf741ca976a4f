"""The worked examples of a run's life, through a real server and a real worker.

Each operation is projected before the next one. tests/repo/test_lifecycle.py has the same examples
without a server.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer
from tests.support.broker import Broker
from tests.support.lifecycle import EXAMPLES
from tests.support.nats_server import NatsServer
from tests.support.stage import Stage

# At the very instant nothing is due yet. No tick can be put on a nanosecond of a server's clock, so
# here it comes half a minute before; in the examples a nanosecond later it comes soon after.
# tests/repo/test_lifecycle.py tries the instants themselves.
TICK_EARLIER = {
    15: "2026-05-20T12:01:51Z",
    21: "2026-05-21T11:59:31Z",
    28: "2026-05-20T12:59:30Z",
}
# What falls due between W and the tick where W lags.
DUE = {17: "2026-05-20T12:02:21Z", 30: "2026-05-20T13:00:00Z"}

WITHOUT_STORE = [
    example for example in EXAMPLES if any(one.get("store_away") for one in example["operations"])
]


@pytest.fixture(scope="module")
def stage(server: NatsServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    """One database and one worker for all examples."""
    with Broker(server.url) as broker:
        stage = Stage(broker, tmp_path_factory.mktemp("stage"), server.url)
        yield stage
        stage.stop_worker()


@pytest.mark.parametrize(
    "example",
    [example for example in EXAMPLES if example not in WITHOUT_STORE],
    ids=lambda example: f"{example['number']} {example['name']}",
)
def test_the_worked_examples(stage: Stage, example: dict[str, Any]) -> None:
    play(stage, example)


@pytest.mark.parametrize(
    "example", WITHOUT_STORE, ids=lambda example: f"{example['number']} {example['name']}"
)
def test_the_worked_examples_without_the_object_store(
    make_server: MakeServer, tmp_path: Path, example: dict[str, Any]
) -> None:
    # Nobody answers on the subject that the server maps to. After ten times it counts as missing.
    asked = "$JS.API.STREAM.MSG.GET.OBJ_result_output"
    server = make_server(f'mappings {{ "{asked}": "nowhere" }}').start()
    given_up = any(one.get("given_up") for one in example["operations"])
    with Broker(server.url) as broker:
        fault = ("short-delays", 0.002 if given_up else 0.2)
        stage = Stage(broker, tmp_path, server.url, fault)
        try:
            play(stage, example)
        finally:
            stage.stop_worker()


def play(stage: Stage, example: dict[str, Any]) -> None:
    stage.prepare()
    answer = None
    for operation in example["operations"]:
        answer = stage.apply(_as_tried(example["number"], operation))
    assert example["answer"] in (None, answer)
    if example["columns"]:
        row = stage.row(example["result_id"])
        assert {name: row[name] for name in example["columns"]} == example["columns"]
    if example["e1"]:
        found = stage.rows.query(f"SELECT {', '.join(example['e1'])} FROM executions")
        assert found == [example["e1"]]


def _as_tried(number: int, operation: dict[str, Any]) -> dict[str, Any]:
    if operation["operation"] != "tick":
        return operation
    if number in TICK_EARLIER:
        return {**operation, "now": TICK_EARLIER[number], "w": TICK_EARLIER[number]}
    return {**operation, "due": DUE[number]} if number in DUE else operation
