"""Faults under both streams: every run is closed and counted exactly once."""

import signal

from tests.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.runs import BOTH, counted, ended, names_of, publish_results, publish_starts

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
