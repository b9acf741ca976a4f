"""The worker creates a missing consumer or stream, and never changes or deletes an existing one."""

from pathlib import Path
from typing import Any

import pytest
from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType

from tests.integration.conftest import MakeServer, Projector, RunUntilIdle, StartWorker
from tests.support.broker import CONSUMER, Broker
from tests.support.events import start
from tests.support.outcome import recovery_lines
from tests.support.rows import Rows

# A consumer's settings, and what the error names.
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
    "small-max-expires": ({"max_expires": 200_000_000}, "max_expires 0.2 s"),
    "small-max-bytes": ({"max_bytes": 1000}, "max_bytes 1000"),
}


def test_a_missing_consumer_is_created_as_the_contract_says_and_then_differs_in_nothing(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.publish()
    for _ in range(2):
        # As a float, 1.001 s is slightly less than 1 001 000 000 ns.
        worker = run_until_idle(rows, "--ack-wait", "1.001s")
        assert worker.logged("consumer.differs") == []
    config = stream.consumer().config
    assert config.durable_name == CONSUMER
    assert config.filter_subject == "events.started.>"
    assert config.ack_policy == "explicit"
    assert config.deliver_policy == "all"
    assert config.ack_wait == pytest.approx(1.001)
    assert config.max_deliver == -1
    assert config.deliver_subject is None
    assert not config.inactive_threshold


@pytest.mark.parametrize("limits", [{"max_batch": 10}, {"max_bytes": 2 * 1024 * 1024}])
def test_a_consumer_that_limits_pull_requests_gets_small_ones(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle, limits: dict[str, Any]
) -> None:
    stream.make_consumer(**limits)
    stream.publish_starts(start() for _ in range(100))
    worker = run_until_idle(rows)
    assert rows.count() == 100
    assert worker.logged("pull.status") == []


def test_a_consumer_with_other_settings_is_kept_and_each_difference_is_logged_with_both_values(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    before = stream.make_consumer(ack_wait=77.0, max_ack_pending=123).config
    stream.publish()
    worker = run_until_idle(rows)
    assert rows.count() == 1
    logged = {line["setting"]: line for line in worker.logged("consumer.differs")}
    assert set(logged) == {"ack_wait", "max_ack_pending"}
    assert (logged["ack_wait"]["expected"], logged["ack_wait"]["found"]) == (30, 77)
    assert logged["max_ack_pending"]["found"] == 123
    assert {line["level"] for line in logged.values()} == {"warning"}
    assert {line["consumer"] for line in logged.values()} == {CONSUMER}
    assert stream.consumer().config == before


def test_a_consumer_that_starts_at_a_later_sequence_is_kept_and_logged(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.publish_starts(start() for _ in range(10))
    stream.make_consumer(deliver_policy="by_start_sequence", opt_start_seq=6)
    worker = run_until_idle(rows)
    assert recovery_lines(worker) == []
    assert rows.count() == 10
    assert [line["setting"] for line in worker.logged("consumer.differs")] == ["deliver_policy"]


def test_a_consumer_that_would_lose_messages_is_a_configuration_error_and_stays_unchanged(
    stream: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    stream.publish()
    before = {
        name: stream.make_consumer(durable_name=name, **config).config
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
        assert stream.consumer(name).config == before[name]
        (found,) = [
            finding["text"]
            for finding in projector("check", "--json", "--consumer", name).document["findings"]
            if finding["name"] == "consumer" and finding["level"] == "error"
        ]
        assert failed["error"].endswith(found)
    assert rows.count() == 0


def test_a_consumer_with_priority_groups_is_refused_by_run_and_check_alike(
    stream: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    if stream.version < (2, 11):
        pytest.skip("needs nats-server 2.11; set NATS_SERVER")
    stream.make_consumer(priority_groups=["west"], priority_policy="overflow")
    worker = start_worker(rows)
    assert worker.exit_code() == 78
    done = projector("check")
    assert done.code == 1
    for text in (worker.text, done.output):
        assert "has the priority groups west, expected none" in text


def test_the_worker_waits_for_a_missing_stream_and_logs_how_to_create_it(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows)
    lost = worker.wait_for("pull.lost", times=2)
    assert lost["level"] == "warning"
    assert "stream EVENTS does not exist" in lost["error"]
    assert "--create-stream" in lost["error"]
    assert not broker.has_stream()
    broker.make_stream()
    broker.publish(result_id="at last")
    worker.until(lambda: rows.result_ids() == ["at last"])
    assert worker.stop() == 0


def test_create_stream_uses_exactly_the_values_of_the_contract(
    broker: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    workers = [start_worker(rows, "--create-stream") for _ in range(2)]
    for worker in workers:
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
    assert [worker.stop() for worker in workers] == [0, 0]
    assert run_until_idle(rows, "--create-stream").logged("stream.created") == []


def test_create_stream_changes_no_existing_stream_and_reports_one_with_the_same_subjects(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    before = stream.stream_info().config
    run_until_idle(rows, "--create-stream")
    assert stream.stream_info().config == before
    failing = start_worker(rows, "--create-stream", "--stream", "OTHER")
    assert failing.exit_code() == 78
    assert "stream OTHER cannot be created" in failing.logged("worker.failed")[0]["error"]


def test_a_stream_that_takes_no_more_consumers_is_waited_for(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream(max_consumers=1)
    broker.make_consumer(durable_name="other")
    broker.publish()
    worker = start_worker(rows)
    worker.wait_for_error("pull.lost", "maximum consumers limit reached", "the worker waits until")
    broker.delete_consumer("other")
    worker.until(lambda: rows.count() == 1)
    assert worker.stop() == 0


def test_a_limit_of_ack_pending_messages_names_the_option_that_fits_it(
    make_server: MakeServer, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    store = f'store_dir: "{tmp_path}/store", limits: {{ max_ack_pending: 100 }}'
    server = make_server(f"jetstream {{ {store} }}", jetstream=False).start()
    with Broker(server.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, nats=server.url)
        assert worker.exit_code() == 78
        assert "--max-ack-pending" in worker.wait_for("worker.failed")["error"]
        fitting = start_worker(rows, "--max-ack-pending", "100", "--until-idle", nats=server.url)
        assert fitting.exit_code() == 0, fitting.text
        assert broker.consumer().config.max_ack_pending == 100
        assert not fitting.logged("consumer.differs")


@pytest.mark.parametrize(
    ("edited", "named"),
    [
        ({"filter_subject": "events.started.one.>"}, "filters events.started.one.>"),
        ({"headers_only": True}, "headers only"),
    ],
    ids=["narrower filter", "headers only"],
)
def test_a_consumer_that_is_edited_under_a_worker_ends_it_and_costs_no_row(
    stream: Broker, rows: Rows, start_worker: StartWorker, edited: dict[str, Any], named: str
) -> None:
    worker = start_worker(rows, pulling=True)
    stream.publish_starts(start() for _ in range(2))
    worker.until(lambda: rows.count() == 2 and stream.is_acked())
    stream.make_consumer(**edited)
    stream.publish_starts(start() for _ in range(10))
    assert worker.exit_code(10) == 78
    assert named in worker.wait_for("worker.failed")["error"]
    assert rows.rejected() == []

    stream.make_consumer()
    again = start_worker(rows)
    again.until(lambda: rows.count() == 12)
    assert again.stop() == 0
    assert rows.rejected() == []


def test_a_setting_that_changes_under_a_worker_is_logged_and_kept(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, pulling=True)
    stream.make_consumer(ack_wait=12.0)
    line = worker.wait_for("consumer.differs", level="warning", setting="ack_wait")
    assert (line["expected"], line["found"]) == (30, 12)
    stream.publish()
    worker.until(lambda: rows.count() == 1)
    assert worker.stop() == 0
