"""Results close their runs and count them, beside starts, in one process."""

import signal
import time
from typing import Any

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done
from tests.support.rows import Rows
from tests.support.waiting import eventually

BOTH: dict[str, Any] = {"results": True}


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    """The session's server with both streams, manifests, and a bucket for output."""
    deployment.make_results_stream()
    deployment.make_output_bucket()
    return deployment


def publish_runs(broker: Broker, count: int, prefix: str = "r") -> list[str]:
    """Publish starts and results of so many runs, each result first; every third one fails."""
    names = [f"{prefix}-{number:04}" for number in range(count)]
    for number, name in enumerate(names):
        broker.publish_results([events.result(result_id=name, exit_code=int(number % 3 == 0))])
        broker.publish(result_id=name)
    return names


def wait_until_acked(broker: Broker) -> None:
    eventually(lambda: broker.is_acked() and broker.has_acked_results(), 20)


def test_a_result_closes_the_run_of_its_start_and_completes_the_execution(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    rows.insert_execution("execution-1", 30)
    names = publish_runs(fleet, 30)
    worker = run_until_idle(rows, **BOTH)
    assert rows.result_ids() == names
    for row in rows.query("SELECT * FROM execution_results"):
        # The start came later and was projected first: it has brought version and deadline.
        assert row["version"] == "1.0.0"
        assert row["expires_at"] is not None
        assert row["finished_at"] == "2026-05-20T12:00:05+00:00"
        assert (row["stdout"], row["reaped"]) == ("output", 0)
    assert rows.execution("execution-1") == "20/10 completed"
    assert worker.counters["runs_ended"] == 30
    assert worker.counters["runs_ended_unseen"] == 0


def test_a_result_without_a_start_makes_a_finished_row_which_the_start_leaves_unchanged(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    fleet.publish_results([events.result(result_id="r", exec_id=None, skipped=True)])
    run_until_idle(rows, **BOTH)
    before = rows.run("r")
    fleet.publish(result_id="r")
    run_until_idle(rows, **BOTH)
    assert before is not None
    assert (before["version"], before["skipped"]) == (None, 1)
    assert rows.run("r") == before


@pytest.mark.parametrize("batch", ["1", "2", "50"])
def test_the_first_of_two_results_wins_while_the_start_of_their_run_comes(
    fleet: Broker, rows: Rows, start_worker: StartWorker, batch: str
) -> None:
    worker = start_worker(rows, "--batch", batch, pulling=True, **BOTH)
    names = [f"r-{number:03}" for number in range(300)]
    for name in names:
        first, second = (events.result(result_id=name, exit_code=code) for code in (0, 7))
        start = events.start(result_id=name)
        fleet.send(("results.q", first), ("results.q", second), (events.subject(start), start))
    worker.until(lambda: len(rows.query("SELECT 1 FROM execution_results")) == len(names), 20)
    wait_until_acked(fleet)
    assert worker.stop() == 0
    assert rows.query("SELECT result_id FROM execution_results WHERE exit_code IS NOT 0") == []
    assert worker.counters["results_duplicate"] == len(names)


def test_a_result_waits_for_starts_only_where_its_run_has_no_row(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_results_stream()  # and no stream of starts
    rows.insert_in_flight("there")
    worker = start_worker(rows, **BOTH)
    broker.publish_results([events.result(result_id=name) for name in ("there", "new", "there")])
    worker.until(lambda: (rows.run("there") or {})["finished_at"])
    time.sleep(1)
    assert rows.run("new") is None
    assert worker.stop() == 0


def test_a_malformed_result_is_rejected_and_its_run_stays_in_flight(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    fleet.publish(result_id="r")
    fleet.publish_results([events.result(result_id="r", exit_code=1.5)])
    run_until_idle(rows, **BOTH)
    (rejected,) = rows.rejected()
    assert (rejected["stream"], rejected["subject"]) == ("RESULTS", "results.request-1")
    assert rejected["reason"].startswith("exit_code: expected a number written as an integer")
    row = rows.run("r")
    assert row is not None
    assert row["finished_at"] is None


def test_results_wait_for_their_stream_and_starts_do_not_wait_for_it(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, **BOTH)
    worker.wait_for_error("worker.not_ready", "stream RESULTS does not exist")
    deployment.publish(result_id="r")
    worker.until(lambda: rows.count() == 1)
    deployment.make_results_stream()
    deployment.publish_results([events.result(result_id="r")])
    worker.until(lambda: (rows.run("r") or {})["finished_at"] is not None, 20)
    worker.wait_for("worker.ready")
    assert worker.stop() == 0


@pytest.mark.every_engine
def test_both_streams_are_completed_after_a_kill_at_any_moment(
    fleet: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    rows.insert_execution("execution-1", 1000)
    names = publish_runs(fleet, 200)
    for finished in (1, 60):
        worker = start_worker(rows, "--batch", "20", "--ack-wait", "1s", **BOTH)
        ended = "SELECT count(*) AS n FROM execution_results WHERE finished_at IS NOT NULL"
        worker.until(lambda: rows.query(ended)[0]["n"] >= finished)  # noqa: B023
        worker.send(signal.SIGKILL)
        worker.exit_code()
    run_until_idle(rows, "--ack-wait", "1s", **BOTH)
    assert rows.result_ids() == names
    assert rows.execution("execution-1") == "133/67 running"


def test_a_wiped_database_gets_the_same_rows_from_both_streams(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    # Each result behind its start: which of two is projected first is open the other way round.
    for name in [f"r-{number}" for number in range(50)]:
        fleet.publish(result_id=name)
        fleet.publish_results([events.result(result_id=name)])
    run_until_idle(rows, **BOTH)
    every = "SELECT * FROM execution_results ORDER BY result_id"
    before = rows.query(every)
    rows.write("DELETE FROM execution_results")
    rows.write("DELETE FROM checkpoints")
    run_until_idle(rows, **BOTH)
    assert rows.query(every) == before


def test_offloaded_output_is_fetched_and_what_is_missing_costs_no_result(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    fleet.put_output("q/stdout", b"big \xff")
    fleet.put_output("gone/stderr", b"gone")
    fleet.delete_output("gone/stderr")
    fleet.put_output("long", b"x" * (20 * 1024 * 1024))
    keys = [
        ("both", "q/stdout", "never/stderr"),
        ("stderr", None, "q/stdout"),
        ("deleted", "q/stdout", "gone/stderr"),
        ("cut", "long", None),
    ]
    worker = start_worker(rows, pulling=True, **BOTH)
    fleet.publish_results(
        events.result(
            result_id=name, stdout="own", stderr="own", stdout_object=out, stderr_object=err
        )
        for name, out, err in keys
    )
    worker.until(lambda: rows.count() == len(keys), 20)
    found = {name: rows.run(name) or {} for name, *_ in keys}
    assert [(row["stdout"], row["stderr"]) for row in list(found.values())[:3]] == [
        ("big \ufffd", "own"),
        ("own", "big \ufffd"),
        ("big \ufffd", "own"),
    ]
    assert len(found["cut"]["stdout"].encode()) <= 16 * 1024 * 1024
    wait_until_acked(fleet)
    assert worker.stop() == 0
    counters = worker.counters
    assert (counters["objects_fetched"], counters["objects_missing"]) == (4, 2)
    assert counters["outputs_cut"] == 1


def test_status_and_check_show_both_streams_and_up_to_when_everything_is_in_the_database(
    fleet: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    publish_runs(fleet, 5)
    worker = start_worker(rows, pulling=True, **BOTH)
    worker.until(lambda: fleet.is_acked() and fleet.has_acked_results())
    shown = worker.until(lambda: caught_up(projector("status", "--json", results=True)))
    assert shown["results"]["stream"]["messages"] == shown["stream"]["messages"] == 5
    assert shown["results"]["finding"].startswith("caught up")
    assert shown["results"]["checkpoint"]["caught_up_to"] == 5
    text = projector("status", results=True).output
    assert "results    caught up\n" in text
    assert "ago: all stored by then is in the database" in text
    checked = projector("check", "--json", results=True).document["findings"]
    streams = [one["text"] for one in checked if one["name"] == "stream"]
    assert streams == ["EVENTS has 5 messages", "RESULTS has 5 messages"]
    assert {one["level"] for one in checked} == {"ok"}
    assert worker.stop() == 0


def caught_up(done: Done) -> dict[str, Any] | None:
    """Return what `status` shows once both checkpoints have followed."""
    both = (done.document["results"]["checkpoint"], done.document["database"])
    return done.document if [one["caught_up_to"] for one in both] == [5, 5] else None


def test_status_says_why_it_is_unprojected_up_to_when_everything_is_in_the_database(
    deployment: Broker, rows: Rows, projector: Projector
) -> None:
    done = projector("status", "--json", results=True)
    assert done.document["projected_up_to"] is None
    assert done.document["unknown_because"]
    assert done.document["results"]["finding"].startswith("stream RESULTS does not exist")
    assert "unknown, so no run is given up" in projector("status", results=True).output
