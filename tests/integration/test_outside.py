"""Metrics, health and systemd's notifications of a real worker, in each state that it can be in."""

import shutil
import socket
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.outside import SEEN, NotifySocket, Port, notify_socket_in
from tests.support.rows import Rows
from tests.support.waiting import eventually
from worker.projections.manifests import REASONS
from worker.status.health import STATES

IMPATIENT = (*SEEN, "--stalled-after", "1s", "--busy-timeout", "100ms", "--retry-for", "500ms")


@pytest.fixture
def notify(tmp_path: Path) -> Iterator[NotifySocket]:
    with closing(notify_socket_in(tmp_path)) as listening:
        yield listening


@contextmanager
def locked(rows: Rows) -> Iterator[None]:
    """Hold the write lock of the database, as another program would."""
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def with_bug(folder: Path, code: str) -> dict[str, str]:
    """Return the environment of a worker in which `code` has run before the worker's own."""
    (folder / "sitecustomize.py").write_text(code)
    return {"PYTHONPATH": str(folder)}


# --- metrics ---


def test_the_metrics_of_a_drain_equal_the_totals_of_the_stop_line(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "30s"}})
    starts = [events.start(manifest_id="job-1") for _ in range(700)]
    broker.publish_starts([*starts, *starts[:50], events.start(manifest_id="unknown")])
    for payload in (b"no start", b"{}"):
        broker.publish(payload)
    worker = start_worker(rows, *SEEN, "--batch", "100")
    port = Port(worker)
    published = 700 + 50 + 1 + 2
    eventually(lambda: port.metrics()['projector_acks_total{outcome="sent"}'] == published, 15)
    eventually(lambda: port.metrics()["projector_ack_pending"] == 0, 5)
    seen = port.metrics()
    assert worker.stop() == 0
    counters = worker.counters

    outcomes = {
        "run_inserted": "runs_inserted",
        "run_duplicate": "runs_duplicate",
        "rejected": "rejected",
        "rejected_duplicate": "rejected_duplicate",
        "naks": "naks",
    }
    for outcome, name in outcomes.items():
        assert seen[f'projector_messages_total{{outcome="{outcome}"}}'] == counters[name]
    for reason in REASONS:
        missing = seen[f'projector_deadlines_missing_total{{reason="{reason}"}}']
        assert missing == counters[f"deadline_missing_{reason}"]
    for name in (
        *("redelivered", "promotions_failed"),
        *("database_busy", "database_retries", "database_faults"),
    ):
        assert seen[f"projector_{name}_total"] == counters[name]
    assert seen['projector_acks_total{outcome="sent"}'] == counters["settled"] == published
    assert seen['projector_acks_total{outcome="dropped"}'] == 0
    assert seen["projector_batch_messages_sum"] == counters["messages"] == published
    assert seen["projector_batch_messages_count"] == counters["batches"]
    assert seen["projector_batch_duration_seconds_count"] == counters["batches"]
    # The checkpoint is put in a transaction of its own, after one that finds out about the lock.
    assert seen["projector_commit_duration_seconds_count"] >= counters["batches"] + 2
    assert (counters["runs_inserted"], counters["runs_duplicate"]) == (701, 50)
    assert counters["rejected"] == 2
    assert counters["deadline_missing_manifest_unknown"] == 1

    assert seen["projector_pending"] == seen["projector_outstanding"] == 0
    assert seen["projector_manifests"] == 1
    assert 0 <= seen["projector_manifests_snapshot_age_seconds"] < 30
    assert seen["projector_wal_bytes"] > 0
    assert seen["projector_disk_free_bytes"] > 0
    assert seen["projector_caught_up"] == seen["projector_ready"] == seen["projector_live"] == 1
    assert seen["projector_last_commit_timestamp_seconds"] > 0
    assert [seen[f'projector_state{{state="{state}"}}'] for state in STATES].count(1) == 1


def test_no_series_names_a_pc_a_run_or_an_execution(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish(result_id="r-secret", exec_id="e-secret", pc_id="p-secret", request_id="secret")
    broker.publish(manifest_id="m-secret")
    broker.publish(b"junk", subject="events.started.e-secret.p-secret")
    port = Port(start_worker(rows, *SEEN))
    eventually(lambda: port.metrics()['projector_messages_total{outcome="rejected"}'] == 1, 10)
    for path in ("/metrics", "/livez", "/readyz"):
        assert "secret" not in port.get(path)[1]
    assert port.get("/")[0] == 404


def test_without_a_port_nothing_listens_and_a_port_in_use_is_exit_78(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        refused = start_worker(rows, "--metrics-port", str(port))
        assert refused.exit_code() == 78
    (failed,) = refused.logged("worker.failed")
    assert f"127.0.0.1 port {port} cannot be listened on" in failed["error"]
    assert "Address already in use" in failed["error"]
    quiet = start_worker(rows, "--until-idle")
    assert quiet.exit_code() == 0
    assert quiet.logged("metrics.listening") == []


def test_lag_is_the_age_of_the_oldest_unsettled_event_wherever_it_is(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=60.0)
    broker.publish(result_id="with somebody else")
    broker.take_without_ack(1)
    port = Port(start_worker(rows, *SEEN))
    # Nothing is here: only the broker can tell how old what another worker holds is.
    eventually(lambda: port.metrics()["projector_lag_seconds"] > 0.5, 5)
    assert port.metrics()["projector_outstanding"] == 0
    assert port.livez().state == "idle"


def test_a_replay_is_seen_and_so_is_that_nothing_is_missing_after_it(
    broker: Broker, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.publish()
    first = start_worker(rows, "--until-idle")
    assert first.exit_code() == 0
    wiped = Rows(tmp_path / "wiped.db")
    missing = Port(start_worker(wiped, *SEEN, "--migrate", "--no-replay"))
    eventually(lambda: missing.metrics().get("projector_caught_up") == 0, 10)
    assert missing.metrics()["projector_replays_total"] == 0

    again = Rows(tmp_path / "again.db")
    replaying = Port(start_worker(again, *SEEN, "--migrate"))
    eventually(lambda: replaying.metrics()["projector_replays_total"] == 1, 10)
    eventually(lambda: replaying.metrics()["projector_caught_up"] == 1, 10)
    assert again.count() == 1


# --- health ---


def test_an_idle_worker_and_one_with_a_backlog_that_moves_are_live_and_ready(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    port = Port(start_worker(rows, *IMPATIENT, "--batch", "5"))
    idle = port.wait_for("idle", 200)
    assert idle.document["live"] is True
    eventually(lambda: port.readyz().status == 200, 5)
    broker.publish_starts(events.start() for _ in range(4000))
    working = port.wait_for("working", 200)
    assert working.document["restart_helps"] is False
    eventually(lambda: port.livez().document["lag_seconds"] > 0, 5)
    # Longer than the patience: what counts is that something is done, not how long it takes.
    answers = []
    while rows.count() < 4000:
        answers.append(port.livez())
    assert {answer.status for answer in answers} == {200}
    after = port.wait_for("idle", 200)
    assert after.document["lag_seconds"] == after.document["pending"] == 0


def test_a_broker_that_goes_is_told_of_and_the_watchdog_is_kept(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    server = make_server().start()
    environment = {"NOTIFY_SOCKET": notify.address, "WATCHDOG_USEC": "400000"}
    worker = start_worker(
        rows, *IMPATIENT, "--create-stream", nats=server.url, environment=environment
    )
    port = Port(worker)
    port.wait_for("idle", 200)
    server.stop()
    away = port.wait_for("broker_away", 200)
    assert "broker" in away.document["reason"]
    assert away.document["restart_helps"] is False
    assert port.readyz().status == 503
    seen = len(notify.told())
    for _ in range(12):  # a worker that waits for longer than its patience
        seen = notify.wait_for("WATCHDOG=1", after=seen) + 1
    assert port.livez().state == "broker_away"
    server.start()
    port.wait_for("idle", 200)
    eventually(lambda: port.readyz().status == 200, 5)
    assert port.metrics()["projector_reconnects_total"] >= 1
    assert worker.stop() == 0


def test_rights_that_are_missing_are_told_of(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(
        "authorization { users: [ { user: all, password: x },\n"
        '{ user: few, password: y, permissions: { publish: ["$JS.API.STREAM.INFO.>"], '
        'subscribe: ["_INBOX.>"] } } ] }'
    ).start()
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
    worker, stranger = (
        start_worker(rows, *IMPATIENT, nats=f"nats://{who}@127.0.0.1:{server.port}")
        for who in ("few:y", "few:wr0ng")
    )
    port = Port(worker)
    denied = port.wait_for("permission_denied", 200)
    assert "permissions violation" in denied.document["reason"].lower()
    assert port.readyz().status == 503
    refused = Port(stranger).wait_for("permission_denied", 200)
    assert "authorization violation" in refused.document["reason"].lower()
    assert "wr0ng" not in refused.document["reason"]


def test_a_locked_database_is_told_of_and_the_watchdog_is_kept(
    broker: Broker, rows: Rows, start_worker: StartWorker, notify: NotifySocket
) -> None:
    broker.make_stream()
    environment = {"NOTIFY_SOCKET": notify.address, "WATCHDOG_USEC": "400000"}
    worker = start_worker(rows, *IMPATIENT, environment=environment)
    port = Port(worker)
    port.wait_for("idle", 200)
    with locked(rows):
        broker.publish()
        blocked = port.wait_for("database_blocked", 503)
        assert "lock" in blocked.document["reason"]
        assert blocked.document["restart_helps"] is False
        assert port.readyz().status == 503
        seen = len(notify.told())
        for _ in range(12):
            seen = notify.wait_for("WATCHDOG=1", after=seen) + 1
        metrics = port.metrics()
        assert metrics["projector_database_busy_total"] > 0
        assert metrics["projector_database_retries_total"] > 0
        assert metrics["projector_lag_seconds"] > 1
    port.wait_for("idle", 200)
    assert rows.count() == 1
    notify.wait_for("STATUS=database_blocked: ")
    assert worker.stop() == 0


BUGS = {
    "hung": """
import time
from pathlib import Path
from worker.jetstream.outstanding import OutstandingMessages
arrive = OutstandingMessages.arrive
def hang(self, *arguments):
    arrive(self, *arguments)
    time.sleep(3600)
OutstandingMessages.arrive = hang
""",
    "stalled": """
import time
from worker.processing.processor import Projection
Projection.project = lambda self, *arguments: time.sleep(3600)
""",
}


@pytest.mark.parametrize("state", BUGS)
def test_a_loop_or_a_pool_thread_that_hangs_is_told_of_and_lets_the_watchdog_go(
    broker: Broker, rows: Rows, start_worker: StartWorker, notify: NotifySocket, state: str
) -> None:
    broker.make_stream()
    environment = {
        "NOTIFY_SOCKET": notify.address,
        "WATCHDOG_USEC": "400000",
        **with_bug(rows.path.parent, BUGS[state]),
    }
    worker = start_worker(rows, *IMPATIENT, environment=environment)
    port = Port(worker)
    port.wait_for("idle", 200)
    broker.publish()
    ill = port.wait_for(state, 503)
    assert ill.document["restart_helps"] is True
    assert port.readyz().status == 503
    notify.wait_for(f"STATUS={state}: ")
    assert notify.told()[-1].startswith(f"STATUS={state}: ")
    with pytest.raises(AssertionError, match="no WATCHDOG=1"):
        notify.wait_for("WATCHDOG=1", after=len(notify.told()), within=1.0)


# --- systemd ---


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_systemd_is_told_from_start_to_stop_in_order(
    broker: Broker, rows: Rows, start_worker: StartWorker, tmp_path: Path, *, abstract: bool
) -> None:
    broker.make_stream()
    address = f"@{tmp_path}" if abstract else str(tmp_path / "socket")
    with closing(NotifySocket(address)) as notify:
        worker = start_worker(
            rows,
            *("--drain-timeout", "7s"),
            environment={"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "400000"},
        )
        ready = notify.wait_for("READY=1")
        status = notify.wait_for("STATUS=idle: lag 0 s", after=ready)
        watchdog = notify.wait_for("WATCHDOG=1", after=status)
        assert worker.stop() == 0
        stopping = notify.wait_for("STOPPING=1", after=watchdog)
        assert notify.told()[stopping + 1] == "EXTEND_TIMEOUT_USEC=12000000"
        assert notify.told().count("READY=1") == notify.told().count("STOPPING=1") == 1


def test_a_worker_that_cannot_start_never_says_that_it_is_ready(
    broker: Broker, tmp_path: Path, start_worker: StartWorker, notify: NotifySocket
) -> None:
    broker.make_stream()
    environment = {"NOTIFY_SOCKET": notify.address}
    worker = start_worker(Rows(tmp_path / "new.db"), environment=environment)
    assert worker.exit_code() == 78
    assert "READY=1" not in notify.told()


def test_a_start_that_waits_for_a_locked_database_asks_systemd_for_more_time(
    broker: Broker, tmp_path: Path, start_worker: StartWorker, notify: NotifySocket
) -> None:
    broker.make_stream()
    rows = Rows(tmp_path / "locked.db")
    with closing(sqlite3.connect(rows.path, isolation_level=None)) as other:
        other.execute("CREATE TABLE of_another_program (x)")
        other.execute("BEGIN IMMEDIATE")
        worker = start_worker(
            rows, *IMPATIENT, "--migrate", environment={"NOTIFY_SOCKET": notify.address}
        )
        notify.wait_for("EXTEND_TIMEOUT_USEC=30000000")
        port = Port(worker)
        port.wait_for("database_blocked", 200)
        assert "READY=1" not in notify.told()
        other.execute("COMMIT")
    notify.wait_for("READY=1")
    port.wait_for("idle", 200)
    assert worker.stop() == 0


def test_a_socket_that_nobody_listens_on_stops_nothing(
    broker: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    broker.make_stream()
    environment = {"NOTIFY_SOCKET": str(tmp_path / "nobody"), "WATCHDOG_USEC": "400000"}
    worker = start_worker(rows, "--until-idle", environment=environment)
    assert worker.exit_code() == 0


# --- the broker's part ---


def test_the_rights_that_are_proposed_are_enough_for_all_that_the_worker_does(
    make_server: MakeServer, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    proposed = Path(__file__).parents[2] / "scripts" / "deploy" / "nats" / "worker.conf"
    (tmp_path / "nats-1").mkdir()
    shutil.copy(proposed, tmp_path / "nats-1")
    server = make_server(
        f"include {proposed.name}\nauthorization {{ users: [ {{ user: all, password: x }},\n"
        "{ user: projector, password: y, permissions: $PROJECTOR_WORKER } ] }"
    ).start()
    nats = f"nats://projector:y@127.0.0.1:{server.port}"
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
        broker.make_bucket()
        broker.put_manifest("job-1", {"execute": {"timeout": "30s"}})
        broker.publish()
        first = start_worker(rows, "--until-idle", nats=nats)
        assert first.exit_code() == 0
        broker.put_manifest("job-1", {"execute": {"timeout": "60s"}})
        wiped = Rows(tmp_path / "wiped.db")
        worker = start_worker(wiped, *SEEN, "--migrate", nats=nats)
        worker.wait_for("worker.ready")
        eventually(lambda: wiped.count() == 1, 10, lambda: worker.text)
        eventually(broker.is_settled, 5)
        with locked(wiped):
            broker.publish()
            port = Port(worker)
            eventually(lambda: port.metrics()["projector_lag_seconds"] > 0, 5)
        eventually(lambda: wiped.count() == 2, 10, lambda: worker.text)
        assert worker.stop() == 0
    for one in (first, worker):
        assert one.logged("broker.error") == one.logged("lag.unknown") == []
        assert one.logged("manifests.loaded")
