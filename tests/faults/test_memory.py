"""With a slow database and a long backlog, memory is bounded and nothing is redelivered."""

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.outcome import assert_complete
from tests.support.rows import Rows
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
