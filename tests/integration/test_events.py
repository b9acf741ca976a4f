"""Messages on the stream become rows of the tables, or rejected events."""

import json

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker, publish_raw, raw_publish
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows

MALFORMED = [
    *(b"", b"{ not JSON", b'{"result_id": "\xff"}', b"[1, 2]", b"17", b'{"result_id": "x"}'),
    *(events.payload(pc_id=7), events.payload(version=None)),
    *(events.payload(started_at="yesterday"), events.payload(pc_id="\ud800")),
    events.payload()[:-1] + b',"result_id":"another"}',
    *(events.payload().replace(b'"1.0.0"', b"NaN"), b"[" * 100_000),
]


def test_every_column_of_a_start_is_exactly_what_the_contract_says(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    for manifest_id, timeout in {"short": "20s", "middle": "360s", "long": "1h"}.items():
        stream.put_manifest(manifest_id, {"execute": {"timeout": timeout}, "more": [1]})
    for status in ("pending", "running", "completed", "expired"):
        rows.write(
            "INSERT INTO executions (exec_id, job_id, version, initiated_by, initiated_at, "
            "target_count, status) VALUES (?, 'j', '1', 'me', '2026-01-01T00:00:00+00:00', 2, ?)",
            f"was-{status}",
            status,
        )
    worker = start_worker(rows, "--until-idle", pulling=True)
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
        events.start(result_id="r-4", exec_id="was-expired", manifest_id="unknown"),
        events.start(result_id="r-5", exec_id="", manifest_id="short"),
        events.start(result_id="r-6", exec_id="unknown", manifest_id="short"),
    ]
    sequences = [
        stream.publish(json.dumps(start).encode(), subject="events.started.any.pc")
        for start in starts
    ]
    assert worker.exit_code() == 0

    seconds = [140, 540, 5400, None, 140, 140]
    for start, sequence, span in zip(starts, sequences, seconds, strict=True):
        fraction = "500" if start is starts[0] else "123456789"
        stored_at = stream.stored_at(sequence)
        copied = ("result_id", "request_id", "exec_id", "pc_id", "version")
        assert rows.run(start["result_id"]) == {
            **{name: start[name] for name in copied},
            "exit_code": None,
            "stdout": "",
            "stderr": "",
            "started_at": f"2026-05-20T12:00:00.{fraction}+00:00",
            "finished_at": None,
            "recorded_at": events.stored_text(stored_at),
            "job_id": start["manifest_id"],
            "reaped": 0,
            "expires_at": None if span is None else events.stored_text(stored_at, plus=span),
            "parent_result_id": None,
            "skipped": 0,
        }
    assert {
        row["exec_id"]: (row["status"], row["success_count"], row["failure_count"])
        for row in rows.query("SELECT * FROM executions")
    } == {
        **{f"was-{status}": ("running", 0, 0) for status in ("pending", "running")},
        **{f"was-{status}": (status, 0, 0) for status in ("completed", "expired")},
    }
    assert worker.logged("execution.not_promoted") == []


def test_an_existing_run_is_left_unchanged(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    rows.write(
        "INSERT INTO execution_results (result_id, request_id, pc_id, started_at, recorded_at, "
        "finished_at, exit_code, stdout) VALUES ('done', 'r', 'p', 's', 't', 'f', 3, 'out')"
    )
    finished = rows.run("done")
    stream.publish(result_id="done", pc_id="another")
    stream.publish(result_id="twice", pc_id="first")
    stream.publish(result_id="twice", pc_id="second")
    counters = run_until_idle(rows).counters
    assert rows.run("done") == finished
    assert rows.query("SELECT pc_id FROM execution_results WHERE result_id = 'twice'") == [
        {"pc_id": "first"}
    ]
    assert (rows.count(), counters["messages"]) == (2, 3)
    assert (counters["runs_inserted"], counters["runs_duplicate"]) == (1, 2)


def test_a_redelivered_message_keeps_the_time_at_which_the_stream_stored_it(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    stream.make_consumer(ack_wait=1.0)
    sequence = stream.publish(result_id="again")
    stream.fetch(1, ack=False)
    counters = run_until_idle(rows, "--ack-wait", "1s").counters
    assert rows.query("SELECT result_id, recorded_at FROM execution_results") == [
        {"result_id": "again", "recorded_at": events.stored_text(stream.stored_at(sequence))}
    ]
    assert counters["messages"] == counters["redelivered"] == 1
    assert stream.is_acked()


def test_a_malformed_event_is_logged_kept_and_acked_once_even_if_it_is_replayed(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    sequences = [
        stream.publish(payload, subject=f"events.started.x.pc-{number}")
        for number, payload in enumerate(MALFORMED)
    ]
    stream.publish(result_id="good")
    stream.publish(b"of another kind", subject="events.finished.x.y")
    worker = run_until_idle(rows)
    assert stream.is_acked()
    warnings = worker.logged("event.rejected", level="warning")
    assert [warning["stream_sequence"] for warning in warnings] == sequences
    kept = rows.rejected()
    assert [row["stream_sequence"] for row in kept] == sequences
    for number, (row, payload) in enumerate(zip(kept, MALFORMED, strict=True)):
        assert row["stream"] == "EVENTS"
        assert row["subject"] == f"events.started.x.pc-{number}"
        assert row["payload"] == payload
        assert row["recorded_at"] == events.stored_text(stream.stored_at(sequences[number]))
        assert row["reason"]
        assert row["rejected_at"] >= row["recorded_at"][:19]
    assert rows.result_ids() == ["good"]
    assert worker.counters["rejected"] == len(MALFORMED)
    assert worker.counters["messages"] == len(MALFORMED) + 1

    stream.delete_consumer()
    replay = run_until_idle(rows)
    assert rows.rejected() == kept
    assert rows.count() == 1
    assert replay.counters["rejected"] == 0
    assert replay.logged("event.rejected") == []
    assert stream.is_acked()


def test_thousands_of_events_of_one_reason_are_two_warnings_that_count_them(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    malformed = [("events.started.e.p", b'{"number": %d,}' % n) for n in range(3_000)]
    stream.publish_many(malformed)
    worker = run_until_idle(rows)
    warnings = worker.logged("event.rejected", level="warning")
    assert sum(warning["events"] for warning in warnings) == len(rows.rejected()) == 3_000
    assert len(warnings) == 2  # the first at once, the rest at the end
    assert warnings[0]["stream_sequence"] == 1
    assert warnings[0]["stream"] == "EVENTS"


def test_the_servers_note_of_an_expired_message_is_acked_and_makes_no_row(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle, projector: Projector
) -> None:
    marker = {"Nats-Marker-Reason": "MaxAge"}
    stream.publish(b"", headers=marker)
    stream.publish(result_id="good")
    for payload, headers in ((b"", {"Nats-Msg-Id": "1"}), (b"full", marker)):
        stream.publish(payload, headers=headers)
    worker = run_until_idle(rows)
    assert stream.is_acked()
    assert rows.result_ids() == ["good"]
    assert [row["payload"] for row in rows.rejected()] == [b"", b"full"]
    assert (worker.counters["messages"], worker.counters["markers"]) == (4, 1)
    assert worker.logged("event.rejected", stream_sequence=1) == []

    verified = projector("verify", "--without-deadlines", "--json")
    assert (verified.code, verified.document["marker"], verified.document["rejected"]) == (0, 1, 2)
    for options in (["--dry-run"], []):
        rebuilt = projector("rebuild", "--without-deadlines", "--json", *options).document
        assert (rebuilt["messages"], rebuilt["markers"], rebuilt["rejected_new"]) == (4, 1, 0)
    assert len(rows.rejected()) == 2


def test_invalid_utf8_and_invalid_headers_do_not_stop_the_worker(
    server: NatsServer, stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    headers = [
        b"NATS/1.0\r\nName: \xff\xfe\r\n\xff: x\r\nnonsense\r\n\r\n",
        b"NATS/1.0 100 Idle Heartbeat\r\n\r\n",
        b"XX",
        b"NATS/1.0",
        b"NATS/1.0 \xff\xff\xff \xff\r\n\r\n",
    ]
    worker = start_worker(rows, pulling=True)
    publish_raw(
        server.port or 0,
        raw_publish(b"events.started.\xff\xfe.pc", events.payload(result_id="subject")),
        raw_publish(b"events.started.\xff.\xfe", b"not JSON"),
        *(
            raw_publish(b"events.started.e.pc", events.payload(result_id=f"header {number}"), block)
            for number, block in enumerate(headers)
        ),
    )
    stream.publish(events.payload(result_id="valid"), headers={"Trace": "x", "Nats-Msg-Id": "1"})
    worker.until(lambda: rows.count() == 7 and stream.is_acked(), 5)
    assert rows.result_ids() == [*(f"header {number}" for number in range(5)), "subject", "valid"]
    assert [(row["subject"], row["payload"]) for row in rows.rejected()] == [
        (r"events.started.\xff.\xfe", b"not JSON")
    ]
    assert worker.logged("broker.disconnected") == []
    assert worker.stop() == 0


def test_a_subject_of_any_bytes_is_received_live_and_from_the_stream(
    server: NatsServer,
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    projector: Projector,
) -> None:
    # The client library takes the first ones for the end of a subject.
    odd = [b"\x0b", b"\x0c", b"e\x0b9\x0b9", b"\x1c", b"\x00", b"\x7f", b"\x85"]
    subjects = [b"events.started." + part + b".pc" for part in odd]
    stream.make_bucket()  # what the server announces of it is read as well
    stream.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    worker = start_worker(rows, pulling=True)
    publish_raw(
        server.port or 0,
        *(
            raw_publish(subject, events.payload(result_id=f"run-{number}"))
            for number, subject in enumerate(subjects)
        ),
    )
    worker.until(lambda: rows.count() == len(odd) and stream.is_acked(), 10)
    assert worker.logged("broker.disconnected") == []
    assert worker.stop() == 0
    verified = projector("verify", "--without-deadlines", "--json")
    assert (verified.code, verified.document["equal"]) == (0, len(odd))
