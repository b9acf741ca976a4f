"""A stop loses no message and leaves none stuck; --until-idle stops once everything is done."""

import signal
import socket
import time

import pytest

from tests.integration.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.restoring import publish, wipe
from tests.support.rows import Rows
from tests.support.waiting import until
from tests.support.worker_process import PROJECTOR


def test_a_second_signal_ends_the_process_at_once(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--retry-for", "20s", "--drain-timeout", "20s", pulling=True)
    with rows.locked():
        stream.publish()
        worker.until(lambda: stream.consumer().num_ack_pending == 1)
        worker.send(signal.SIGTERM)
        worker.wait_for("worker.draining")
        worker.send(signal.SIGINT)
        assert worker.exit_code(within=2) == 128 + signal.SIGINT
    assert worker.logged("worker.stopped") == []
    assert rows.count() == 0


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT"])
def test_every_signal_that_ends_a_process_drains_it_whatever_hangup_or_user_signal_comes_too(
    stream: Broker, rows: Rows, start_worker: StartWorker, name: str
) -> None:
    worker = start_worker(rows, "--retry-for", "60s", pulling=True)
    with rows.locked():
        for number in range(10):
            stream.publish(result_id=f"run-{number}")
        worker.until(lambda: stream.consumer().num_ack_pending == 10)
        worker.send(signal.SIGUSR1)
        worker.send(signal.Signals[name])
        worker.wait_for("worker.draining")
        worker.send(signal.SIGUSR1)
        worker.send(signal.SIGHUP)
    assert worker.exit_code() == 0, worker.text
    assert rows.count() == 10
    assert stream.is_acked()


def test_a_worker_that_nohup_started_outlives_its_terminal(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, command=("nohup", PROJECTOR), pulling=True)
    worker.send(signal.SIGHUP)
    stream.publish()
    worker.until(stream.is_acked)
    assert worker.stop() == 0


def test_past_the_drain_timeout_every_outstanding_message_is_nakd_for_the_next_worker(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    worker = start_worker(
        rows, "--retry-for", "20s", "--drain-timeout", "1s", "--batch", "4", pulling=True
    )
    with rows.locked():
        for number in range(10):
            stream.publish(result_id=f"run-{number}")
        worker.until(lambda: stream.consumer().num_ack_pending == 10)
        assert worker.stop(within=4) == 0
        assert rows.count() == 0
    assert worker.counters["runs_inserted"] == 0
    assert worker.counters["naks"] == worker.counters["acks_sent"] == 10
    run_until_idle(rows)
    assert rows.count() == 10
    assert stream.is_acked()


def test_a_stop_without_a_broker_takes_seconds_and_is_exit_0(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    connected = start_worker(rows, "--create-stream", nats=server.url, pulling=True)
    server.stop()
    connected.wait_for("broker.disconnected")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        never = start_worker(rows, nats=server.url)
        hanging = start_worker(rows, nats=f"nats://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(5)
        accepted, _ = silent.accept()
        with accepted:
            never.wait_for("broker.error")
            workers = (connected, never, hanging)
            for worker in workers:
                worker.send(signal.SIGTERM)
            began = time.monotonic()
            for worker in workers:
                assert worker.exit_code(within=6) == 0
            assert time.monotonic() - began < 6
    for worker in workers:
        assert worker.logged("worker.stopped", exit_code=0)
        assert worker.logged("worker.failed") == []


def test_until_idle_does_not_end_while_the_database_is_locked_or_behind_the_stream(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    publish(stream, 1, 100)
    run_until_idle(rows)
    wipe(rows)
    with rows.locked():
        worker = start_worker(rows, "--until-idle", "--busy-timeout", "0.1s", "--retry-for", "0.2s")
        worker.wait_for("database.unavailable", times=2)
        assert worker.is_running()
    assert worker.exit_code() == 0
    assert rows.count() == 100


def test_a_short_lock_causes_no_nak(stream: Broker, rows: Rows, start_worker: StartWorker) -> None:
    worker = start_worker(rows, "--busy-timeout", "0.1s", "--retry-for", "20s", pulling=True)
    with rows.locked():
        stream.publish(result_id="patient")
        worker.until(lambda: stream.consumer().num_ack_pending == 1)
        until(time.monotonic() + 0.5)  # several busy timeouts
        assert stream.consumer().num_ack_pending == 1
    worker.until(stream.is_acked)
    assert worker.stop() == 0
    assert rows.result_ids() == ["patient"]
    assert worker.counters["naks"] == worker.counters["database_faults"] == 0
