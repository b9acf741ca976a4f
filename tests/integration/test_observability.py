"""Metrics, health and systemd notifications of a real worker in each of its states."""

import re
import socket
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.endpoints import OBSERVED, NotifySocket, Port
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import UNCLOSED
from worker.projections.manifests import (
    MANIFEST_UNKNOWN,
    REASONS,
    RECOMPUTABLE,
    TIMEOUT_INVALID,
)

IMPATIENT = (*OBSERVED, "--stalled-after", "1s", "--busy-timeout", "100ms", "--retry-for", "500ms")


def supervised(notify: NotifySocket) -> dict[str, str]:
    """Return the environment that systemd gives a service with a watchdog."""
    return {"NOTIFY_SOCKET": notify.address, "WATCHDOG_USEC": "400000"}


def assert_watchdog_is_kept(notify: NotifySocket) -> None:
    """Wait for more keep-alives than fit into `--stalled-after`."""
    seen = len(notify.lines())
    for _ in range(12):
        seen = notify.wait_for("WATCHDOG=1", after=seen) + 1


# --- metrics ---


def test_the_metrics_after_a_drain_equal_the_counters_of_the_stop_line(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    starts = [events.start() for _ in range(700)]
    deployment.publish_starts([*starts, *starts[:50], events.start(manifest_id="unknown")])
    for payload in (b"not JSON", b"{}"):
        deployment.publish(payload)
    published = 700 + 50 + 1 + 2
    worker = start_worker(rows, *OBSERVED, "--batch", "100")
    port = Port(worker)
    worker.until(lambda: port.metrics()['projector_acks_total{outcome="sent"}'] == published)
    worker.until(lambda: port.metrics().get("projector_pending") == 0)
    worker.until(lambda: port.metrics().get("projector_ack_pending") == 0)
    metrics = port.metrics()
    assert worker.stop() == 0
    counters = worker.counters

    same = ["redelivered", "promotions_failed", "executions_promoted_late"]
    same += ["database_busy", "database_retries", "database_faults"]
    messages = {"rejected": "rejected", "rejected_duplicate": "rejected_duplicate"}
    messages["marker"] = "markers"
    messages |= {"run_inserted": "runs_inserted", "run_duplicate": "runs_duplicate", "nak": "naks"}
    names = {
        **{f"projector_{name}_total": name for name in same},
        **{f'projector_messages_total{{outcome="{one}"}}': messages[one] for one in messages},
        'projector_acks_total{outcome="sent"}': "acks_sent",
        'projector_acks_total{outcome="dropped"}': "acks_dropped",
        "projector_batch_messages_sum": "messages",
        "projector_batch_messages_count": "batches",
        "projector_batch_duration_seconds_count": "batches",
    }
    missing = "projector_deadlines_missing_total"
    names |= {f'{missing}{{reason="{one}"}}': f"deadline_missing_{one}" for one in REASONS}
    assert {name: metrics[name] for name in names} == {
        name: counters[counter] for name, counter in names.items()
    }
    assert counters["acks_sent"] == counters["messages"] == published
    assert (counters["runs_inserted"], counters["runs_duplicate"]) == (701, 50)
    assert (counters["rejected"], counters["acks_dropped"]) == (2, 0)
    assert counters["deadline_missing_manifest_unknown"] == 1
    # The checkpoint takes two transactions more: one to see whether there is a lock, one to write.
    assert metrics["projector_commit_duration_seconds_count"] >= counters["batches"] + 2
    assert metrics["projector_pending"] == metrics["projector_outstanding"] == 0
    assert metrics["projector_manifests"] == 1
    assert 0 <= metrics["projector_manifests_snapshot_age_seconds"] < 30
    for name in ("wal_bytes", "disk_free_bytes", "last_commit_timestamp_seconds"):
        assert metrics[f"projector_{name}"] > 0
    for name in ("caught_up", "ready", "live"):
        assert metrics[f"projector_{name}"] == 1
    states = [value for name, value in metrics.items() if name.startswith("projector_state{")]
    assert states.count(1) == 1 < len(states)


def test_the_metrics_show_how_runs_ended_and_executions_by_status(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.make_results_stream()
    for name, targets in (("running", 3), ("completed", 2), ("pending", 1)):
        rows.insert_execution(name, targets)
    ends: list[tuple[str, dict[str, Any]]] = [
        ("success", {}),
        ("failure", {"exit_code": 1}),
        ("skipped", {"exit_code": 125, "skipped": True}),
    ]
    for execution in ("running", "completed"):
        deployment.publish_results(
            events.result(result_id=f"{execution} {name}", exec_id=execution, **members)
            for name, members in ends[: 3 if execution == "completed" else 1]
        )
    port = Port(start_worker(rows, *IMPATIENT, "--upkeep-every", "0.2s", results=True))

    def shown() -> dict[str, float]:
        return {
            name.partition('"')[2].partition('"')[0]: value
            for name, value in port.metrics().items()
            if name.startswith(("projector_executions{", "projector_runs_ended_total{"))
        }

    statuses = {"pending": 1, "running": 1, "completed": 1, "expired": 0}
    outcomes = {"success": 2, "failure": 1, "skipped": 1, "reaped": 0}
    eventually(lambda: shown() == {**statuses, **outcomes}, 10, lambda: str(shown()))
    rows.write("ALTER TABLE executions RENAME TO hidden")
    eventually(lambda: shown() == outcomes, 10, lambda: str(shown()))
    rows.write("ALTER TABLE hidden RENAME TO executions")
    eventually(lambda: shown() == {**statuses, **outcomes}, 10, lambda: str(shown()))
    with rows.locked():  # no tick looks at a database that takes no batch
        deployment.publish()
        eventually(lambda: shown() == outcomes, 10, lambda: str(shown()))


@pytest.mark.every_engine
def test_runs_in_flight_are_counted_by_their_deadline_or_why_they_have_none(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    deployment.make_results_stream()
    port = Port(start_worker(rows, *IMPATIENT, "--upkeep-every", "20ms", results=True))
    deployment.publish_starts(events.start(result_id=f"in-time-{at}") for at in range(3))
    deployment.publish(result_id="unknown", manifest_id="late")

    def shown(name: str = "runs_in_flight") -> dict[str, float]:
        return {
            label.partition('"')[2].partition('"')[0]: value
            for label, value in port.metrics().items()
            if label.startswith(f"projector_{name}{{")
        }

    expected = {"in_time": 3, "overdue": 0, "without_deadline": 1}
    eventually(lambda: shown() == expected, 10, lambda: str(shown()))
    none = dict.fromkeys((*REASONS, RECOMPUTABLE), 0)
    eventually(lambda: shown("runs_without_deadline") == {**none, MANIFEST_UNKNOWN: 1}, 10)
    for timeout, reason in (("soon", TIMEOUT_INVALID), ("60s", RECOMPUTABLE)):
        deployment.put_manifest("late", {"execute": {"timeout": timeout}})
        eventually(lambda: shown("runs_without_deadline") == {**none, reason: 1}, 10)  # noqa: B023
    # A tick that counts again leaves no gap.
    assert all(shown() == expected for _ in range(100))
    # A trigger keeps the reaper from giving it up.
    rows.refuse_updates("execution_results")
    rows.insert(
        "execution_results",
        [
            {"result_id": "late", "request_id": "q", "pc_id": "p"}
            | dict.fromkeys(
                ("started_at", "recorded_at", "expires_at"), "2026-05-20T12:00:00+00:00"
            )
        ],
    )
    eventually(lambda: shown() == {**expected, "overdue": 1}, 10, lambda: str(shown()))
    with rows.locked():  # no tick looks at a database that takes no batch
        deployment.publish()
        eventually(lambda: shown() == shown("runs_without_deadline") == {}, 10)


def test_the_bytes_of_a_stream_that_are_not_projected_reach_its_limit_before_events_are_dropped(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    limit, day = 60_000, 86_400
    broker.make_stream(max_bytes=limit, max_age=day)
    broker.make_results_stream(max_bytes=-1)
    port = Port(start_worker(rows, *IMPATIENT, results=True))

    def shown(projection: str = "starts") -> dict[str, float]:
        label = f'{{projection="{projection}"}}'
        return {
            name.removeprefix("projector_stream_").removesuffix(label): value
            for name, value in port.metrics().items()
            if name.startswith("projector_stream_") and name.endswith(label)
        }

    def publish(number: int) -> None:
        broker.publish_starts(events.start() for _ in range(number))

    def unprojected() -> float:
        return shown().get("unprojected_bytes", -1)

    publish(50)
    eventually(lambda: shown().get("bytes", 0) > 0 == unprojected(), 10, lambda: str(shown()))
    size = broker.stream_info().state.bytes / 50
    eventually(lambda: "oldest_age_seconds" in shown(), 5)
    seen = shown()
    limits = {"max_bytes": limit, "max_age_seconds": day, "lag_seconds": 0}
    assert {name: seen[name] for name in limits} == limits
    assert 0 <= seen["oldest_age_seconds"] < 30
    assert shown("results") == {"bytes": 0, "unprojected_bytes": 0, "lag_seconds": 0}
    # The stream is full, and everything is projected: the oldest events are dropped rightly.
    publish(round(limit / size))
    eventually(lambda: unprojected() == 0 and shown()["bytes"] > limit - size, 10)
    assert broker.stream_info().state.first_seq > 1
    with rows.locked():
        backlog = round(0.7 * limit / size)
        publish(backlog)
        eventually(lambda: abs(unprojected() - backlog * size) < 3 * size, 10)
        assert shown()["lag_seconds"] > 0
        publish(backlog)
        eventually(lambda: unprojected() == shown()["bytes"] > limit - size, 10)
    eventually(lambda: unprojected() == 0, 15)
    assert port.metrics()["projector_lost_sequences_total"] > 0


def test_no_series_names_a_run_or_pc(stream: Broker, rows: Rows, start_worker: StartWorker) -> None:
    stream.publish(result_id="r-secret", exec_id="e-secret", pc_id="p-secret", request_id="secret")
    stream.publish(manifest_id="m-secret")
    stream.publish(b"junk", subject="events.started.e-secret.p-secret")
    port = Port(start_worker(rows, *OBSERVED))
    eventually(lambda: port.metrics()['projector_messages_total{outcome="rejected"}'] == 1, 10)
    for path in ("/metrics", "/livez", "/readyz"):
        assert "secret" not in port.get(path)[1]
    assert port.get("/other")[0] == 404


def test_a_worker_listens_on_no_port_by_default_and_a_used_port_is_exit_78(
    stream: Broker, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as used:
        port = used.getsockname()[1]
        failing = start_worker(rows, "--metrics-port", str(port), environment=supervised(notify))
        assert failing.exit_code() == 78
    (failed,) = failing.logged("worker.failed")
    assert f"cannot listen on 127.0.0.1 port {port}" in failed["error"]
    assert "Address already in use" in failed["error"]
    assert "READY=1" not in notify.lines()
    by_default = start_worker(rows, "--until-idle")
    assert by_default.exit_code() == 0
    assert by_default.logged("metrics.listening") == []


def test_lag_includes_messages_that_another_worker_has_not_acked(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_consumer(ack_wait=60.0)
    stream.publish()
    stream.fetch(1, ack=False)
    port = Port(start_worker(rows, *OBSERVED))
    eventually(lambda: port.metrics().get("projector_lag_seconds", 0) > 0.5, 5)
    assert port.metrics()["projector_outstanding"] == 0
    assert port.livez().state == "idle"


@pytest.mark.parametrize("has_bucket", [True, False])
@pytest.mark.parametrize("seconds_off", [3600, -3600])
def test_lag_is_measured_by_the_brokers_clock(
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    projector: Projector,
    seconds_off: int,
    has_bucket: bool,
) -> None:
    if has_bucket:
        stream.make_bucket()
    fault = ("wrong-clock", seconds_off)
    environment, command = faulty(*fault)
    port = Port(start_worker(rows, *OBSERVED, fault=fault))
    port.wait_for("idle", 200)
    with rows.locked():
        began = time.monotonic()
        stream.publish()

        def is_true(lag: float | None) -> bool:
            # A command takes a second or two; the wrong clock is an hour off.
            return lag is not None and lag > 1 and abs(lag - (time.monotonic() - began)) < 5

        eventually(lambda: is_true(port.readyz().document["lag_seconds"]), 10)
        eventually(lambda: is_true(port.metrics().get("projector_lag_seconds")), 10)
        done = projector("status", "--json", command=command, **environment)
        assert is_true(done.document["behind_seconds"]), done
        text = projector("status", command=command, **environment).output
        assert re.search(r"behind; 1 waiting, the oldest for [0-9.]+ s$", text, re.MULTILINE)
    eventually(lambda: port.livez().document["lag_seconds"] == 0, 10)


def test_the_brokers_clock_is_read_again_after_a_reconnect(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        broker.make_bucket()
    port = Port(start_worker(rows, *OBSERVED, nats=server.url))
    port.wait_for("idle", 200)
    server.stop()
    port.wait_for("broker_unreachable", 200)
    server.start()
    port.wait_for("idle", 200, within=30)
    with rows.locked(), Broker(server.url) as broker:
        broker.publish()
        eventually(lambda: port.metrics().get("projector_lag_seconds", 0) > 0.5, 10)


@pytest.mark.parametrize("retention", ["workqueue", "interest"])
def test_lag_is_unknown_where_the_broker_does_not_report_its_time(
    broker: Broker, rows: Rows, start_worker: StartWorker, projector: Projector, retention: str
) -> None:
    if broker.version >= (2, 10):
        pytest.skip("servers since 2.10 tell their time in each answer")
    # A second consumer is refused, or would keep messages, and there is no bucket.
    broker.make_stream(retention=retention)
    port = Port(start_worker(rows, *OBSERVED))
    port.wait_for("idle", 200)
    with rows.locked():
        broker.publish()
        eventually(lambda: port.livez().document["lag_seconds"] is None, 10)
        assert "projector_lag_seconds" not in port.metrics()
        assert projector("status", "--json").document["behind_seconds"] is None
        assert "1 waiting, since when is unknown" in projector("status").output
    eventually(lambda: port.livez().document["lag_seconds"] == 0, 10)


def test_metrics_show_what_was_read_again(
    stream: Broker, rows: Rows, start_worker: StartWorker, run_until_idle: RunUntilIdle
) -> None:
    stream.publish()
    run_until_idle(rows)
    wiped = Rows(rows.path.with_name("wiped.db"))
    port = Port(start_worker(wiped, *OBSERVED, "--migrate"))
    eventually(lambda: port.metrics().get("projector_caught_up") == 1, 10)
    assert port.metrics()["projector_catch_up_messages_total"] == 1
    assert wiped.count() == 1


# --- health ---


def test_a_worker_is_live_and_ready_while_idle_and_while_it_works_through_a_backlog(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    port = Port(start_worker(rows, *IMPATIENT, "--batch", "5"))
    idle = port.wait_for("idle", 200)
    assert idle.document["live"] is True
    eventually(lambda: port.readyz().status == 200, 5)
    stream.publish_starts(events.start() for _ in range(3000))
    working = port.wait_for("working", 200)
    assert working.document["restart_helps"] is False
    eventually(lambda: port.livez().document["lag_seconds"], 5)
    # This takes longer than --stalled-after, but every batch is progress.
    while rows.count() < 3000:
        assert port.livez().status == 200
    after = port.wait_for("idle", 200)
    assert after.document["pending"] == 0
    eventually(lambda: port.livez().document["lag_seconds"] == 0, 5)


def test_a_worker_without_a_broker_is_live_but_not_ready_and_keeps_its_watchdog(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    server = make_server().start()
    worker = start_worker(
        rows, *IMPATIENT, "--create-stream", nats=server.url, environment=supervised(notify)
    )
    port = Port(worker)
    port.wait_for("idle", 200)
    server.stop()
    health = port.wait_for("broker_unreachable", 200)
    assert "broker" in health.document["reason"]
    assert health.document["restart_helps"] is False
    assert port.readyz().status == 503
    assert_watchdog_is_kept(notify)
    assert port.livez().state == "broker_unreachable"
    server.start()
    port.wait_for("idle", 200)
    eventually(lambda: port.readyz().status == 200, 5)
    assert port.metrics()["projector_reconnects_total"] >= 1
    assert worker.stop() == 0


ASKED_OF_THE_BROKER = ("lag_seconds", "pending", "ack_pending")


def assert_unknown(port: Port) -> None:
    """Assert that nothing is claimed that only the broker knows."""
    document, metrics = port.readyz().document, port.metrics()
    assert document["state"] == "broker_unreachable"
    assert {name: document[name] for name in ASKED_OF_THE_BROKER} == dict.fromkeys(
        ASKED_OF_THE_BROKER
    )
    assert not {f"projector_{name}" for name in ASKED_OF_THE_BROKER} & set(metrics)
    assert metrics['projector_state{state="broker_unreachable"}'] == 1


def test_in_a_network_partition_what_only_the_broker_knows_is_unknown(
    server: NatsServer,
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    notify: NotifySocket,
) -> None:
    with Proxy(server.port) as proxy:
        environment = {**supervised(notify), **UNCLOSED}
        worker = start_worker(rows, *OBSERVED, nats=proxy.url, environment=environment)
        port = Port(worker)
        port.wait_for("idle", 200)
        with proxy.partitioned():
            deployment.publish()
            health = port.wait_for("broker_unreachable", 200)
            # The pull and the client library notice later.
            assert worker.logged("pull.lost") == worker.logged("broker.disconnected") == []
            assert re.fullmatch(r"the broker has sent nothing for \d+ s", health.document["reason"])
            assert port.readyz().status == 503
            while not worker.logged("broker.unavailable"):
                assert_unknown(port)
            notify.wait_for("STATUS=broker_unreachable: lag unknown;")
        port.wait_for("idle", 200)
        assert port.readyz().document["pending"] == 0
        assert rows.count() == 1
        assert worker.stop() == 0


def test_a_broker_that_was_killed_stays_unreachable_until_it_is_back(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    worker = start_worker(rows, *OBSERVED, "--create-stream", nats=server.url, environment=UNCLOSED)
    port = Port(worker)
    port.wait_for("idle", 200)
    server.kill()
    port.wait_for("broker_unreachable", 200)
    while not worker.logged("pull.lost"):
        assert_unknown(port)
    assert_unknown(port)
    server.start()
    port.wait_for("idle", 200)
    assert worker.stop() == 0


def test_a_missing_permission_and_a_wrong_password_are_shown_without_the_password(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(
        "authorization { users: [ { user: all, password: x },\n"
        '{ user: few, password: y, permissions: { publish: ["$JS.API.STREAM.INFO.>"], '
        'subscribe: ["_INBOX.>"] } } ] }'
    ).start()
    with Broker(server.login("all")) as broker:
        broker.make_stream()
    few, unknown = (
        start_worker(rows, *IMPATIENT, nats=server.login("few", word)) for word in ("y", "wr0ng")
    )
    port = Port(few)
    health = port.wait_for("permission_denied", 200)
    assert "permissions violation" in health.document["reason"].lower()
    assert port.readyz().status == 503
    health = Port(unknown).wait_for("permission_denied", 200)
    assert "authorization violation" in health.document["reason"].lower()
    assert "wr0ng" not in health.document["reason"]


def test_a_worker_with_a_locked_database_is_not_live_but_keeps_its_watchdog(
    stream: Broker, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    worker = start_worker(rows, *IMPATIENT, environment=supervised(notify))
    port = Port(worker)
    port.wait_for("idle", 200)
    with rows.locked():
        stream.publish()
        health = port.wait_for("database_blocked", 503)
        assert "lock" in health.document["reason"]
        assert health.document["restart_helps"] is False
        assert port.readyz().status == 503
        assert_watchdog_is_kept(notify)
        metrics = port.metrics()
        assert metrics["projector_database_busy_total"] > 0
        assert metrics["projector_database_retries_total"] > 0
        assert metrics["projector_lag_seconds"] > 1
    port.wait_for("idle", 200)
    assert rows.count() == 1
    notify.wait_for("STATUS=database_blocked: ")
    assert worker.stop() == 0


def test_a_commit_that_waits_for_the_disk_is_shown_within_seconds_and_keeps_the_watchdog(
    stream: Broker, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    fault = ("frozen-disk", str(rows.path.with_name("frozen")))
    worker = start_worker(rows, *OBSERVED, environment=supervised(notify), fault=fault)
    port = Port(worker)
    port.wait_for("idle", 200)
    rows.path.with_name("frozen").touch()
    stream.publish()
    health = port.wait_for("database_blocked", 200)
    assert re.fullmatch(
        r"a commit has been waiting for the disk for \d+ s", health.document["reason"]
    )
    assert (health.document["restart_helps"], port.readyz().status) == (False, 503)
    assert health.document["without_progress_seconds"] < 60  # the default of --stalled-after
    assert_watchdog_is_kept(notify)
    rows.path.with_name("frozen").unlink()
    port.wait_for("idle", 200)
    assert rows.count() == 1
    assert worker.stop() == 0


@pytest.mark.parametrize(
    ("state", "place"), [("hung", "message arrives"), ("stalled", "batch in a pool thread")]
)
def test_a_thread_that_hangs_makes_the_worker_not_live_and_stops_the_watchdog(
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    notify: NotifySocket,
    *,
    state: str,
    place: str,
) -> None:
    worker = start_worker(rows, *IMPATIENT, environment=supervised(notify), fault=("hang", place))
    port = Port(worker)
    port.wait_for("idle", 200)
    stream.publish()
    health = port.wait_for(state, 503)
    assert health.document["restart_helps"] is True
    assert port.readyz().status == 503
    notify.wait_for(f"STATUS={state}: ")
    assert notify.lines()[-1].startswith(f"STATUS={state}: ")
    count = len(notify.lines())
    with pytest.raises(AssertionError, match="no WATCHDOG=1"):
        notify.wait_for("WATCHDOG=1", after=count, within=0.5)


# --- systemd ---


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_is_notified_in_order_from_start_to_stop(
    stream: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path, *, abstract: bool
) -> None:
    address = f"@{tmp_path}" if abstract else str(tmp_path / "socket")
    with closing(NotifySocket(address)) as notify:
        worker = start_worker(rows, "--drain-timeout", "7s", environment=supervised(notify))
        ready = notify.wait_for("READY=1")
        status = notify.wait_for("STATUS=idle: lag 0 s", after=ready)
        watchdog = notify.wait_for("WATCHDOG=1", after=status)
        assert worker.stop() == 0
        stopping = notify.wait_for("STOPPING=1", after=watchdog)
        assert notify.lines()[stopping + 1] == "EXTEND_TIMEOUT_USEC=12000000"
        assert notify.lines().count("READY=1") == notify.lines().count("STOPPING=1") == 1


def test_a_start_that_waits_for_a_locked_database_asks_systemd_for_more_time(
    stream: Broker, tmp_path: Path, start_worker: StartWorker, notify: NotifySocket
) -> None:
    rows = Rows(tmp_path / "locked.db")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("CREATE TABLE of_another_program (x)")
        other.execute("BEGIN IMMEDIATE")
        stopped = start_worker(rows, *IMPATIENT, "--migrate")
        worker = start_worker(rows, *IMPATIENT, "--migrate", environment=supervised(notify))
        notify.wait_for("EXTEND_TIMEOUT_USEC=30000000")
        port = Port(worker)
        port.wait_for("database_blocked", 200)
        assert "READY=1" not in notify.lines()
        for waiting in (stopped, worker):
            assert "locked" in waiting.wait_for("database.unavailable")["error"]
        assert stopped.stop(within=5) == 0
        other.execute("COMMIT")
    notify.wait_for("READY=1")
    port.wait_for("idle", 200)
    assert worker.stop() == 0


def test_a_notify_socket_without_a_listener_does_not_stop_the_worker(
    stream: Broker, rows: Rows, tmp_path: Path, run_until_idle: RunUntilIdle
) -> None:
    run_until_idle(rows, environment={"NOTIFY_SOCKET": str(tmp_path / "none")})


def test_a_consumer_paused_while_a_worker_runs_is_shown_until_it_is_resumed(
    stream: Broker, rows: Rows, start_worker: StartWorker, projector: Projector
) -> None:
    if stream.version < (2, 11):
        pytest.skip("needs nats-server 2.11; set NATS_SERVER")
    worker = start_worker(rows, *OBSERVED, pulling=True)
    port = Port(worker)
    worker.until(lambda: port.readyz().status == 200)
    until = "2999-01-01T00:00:00Z"
    stream.pause_consumer(until)
    assert worker.wait_for("consumer.paused", level="warning")["until"] == until
    health = port.readyz()
    assert (health.status, health.state) == (503, "consumer_paused")
    assert until in health.document["reason"]
    assert projector("status", "--json").document["consumer"]["paused_until"] == until
    stream.pause_consumer("1999-01-01T00:00:00Z")
    worker.wait_for("consumer.resumed")
    assert port.readyz().status == 200
    assert projector("status", "--json").document["consumer"]["paused_until"] is None
    assert len(worker.logged("consumer.paused")) == 1
