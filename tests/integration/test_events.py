"""Events become rows: what arrives on the stream, against what stands in the tables."""

import json

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker, publish_raw, raw_publish
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.times import stored_text
from tests.support.waiting import eventually

MALFORMED = {
    "empty payload": b"",
    "not JSON": b"{ this is no JSON",
    "not UTF-8": b'{"result_id": "\xff"}',
    "no object": b"[1, 2]",
    "a number": b"17",
    "a member missing": json.dumps({"result_id": "x"}).encode(),
    "a wrong type": events.payload(pc_id=7),
    "null": events.payload(version=None),
    "no instant": events.payload(started_at="yesterday"),
    "text that SQLite cannot store": events.payload(pc_id="\ud800"),
    "no JSON value": events.payload().replace(b'"1.0.0"', b"NaN"),
    "nested too deeply": b"[" * 100_000,
}


def test_every_column_of_a_start_is_exactly_what_the_contract_says(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_bucket()
    for manifest_id, timeout in {"short": "20s", "middle": "360s", "long": "1h"}.items():
        broker.put_manifest(manifest_id, {"execute": {"timeout": timeout}, "more": [1]})
    for status in ("pending", "running", "completed", "expired"):
        rows.write(
            "INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, "
            "target_count, status) VALUES (?, 'j', '1', 'me', '2026-01-01T00:00:00+00:00', 2, ?)",
            f"was-{status}",
            status,
        )
    worker = start_worker(rows, "--until-idle")
    worker.wait_for("pull.started")
    starts = [
        events.start(
            result_id="r-1",
            request_id="any text: ' \" \n µ ☃",
            exec_id="was-pending",
            pc_id="PC ☃ 1",
            manifest_id="short",
            version="2.1",
            started_at="2026-05-20T14:00:00.5+02:00",
            later_member={"ignored": [1, 2, 3]},
        ),
        events.start(result_id="r-2", exec_id="was-running", manifest_id="middle"),
        events.start(result_id="r-3", exec_id="was-completed", manifest_id="long"),
        events.start(result_id="r-4", exec_id="was-expired", manifest_id="unheard of"),
        events.start(result_id="r-5", exec_id="", manifest_id="short"),
        events.start(result_id="r-6", exec_id="unheard of", manifest_id="short"),
    ]
    sequences = [
        broker.publish(json.dumps(start).encode(), subject="events.started.any.pc")
        for start in starts
    ]
    assert worker.exit_code() == 0

    expected_start = ["2026-05-20T12:00:00.500+00:00"]
    expected_start += ["2026-05-20T12:00:00.123456789+00:00"] * 5
    seconds = [140, 540, 5400, None, 140, 140]
    for start, sequence, started_at, span in zip(
        starts, sequences, expected_start, seconds, strict=True
    ):
        stored_at = broker.stored_at(sequence)
        assert rows.run(start["result_id"]) == {
            "result_id": start["result_id"],
            "request_id": start["request_id"],
            "exec_id": start["exec_id"],
            "pc_id": start["pc_id"],
            "exit_code": None,
            "stdout": "",
            "stderr": "",
            "started_at": started_at,
            "finished_at": None,
            "recorded_at": stored_text(stored_at),
            "job_id": start["manifest_id"],
            "version": start["version"],
            "reaped": 0,
            "expires_at": None if span is None else stored_text(stored_at, plus=span),
        }
    assert {
        row["exec_id"]: (row["status"], row["success_count"], row["failure_count"])
        for row in rows.query("SELECT * FROM executions")
    } == {
        "was-pending": ("running", 0, 0),
        "was-running": ("running", 0, 0),
        "was-completed": ("completed", 0, 0),
        "was-expired": ("expired", 0, 0),
    }
    assert worker.logged("execution.not_promoted") == []


def test_a_run_that_is_there_already_stays_exactly_as_it_is(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at, "
        "finished_at, exit_code, stdout) VALUES ('done', 'r', 'p', 's', 't', 'f', 3, 'out')"
    )
    finished = rows.run("done")
    broker.publish(result_id="done", pc_id="another")
    broker.publish(result_id="twice", pc_id="first")
    broker.publish(result_id="twice", pc_id="second")
    worker = start_worker(rows, "--until-idle")

    assert worker.exit_code() == 0
    assert rows.run("done") == finished
    twice = rows.run("twice")
    assert twice is not None
    assert twice["pc_id"] == "first"
    assert rows.count() == 2
    assert worker.counters["messages"] == 3
    assert worker.counters["runs_inserted"] == 1
    assert worker.counters["runs_duplicate"] == 2


def test_a_message_whose_ack_was_lost_is_redelivered_into_the_same_row(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=1.0)
    sequence = broker.publish(result_id="again")
    broker.take_without_ack(1)
    worker = start_worker(rows, "--ack-wait", "1s", "--until-idle")

    assert worker.exit_code() == 0
    again = rows.run("again")
    assert again is not None
    assert again["recorded_at"] == stored_text(broker.stored_at(sequence))
    assert rows.count() == 1
    assert worker.counters["messages"] == worker.counters["redelivered"] == 1
    assert broker.is_settled()


def test_malformed_events_are_kept_told_of_and_acked_once_each_also_after_a_replay(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    sequences = [
        broker.publish(payload, subject=f"events.started.x.pc-{number}")
        for number, payload in enumerate(MALFORMED.values())
    ]
    good = broker.publish(result_id="good")
    broker.publish(b"of another kind", subject="events.finished.x.y")
    worker = start_worker(rows, "--until-idle")

    assert worker.exit_code() == 0
    assert broker.is_settled()
    warnings = worker.logged("event.rejected")
    assert [warning["level"] for warning in warnings] == ["warning"] * len(MALFORMED)
    assert [warning["stream_sequence"] for warning in warnings] == sequences
    kept = rows.rejected()
    assert [row["stream_sequence"] for row in kept] == sequences
    for number, (row, payload) in enumerate(zip(kept, MALFORMED.values(), strict=True)):
        assert row["stream"] == "EVENTS"
        assert row["subject"] == f"events.started.x.pc-{number}"
        assert row["payload"] == payload
        assert row["recorded_at"] == stored_text(broker.stored_at(sequences[number]))
        assert row["reason"]
        assert row["rejected_at"] >= row["recorded_at"][:19]
    assert rows.result_ids() == ["good"]
    assert worker.counters["rejected"] == len(MALFORMED)
    assert worker.counters["messages"] == len(MALFORMED) + 1
    assert good not in sequences

    broker.delete_consumer()
    replay = start_worker(rows, "--until-idle")
    assert replay.exit_code() == 0
    assert rows.rejected() == kept
    assert rows.count() == 1
    assert replay.counters["rejected"] == 0
    assert replay.logged("event.rejected") == []
    assert broker.is_settled()


def test_bytes_of_no_text_in_subject_or_headers_do_not_stop_the_worker(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    publish_raw(
        server.port or 0,
        raw_publish(b"events.started.\xff\xfe.pc", events.payload(result_id="a")),
        raw_publish(b"events.started.\xff.\xfe", b"no start"),
        raw_publish(
            b"events.started.e.pc",
            events.payload(result_id="b"),
            b"NATS/1.0\r\nName: \xff\xfe\r\n\xff: x\r\nnonsense\r\n\r\n",
        ),
        raw_publish(
            b"events.started.e.pc",
            events.payload(result_id="c"),
            b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        ),
    )
    broker.publish(events.payload(result_id="d"), headers={"Trace": "x", "Nats-Msg-Id": "1"})
    eventually(lambda: rows.count() == 4 and broker.is_settled(), 5, lambda: worker.text)

    assert worker.is_running()
    assert rows.result_ids() == ["a", "b", "c", "d"]
    assert [(row["subject"], row["payload"]) for row in rows.rejected()] == [
        (r"events.started.\xff.\xfe", b"no start")
    ]
    assert worker.stop() == 0


@pytest.mark.parametrize(
    "headers",
    [b"XX", b"NATS/1.0", b"NATS/1.0 \xff\xff\xff \xff\r\n\r\n"],
    ids=["shorter than any header", "cut off", "a status of no text"],
)
def test_a_header_block_that_is_none_does_not_stop_the_worker(
    server: NatsServer, broker: Broker, rows: Rows, start_worker: StartWorker, headers: bytes
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    publish_raw(
        server.port or 0,
        raw_publish(b"events.started.e.pc", events.payload(result_id="odd"), headers),
    )
    broker.publish(result_id="after")
    eventually(lambda: rows.count() == 2 and broker.is_settled(), 4, lambda: worker.text)

    assert worker.logged("broker.disconnected") == []
    assert worker.stop() == 0
