"""The database is slow and the queue is long: memory stays bounded, and nothing comes twice."""

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.faulty_worker import faulty
from tests.support.outcome import assert_whole, deliveries
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.waiting import eventually

MEBIBYTE = 1024 * 1024


@short_and_long("messages", short=3_000, long=120_000, timeout=900)
def test_a_slow_database_and_a_long_queue_take_bounded_memory_and_no_redelivery(
    broker: Broker, rows: Rows, start_worker: StartWorker, messages: int
) -> None:
    broker.make_stream()
    result_ids = [f"run-{number:06}" for number in range(messages)]
    broker.publish_starts(events.start(result_id=name, more="x" * 1000) for name in result_ids)
    # A message waits its turn in hand for several times the ack wait.
    environment, command = faulty("slow-commits", 0.5)
    worker = start_worker(
        rows, "--ack-wait", "1s", "--batch", "300", environment=environment, command=command
    )
    eventually(lambda: rows.count() > 0, 15, lambda: worker.text)
    early = worker.most_memory
    eventually(lambda: rows.count() == messages, messages / 300 + 30, lambda: worker.text)
    assert_whole(broker, rows, result_ids, otherwise=lambda: worker.text)
    assert deliveries(broker) == messages
    # The page caches of two connections grow with the file, up to 64 MiB each.
    assert worker.most_memory - early < 2 * 64 * MEBIBYTE + 20 * MEBIBYTE
    assert worker.stop() == 0
    assert worker.counters["redelivered"] == 0


def test_a_queue_of_large_messages_behind_a_locked_database_takes_bounded_memory(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows, "--ack-wait", "1s", "--retry-for", "60s")
    worker.wait_for("pull.started")
    early = worker.most_memory
    result_ids = [f"run-{number:03}" for number in range(200)]
    with rows.locked():
        for name in result_ids:
            broker.publish(result_id=name, more="x" * 1_000_000)
        # All that may come has come when nothing is asked for any more, or nothing is left.
        eventually(
            lambda: not (d := broker.consumer()).num_waiting or not d.num_pending,
            20,
            lambda: worker.text,
        )
        # What is in hand is bounded in bytes as well, whatever the size of a message.
        assert worker.most_memory - early < 100 * MEBIBYTE
    assert_whole(broker, rows, result_ids, within=30, otherwise=lambda: worker.text)
    assert deliveries(broker) == 200
    assert worker.stop() == 0
