"""Faults under both streams: every run is closed and counted exactly once."""

import random
import signal
import time
from pathlib import Path

from tests.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.runs import (
    BOTH,
    counted,
    ended,
    move_deadlines,
    names_of,
    publish_results,
    publish_starts,
    reaped,
)
from tests.support.scale import new_seed, short_and_long
from tests.support.waiting import until

RUNS = 400
NAMES = names_of(RUNS)


def publish_runs(broker: Broker) -> None:
    publish_starts(broker, NAMES)
    publish_results(broker, NAMES)


def assert_closed(rows: Rows) -> None:
    assert (rows.count(), ended(rows)) == (RUNS, RUNS)
    assert rows.execution("execution-1") == counted(RUNS, "completed")


def test_a_broker_that_is_killed_under_both_streams_costs_no_result_and_no_count(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        broker.make_results_stream()
        publish_runs(broker)
    rows.insert_execution("execution-1", RUNS)
    options = ("--batch", "10", "--ack-wait", "2s")
    worker = start_worker(rows, *options, nats=server.url, fault=("slow-commits", 0.02), **BOTH)
    worker.until(lambda: ended(rows) > RUNS // 10)
    NatsServer.kill(server)
    server.start()
    worker.until(lambda: ended(rows) == RUNS, 30)
    assert worker.stop() == 0
    assert_closed(rows)


def test_two_workers_on_one_database_count_each_run_once_although_one_is_killed(
    deployment: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    deployment.make_results_stream()
    rows.insert_execution("execution-1", RUNS)
    publish_runs(deployment)
    options = ("--batch", "10", "--ack-wait", "1s")
    killed, other = (start_worker(rows, *options, **BOTH) for _ in range(2))
    other.until(lambda: ended(rows) > 0)
    killed.send(signal.SIGKILL)
    other.until(lambda: ended(rows) == RUNS, 30)
    assert other.stop() == 0
    run_until_idle(rows, *options, **BOTH)
    assert_closed(rows)


def test_a_locked_database_under_both_streams_costs_no_result_and_no_count(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.make_results_stream()
    rows.insert_execution("execution-1", RUNS)
    options = ("--batch", "10", "--busy-timeout", "0.1s", "--retry-for", "0.2s")
    worker = start_worker(rows, *options, pulling=True, **BOTH)
    with rows.locked():
        publish_runs(deployment)
        worker.wait_for("database.unavailable")
    worker.until(lambda: ended(rows) == RUNS, 40)
    assert worker.stop() == 0
    assert_closed(rows)


def test_a_full_database_under_both_streams_costs_no_result_and_no_count(
    deployment: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path
) -> None:
    deployment.make_results_stream()
    rows.insert_execution("execution-1", RUNS)
    limit = tmp_path / "pages"
    options = ("--batch", "10", "--ack-wait", "2s", "--upkeep-every", "0.2s")
    worker = start_worker(rows, *options, pulling=True, fault=("page-limit", limit), **BOTH)
    publish_starts(deployment, NAMES[: RUNS // 2], version="x" * 1000)
    worker.until(lambda: rows.count() == RUNS // 2)
    limit.write_text("1")
    publish_starts(deployment, NAMES[RUNS // 2 :], version="x" * 1000)
    publish_results(deployment, NAMES, stdout="x" * 1000)
    worker.wait_for_error("batch.failed", "full")
    worker.wait_for_error("database.unavailable", "full")
    assert ended(rows) < RUNS
    limit.unlink()
    worker.until(lambda: ended(rows) == RUNS, 40)
    worker.until(deployment.has_acked_results)
    assert worker.stop() == 0
    assert_closed(rows)
    assert rows.rejected() == []


@short_and_long("kills", short=3, long=40, timeout=400)
def test_workers_that_are_killed_while_they_fetch_output_and_give_up_runs_count_each_run_once(
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
    kills: int,
) -> None:
    instants = random.Random(new_seed())
    deployment.make_results_stream()
    deployment.make_output_bucket()
    deployment.put_output("q/stdout", b"big" * 100_000)
    names = names_of(40 * kills)
    overdue = names_of(20, "overdue")
    rows.insert_execution("execution-1", len(names) + len(overdue))
    options = ("--ack-wait", "1s", "--batch", "5", "--upkeep-every", "0.1s")
    publish_starts(deployment, [*names, *overdue])
    run_until_idle(rows, *options, **BOTH)
    # All are overdue, so that some are given up before their results are projected.
    move_deadlines(rows, [*names, *overdue])
    for number in range(kills):
        some = names[40 * number :][:40]
        publish_results(deployment, some[:20])
        publish_results(deployment, some[20:], stdout="own", stdout_object="q/stdout")
        worker = start_worker(rows, *options, fault=("slow-commits", 0.1), **BOTH)
        # From the first moments of the process to when it gives up runs.
        until(time.monotonic() + instants.uniform(0.3, 2.5))
        worker.kill()
    worker = start_worker(rows, *options, pulling=True, **BOTH)
    worker.until(lambda: ended(rows) == len(names) + len(overdue) and reaped(rows) == overdue, 40)
    worker.until(deployment.has_acked_results)
    assert worker.stop() == 0
    success, failure = len(names) * 3 // 4, len(names) // 4 + len(overdue)
    assert rows.execution("execution-1") == f"{success}/{failure} completed"
    outputs = rows.query("SELECT stdout, count(*) AS n FROM execution_results GROUP BY 1")
    wanted = {"": len(overdue), "output": len(names) // 2, "big" * 100_000: len(names) // 2}
    assert {row["stdout"]: row["n"] for row in outputs} == wanted


def test_a_restored_backup_gets_the_results_above_it_back_and_counts_them_once(
    deployment: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    deployment.make_results_stream()
    rows.insert_execution("execution-1", RUNS)
    publish_starts(deployment, NAMES)
    run_until_idle(rows, **BOTH)
    backup = rows.path.read_bytes()
    publish_results(deployment, NAMES)
    run_until_idle(rows, **BOTH)
    assert_closed(rows)
    rows.path.write_bytes(backup)
    assert ended(rows) == 0
    run_until_idle(rows, **BOTH)
    assert_closed(rows)
