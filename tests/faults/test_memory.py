"""With a slow database and a long backlog, memory is bounded and nothing is redelivered."""

import pytest

from tests.conftest import RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import RESULTS, RESULTS_CONSUMER, Broker
from tests.support.outcome import assert_complete
from tests.support.rows import Rows
from tests.support.runs import BOTH, ended, has_ended, names_of, publish_results
from tests.support.scale import short_and_long

MEBIBYTE = 1024 * 1024


@short_and_long("messages", short=3_000, long=120_000, timeout=900)
def test_a_slow_database_and_a_long_backlog_take_bounded_memory_and_no_redelivery(
    stream: Broker, rows: Rows, start_worker: StartWorker, messages: int
) -> None:
    result_ids = [f"run-{number:06}" for number in range(messages)]
    stream.publish_starts(events.start(result_id=name, more="x" * 1000) for name in result_ids)
    # A message is outstanding for several times the ack wait.
    options = ("--ack-wait", "1s", "--batch", "300")
    worker = start_worker(rows, *options, fault=("slow-commits", 0.5))
    worker.until(lambda: rows.count() > 0)
    early = worker.most_memory
    worker.until(lambda: rows.count() == messages, messages / 300 + 30)
    assert_complete(stream, rows, result_ids, worker=worker)
    assert stream.delivered().consumer_seq == messages
    # The page caches of two connections grow with the file, up to 64 MiB each.
    assert worker.most_memory - early < 2 * 64 * MEBIBYTE + 20 * MEBIBYTE
    assert worker.stop() == 0
    assert worker.counters["redelivered"] == 0


def test_a_backlog_of_large_messages_behind_a_locked_database_takes_bounded_memory(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--ack-wait", "1s", "--retry-for", "60s", pulling=True)
    early = worker.most_memory
    result_ids = [f"run-{number:03}" for number in range(200)]
    with rows.locked():
        for name in result_ids:
            stream.publish(result_id=name, more="x" * 1_000_000)
        # Nothing more arrives once there is no pull request, or nothing left to deliver.
        worker.until(lambda: not (c := stream.consumer()).num_waiting or not c.num_pending, 20)
        # The outstanding messages are bounded in bytes as well as in number.
        assert worker.most_memory - early < 100 * MEBIBYTE
    assert_complete(stream, rows, result_ids, within=30, worker=worker)
    assert stream.delivered().consumer_seq == 200
    assert worker.stop() == 0


@pytest.mark.parametrize("read_again", [False, True], ids=["delivered", "read again"])
def test_large_output_takes_bounded_memory_and_other_results_do_not_wait_for_it(
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
    read_again: bool,
) -> None:
    deployment.make_results_stream()
    deployment.make_output_bucket()
    deployment.put_output("large", b"x" * (20 * MEBIBYTE))
    run_until_idle(rows, **BOTH)
    large, others = names_of(16, "large"), names_of(40)
    deployment.publish_results(
        events.result(result_id=name, stdout="", stdout_object="large") for name in large
    )
    if read_again:  # as a worker leaves them that is killed
        deployment.fetch(len(large), RESULTS_CONSUMER, ack=False, stream=RESULTS)
    publish_results(deployment, others)
    # What is delivered is fetched sooner than it is written.
    slow = None if read_again else ("slow-commits", 0.15)
    worker = start_worker(rows, pulling=True, fault=slow, **BOTH)
    early = worker.most_memory
    worker.until(lambda: all(has_ended(rows, name) for name in others))
    assert ended(rows) < len(large) + len(others)
    worker.until(lambda: ended(rows) == len(large) + len(others), 40)
    # Some outputs are fetched, some written, and two connections have page caches of 64 MiB.
    assert worker.most_memory - early < 420 * MEBIBYTE
    assert worker.stop() == 0
    assert worker.counters["outputs_cut"] == len(large)
