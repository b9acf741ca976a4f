"""The stream and the consumer: bound as they are, made where they are missing, never changed."""

from typing import Any

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType

from tests.integration.conftest import MakeServer, StartWorker
from tests.support.broker import CONSUMER, Broker
from tests.support.events import start
from tests.support.rows import Rows
from tests.support.waiting import eventually

UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "another-filter": ({"filter_subject": "events.finished.>"}, "events.finished.>"),
    "no-filter": ({"filter_subject": None}, "nothing"),
    "acks-none": (
        {"ack_policy": "none", "deliver_subject": "to.me", "max_ack_pending": None},
        "ack policy none",
    ),
    "acks-all": ({"ack_policy": "all", "deliver_subject": "to.me"}, "ack policy all"),
    "pushes": ({"deliver_subject": "to.me"}, "to.me"),
    "headers-only": ({"headers_only": True}, "headers only"),
}


def test_the_durable_is_made_as_the_contract_has_it(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish()
    worker = start_worker(rows, "--until-idle", "--ack-wait", "45s")

    assert worker.exit_code() == 0
    made = broker.consumer().config
    assert made.durable_name == CONSUMER
    assert made.filter_subject == "events.started.>"
    assert made.ack_policy == "explicit"
    assert made.deliver_policy == "all"
    assert made.ack_wait == 45
    assert made.max_deliver == -1
    assert made.deliver_subject is None
    assert worker.logged("consumer.differs") == []


def test_a_durable_that_allows_small_requests_only_is_read_in_small_requests(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer_with_limits(max_batch=10)
    broker.publish_starts(start() for _ in range(100))
    worker = start_worker(rows, "--until-idle")

    assert worker.exit_code() == 0
    assert rows.count() == 100
    assert worker.logged("pull.status") == []


def test_a_durable_that_the_worker_made_itself_differs_in_nothing(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    # Seconds as a float: 1.001 * 10^9 is a hair below the whole number.
    for _ in range(2):
        worker = start_worker(rows, "--until-idle", "--ack-wait", "1.001s")
        assert worker.exit_code() == 0
        assert worker.logged("consumer.differs") == []


def test_a_durable_with_other_settings_is_told_of_with_both_values_and_kept(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    before = broker.make_consumer(ack_wait=77.0, max_ack_pending=123).config
    broker.publish()
    worker = start_worker(rows, "--until-idle")

    assert worker.exit_code() == 0
    assert rows.count() == 1
    told = {line["setting"]: line for line in worker.logged("consumer.differs")}
    assert set(told) == {"ack_wait", "max_ack_pending"}
    assert (told["ack_wait"]["expected"], told["ack_wait"]["found"]) == (30, 77)
    assert told["max_ack_pending"]["found"] == 123
    assert {line["level"] for line in told.values()} == {"warning"}
    assert {line["consumer"] for line in told.values()} == {CONSUMER}
    assert broker.consumer().config == before


def test_a_durable_that_would_lose_messages_is_a_configuration_error_and_left_alone(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish()
    before = {
        name: broker.make_consumer(durable_name=name, **config).config
        for name, (config, _) in UNUSABLE.items()
    }
    workers = {name: start_worker(rows, "--consumer", name) for name in UNUSABLE}

    for name, worker in workers.items():
        assert worker.exit_code() == 78, name
        (failed,) = worker.logged("worker.failed")
        assert failed["level"] == "critical"
        assert f"consumer {name} of stream EVENTS" in failed["error"]
        assert UNUSABLE[name][1] in failed["error"]
        assert "exc_info" not in failed
        assert broker.consumer(name).config == before[name]
    assert rows.count() == 0


def test_a_missing_stream_is_told_of_and_waited_for(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows)
    told = worker.wait_for("pull.lost", times=2)
    assert told["level"] == "warning"
    assert "there is no stream EVENTS" in told["error"]
    assert "--create-stream" in told["error"]
    assert not broker.has_stream()

    broker.make_stream()
    broker.publish(result_id="at last")
    eventually(lambda: rows.result_ids() == ["at last"], 10, lambda: worker.text)
    assert worker.stop() == 0


def test_create_stream_makes_it_with_exactly_the_values_of_the_contract(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    first, second = (start_worker(rows, "--create-stream") for _ in range(2))
    for worker in (first, second):
        worker.wait_for("pull.started")
    config = broker.stream_info().config

    assert config.name == "EVENTS"
    assert config.subjects == ["events.>"]
    assert config.max_age == 7 * 86_400
    assert config.max_bytes == 256 * 1024 * 1024
    assert config.discard == DiscardPolicy.OLD
    assert config.retention == RetentionPolicy.LIMITS
    assert config.storage == StorageType.FILE
    assert (config.max_msgs, config.max_msgs_per_subject, config.max_msg_size) == (-1, -1, -1)
    assert first.stop() == second.stop() == 0
    again = start_worker(rows, "--create-stream", "--until-idle")
    assert again.exit_code() == 0
    assert again.logged("stream.created") == []


def test_create_stream_leaves_a_stream_that_is_there_as_it_is_and_tells_of_one_in_its_way(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        before = broker.stream_info().config
        bound = start_worker(rows, "--create-stream", "--until-idle", nats=server.url)
        barred = start_worker(
            rows, "--create-stream", "--stream", "OTHER", "--until-idle", nats=server.url
        )
        assert bound.exit_code() == 0
        assert broker.stream_info().config == before
        assert barred.exit_code() == 78
        assert "stream OTHER cannot be created" in barred.logged("worker.failed")[0]["error"]


def test_the_broker_may_come_up_later_than_the_worker(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    server.stop()
    worker = start_worker(rows, "--create-stream", nats=server.url)
    assert worker.wait_for("broker.error")["level"] == "warning"
    assert worker.logged("worker.started") == []

    server.start()
    worker.wait_for("pull.started")
    with Broker(server.url) as broker:
        broker.publish()
        eventually(lambda: rows.count() == 1, 5, lambda: worker.text)
    assert worker.stop() == 0
