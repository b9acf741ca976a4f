"""The stream of results, or its consumer, is deleted and made again: each run is counted once."""

import pytest

from tests.conftest import RunUntilIdle, StartWorker
from tests.support.broker import RESULTS, Broker
from tests.support.rows import Rows
from tests.support.runs import (
    BOTH,
    counted,
    ended,
    has_ended,
    move_deadlines,
    names_of,
    publish_results,
    publish_starts,
    reaped,
    wait_for_a_tick,
)

OFTEN = ("--upkeep-every", "0.2s")
NAMES = names_of(120)
# Results of the first stream, and of those that replace it: fewer, then more, some of them again.
FIRST, FEWER, MORE = NAMES[:40], NAMES[20:48], NAMES


@pytest.fixture
def fleet(deployment: Broker, rows: Rows) -> Broker:
    """Both streams, with the starts of an execution and of two runs that are of none."""
    deployment.make_results_stream()
    publish_starts(deployment, NAMES)
    publish_starts(deployment, ["overdue-1", "overdue-2"], exec_id="")
    rows.insert_execution("execution-1", len(NAMES) + 1)
    return deployment


def has_counted(rows: Rows, runs: int) -> bool:
    """Return whether so many runs of the execution have ended, each counted once."""
    return rows.execution("execution-1") == counted(runs, "running")


def test_results_of_a_stream_that_is_recreated_under_a_worker_are_each_counted_once(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    publish_results(fleet, FIRST)
    worker = start_worker(rows, *OFTEN, **BOTH)
    worker.until(lambda: has_counted(rows, len(FIRST)) and fleet.has_acked_results())
    for number, names in enumerate((FEWER, MORE), start=1):
        fleet.delete_stream(RESULTS)
        worker.wait_for_error("pull.lost", "stream RESULTS does not exist")
        # Up to when everything is in the database is unknown without the stream, and known again.
        overdue = f"overdue-{number}"
        move_deadlines(rows, [overdue])
        wait_for_a_tick(worker, rows)
        assert not has_ended(rows, overdue)
        fleet.make_results_stream()
        publish_results(fleet, names)
        worker.until(lambda: has_counted(rows, max(48, len(names))))  # noqa: B023
        worker.until(lambda: has_ended(rows, overdue))  # noqa: B023
        worker.until(fleet.has_acked_results)
    assert worker.stop() == 0
    assert (ended(rows), rows.rejected()) == (len(NAMES) + 2, [])
    assert reaped(rows) == ["overdue-1", "overdue-2"]
    assert len(worker.logged("stream.recreated")) == 2


def test_results_of_a_stream_that_is_recreated_while_no_worker_runs_are_each_counted_once(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    for names, runs in ((FIRST, 40), (FEWER, 48), (MORE, 120)):
        publish_results(fleet, names)
        run_until_idle(rows, **BOTH)
        assert has_counted(rows, runs)
        assert (ended(rows), rows.rejected()) == (runs, [])
        fleet.delete_stream(RESULTS)
        fleet.make_results_stream()


def test_a_stream_that_is_recreated_at_once_is_noticed_and_its_results_are_counted_once(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    publish_results(fleet, FIRST)
    worker = start_worker(rows, *OFTEN, **BOTH)
    worker.until(lambda: has_counted(rows, len(FIRST)) and fleet.has_acked_results())
    fleet.delete_stream(RESULTS)
    fleet.make_results_stream()
    publish_results(fleet, MORE)
    worker.until(lambda: has_counted(rows, len(MORE)))
    worker.until(fleet.has_acked_results)
    assert worker.stop() == 0
    assert (ended(rows), rows.rejected()) == (len(NAMES), [])


def test_a_deleted_consumer_of_results_is_recreated_and_no_result_is_counted_twice(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    publish_results(fleet, FIRST)
    worker = start_worker(rows, *OFTEN, "--batch", "10", fault=("slow-commits", 0.02), **BOTH)
    worker.until(lambda: ended(rows) > 0)
    fleet.delete_results_consumer()
    publish_results(fleet, NAMES[40:])
    worker.wait_for("consumer.recreated")
    worker.until(lambda: has_counted(rows, len(NAMES)))
    worker.until(fleet.has_acked_results)
    config = fleet.results_consumer().config
    assert (config.filter_subject, config.ack_policy) == (None, "explicit")
    move_deadlines(rows, ["overdue-1"])
    worker.until(lambda: reaped(rows) == ["overdue-1"])
    assert worker.stop() == 0
    assert has_counted(rows, len(NAMES))
