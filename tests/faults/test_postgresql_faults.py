"""PostgreSQL fails under the workers: nothing is lost, nothing twice, nothing stuck."""

import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from tests.conftest import StartPublisher, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import run_here
from tests.support.nats_server import NatsServer
from tests.support.outcome import assert_complete, wait_for_more
from tests.support.postgresql import Cluster, Pooler, PostgresRows
from tests.support.scale import short_and_long
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

STARTS_ALONE = {"PROJECTOR_PROJECTION": "starts"}
QUICK = ("--ack-wait", "2s", "--batch", "50")
SESSIONS = "FROM pg_stat_activity WHERE application_name = 'start-projector' AND state IS NOT NULL"


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A server for this test only; a crash must not lose what it has committed."""
    started = Cluster({"fsync": "on"})
    yield started
    started.remove()


@pytest.fixture
def rows(cluster: Cluster, tmp_path: Path) -> PostgresRows:
    return PostgresRows(tmp_path / "projector.db", cluster, cluster.create_database())


def completes(
    stream: Broker, rows: PostgresRows, result_ids: list[str], *workers: WorkerProcess
) -> None:
    """Assert that all is projected, and that the workers end as they should."""
    workers[0].until(lambda: rows.count() >= len(set(result_ids)), 60)
    assert_complete(stream, rows, result_ids, within=60, worker=workers[0])
    assert rows.query("SELECT DISTINCT status FROM executions") == [{"status": "running"}]
    for worker in workers:
        assert worker.is_running()
        assert worker.stop() == 0
        assert worker.logged("worker.failed") == worker.logged("event.rejected") == []


# --- the server ends, or sessions on it -----------------------------------------------------------


def terminate_sessions(cluster: Cluster) -> None:
    cluster.ask(f"SELECT pg_terminate_backend(pid) {SESSIONS}")


def kill_a_session(cluster: Cluster) -> None:
    """Kill a session's process: the server then ends all others and recovers."""
    pids = eventually(lambda: [pid for (pid,) in cluster.ask(f"SELECT pid {SESSIONS}")], 30)
    os.kill(int(str(random.choice(pids))), signal.SIGKILL)


def restart(cluster: Cluster) -> None:
    cluster.stop("fast")
    time.sleep(0.5)
    cluster.start()


def kill_the_server(cluster: Cluster) -> None:
    cluster.kill()
    (cluster.data / "postmaster.pid").unlink(missing_ok=True)
    time.sleep(0.5)
    eventually(lambda: _starts(cluster), 30)


def _starts(cluster: Cluster) -> bool:
    """Return whether the server starts: not while sessions of the one that was killed remain."""
    try:
        cluster.start()
    except RuntimeError:
        time.sleep(0.2)
        return False
    return True


@short_and_long("times", short=2, long=15, timeout=400)
@pytest.mark.parametrize(
    "fault",
    [terminate_sessions, kill_a_session, restart, kill_the_server],
    ids=lambda f: f.__name__,
)
def test_two_workers_outlive_a_server_that_fails_under_load(
    server: NatsServer,
    stream: Broker,
    cluster: Cluster,
    rows: PostgresRows,
    start_worker: StartWorker,
    start_publisher: StartPublisher,
    fault: Callable[[Cluster], None],
    times: int,
) -> None:
    rows.insert_execution("execution-1", 10_000_000)
    publisher = start_publisher(server.url, rest=0.1)
    workers = [start_worker(rows, *QUICK, pulling=True) for _ in range(2)]
    for _ in range(times):
        wait_for_more(rows, workers[0], within=30)
        fault(cluster)
    wait_for_more(rows, workers[0], within=30)
    completes(stream, rows, publisher.stop(), *workers)


# --- a failover that loses commits ----------------------------------------------------------------


@pytest.mark.parametrize("survives", [True, False], ids=["the worker survives", "it is killed too"])
def test_a_failover_that_loses_commits_gets_them_back_from_the_stream(
    server: NatsServer,
    stream: Broker,
    cluster: Cluster,
    rows: PostgresRows,
    start_worker: StartWorker,
    start_publisher: StartPublisher,
    *,
    survives: bool,
) -> None:
    standby = Cluster({"fsync": "on"}, copy_of=cluster)
    try:
        rows.insert_execution("execution-1", 10_000_000)
        url = f"{rows.url},{standby.folder}&target_session_attrs=primary"
        publisher = start_publisher(server.url, rest=0.1)
        worker = start_worker(url, *QUICK, pulling=True)
        wait_for_more(rows, worker)
        standby.stop("fast")  # what is committed from now on is lost
        wait_for_more(rows, worker)
        if not survives:
            publisher.stop()
            eventually(stream.is_acked, 20)
            worker.kill()
        committed = rows.count()
        cluster.stop("immediate")
        standby.start()
        standby.promote()
        rows.move_to(standby)
        assert rows.count() < committed
        if not survives:
            worker = start_worker(url, *QUICK)
        result_ids = publisher.stop()
        completes(stream, rows, result_ids, worker)
    finally:
        standby.remove()


def test_a_failover_behind_a_pooler_whose_connections_survive_loses_nothing(
    stream: Broker,
    cluster: Cluster,
    rows: PostgresRows,
    start_worker: StartWorker,
) -> None:
    """One worker commits and acks what the standby lacks; another goes on after the failover."""
    standby, pooler = Cluster({"fsync": "on"}, copy_of=cluster), None
    try:
        pooler = Pooler(cluster)
        url = pooler.url(rows.name)
        rows.insert_execution("execution-1", 10_000_000)
        first = start_worker(url, "--ack-wait", "2s", pulling=True)
        stream.publish_starts(events.start(result_id=f"before-{at}") for at in range(50))
        first.until(lambda: rows.count() == 50)
        idle = start_worker(url, "--ack-wait", "2s", pulling=True)
        eventually(lambda: standby.ask("SELECT count(*) FROM pg_stat_wal_receiver") == [(1,)], 10)
        eventually(lambda: _has_rows(standby, rows, 50), 10)
        standby.stop("fast")
        stream.publish_starts(events.start(result_id=f"lost-{at}") for at in range(50))
        first.until(lambda: rows.count() == 100)
        eventually(stream.is_acked, 10)
        first.kill()
        cluster.stop("immediate")
        standby.start()
        standby.promote()
        pooler.point_to(standby)
        pooler.reload()
        rows.move_to(standby)
        stream.publish_starts(events.start(result_id=f"after-{at}") for at in range(50))
        expected = [f"{when}-{at}" for when in ("before", "lost", "after") for at in range(50)]
        completes(stream, rows, expected, idle)
    finally:
        if pooler is not None:
            pooler.stop()
        standby.remove()


def _has_rows(standby: Cluster, rows: PostgresRows, count: int) -> bool:
    return standby.ask("SELECT count(*) FROM execution_results", rows.name) == [(count,)]


def test_workers_share_the_sessions_of_a_pooler(
    server: NatsServer,
    stream: Broker,
    cluster: Cluster,
    rows: PostgresRows,
    start_worker: StartWorker,
    start_publisher: StartPublisher,
) -> None:
    pooler = Pooler(cluster)
    try:
        url = pooler.url(rows.name)
        rows.insert_execution("execution-1", 10_000_000)
        publisher = start_publisher(server.url, rest=0.1)
        workers = [start_worker(url, *QUICK, pulling=True) for _ in range(2)]
        for _ in range(2):
            wait_for_more(rows, workers[0])
        completes(stream, rows, publisher.stop(), *workers)
        assert all(not worker.logged("database.unavailable") for worker in workers)
        status = run_here("status", "--database", url, "--nats", server.url, **STARTS_ALONE)
        assert status.code == 0, status
    finally:
        pooler.stop()


# --- what does not let the worker write -----------------------------------------------------------


@contextmanager
def read_only(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.ask(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    yield
    cluster.ask(f"ALTER DATABASE {name} RESET default_transaction_read_only")


@contextmanager
def no_connections(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.ask("ALTER ROLE limited CONNECTION LIMIT 0")
    yield
    cluster.ask("ALTER ROLE limited CONNECTION LIMIT -1")


@contextmanager
def no_right(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.ask("REVOKE INSERT ON execution_results FROM limited", name)
    yield
    cluster.ask("GRANT INSERT ON execution_results TO limited", name)


@contextmanager
def short_statements(cluster: Cluster, name: str) -> Iterator[None]:
    cluster.ask("ALTER ROLE limited SET statement_timeout = '1ms'")
    cluster.ask(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS"
        " $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$",
        name,
    )
    cluster.ask(
        "CREATE TRIGGER slow BEFORE INSERT ON execution_results"
        " FOR EACH ROW EXECUTE FUNCTION slow()",
        name,
    )
    yield
    cluster.ask("ALTER ROLE limited RESET statement_timeout")
    cluster.ask("DROP TRIGGER slow ON execution_results", name)


@contextmanager
def locked_table(cluster: Cluster, name: str) -> Iterator[None]:
    with psycopg.connect(host=str(cluster.folder), dbname=name, user="tester") as other:
        other.execute("LOCK TABLE execution_results IN SHARE MODE")
        yield


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (read_only, "cannot execute"),
        (no_connections, "too many connections"),
        (no_right, "permission denied"),
        (short_statements, "statement timeout"),
        (locked_table, "lock timeout"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_database_that_takes_nothing_for_a_while_is_waited_for(
    server: NatsServer,
    stream: Broker,
    cluster: Cluster,
    rows: PostgresRows,
    start_worker: StartWorker,
    fault: Callable[..., object],
    said: str,
) -> None:
    cluster.ask("CREATE ROLE limited LOGIN")
    cluster.ask("GRANT ALL ON ALL TABLES IN SCHEMA public TO limited", rows.name)
    cluster.ask("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO limited", rows.name)
    rows.insert_execution("execution-1", 10_000_000)
    url = rows.url.replace("tester@", "limited@")
    options = (*QUICK, "--busy-timeout", "0.1", "--retry-for", "0.5")
    worker = start_worker(url, *options, pulling=True)
    stream.publish_starts(events.start(result_id=f"before-{at}") for at in range(10))
    worker.until(lambda: rows.count() == 10)
    with fault(cluster, rows.name):  # type: ignore[attr-defined]
        if fault in (no_connections, read_only, short_statements):
            terminate_sessions(cluster)
        stream.publish_starts(events.start(result_id=f"during-{at}") for at in range(10))
        worker.wait_for_error(None, said)
        assert rows.count() == 10
    expected = [f"{when}-{at}" for when in ("before", "during") for at in range(10)]
    completes(stream, rows, expected, worker)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can mount a small disk")
def test_a_disk_that_is_full_is_waited_for(
    stream: Broker, cluster: Cluster, rows: PostgresRows, start_worker: StartWorker, tmp_path: Path
) -> None:
    disk = cluster.folder / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m,mode=777", "tmpfs", disk], check=False
    )
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        place = disk / "space"
        place.mkdir()
        os.chown(place, cluster.as_user["user"], cluster.as_user["group"])
        cluster.ask(f"CREATE TABLESPACE small LOCATION '{place}'")
        cluster.ask("ALTER TABLE execution_results SET TABLESPACE small", rows.name)
        rows.insert_execution("execution-1", 10_000_000)
        text = "x" * 700  # does not fit for all of them
        wide = [f"r-{at}-{text}" for at in range(20_000)]
        worker = start_worker(rows, "--ack-wait", "5s", pulling=True)
        stream.publish_starts(events.start(result_id=one) for one in wide)
        worker.wait_for_error("database.unavailable", "No space left", within=30)
        assert 0 < rows.count() < len(wide)
        subprocess.run(["mount", "-o", "remount,size=200m", disk], check=True)
        completes(stream, rows, wide, worker)
    finally:
        cluster.stop()
        subprocess.run(["umount", disk], check=False)


def test_a_server_that_is_away_at_the_start_is_waited_for(
    stream: Broker, cluster: Cluster, rows: PostgresRows, start_worker: StartWorker
) -> None:
    rows.insert_execution("execution-1", 10_000_000)
    cluster.stop("fast")
    worker = start_worker(rows)
    worker.wait_for("database.unavailable")
    assert worker.is_running()
    cluster.start()
    worker.wait_for("pull.started")
    stream.publish_starts([events.start(result_id="r1")])
    completes(stream, rows, ["r1"], worker)


def test_a_standby_is_waited_for_until_it_is_promoted(
    stream: Broker, cluster: Cluster, rows: PostgresRows, start_worker: StartWorker
) -> None:
    rows.insert_execution("execution-1", 10_000_000)
    standby = Cluster({"fsync": "on"}, copy_of=cluster)
    try:
        eventually(lambda: standby.ask("SELECT count(*) FROM pg_stat_wal_receiver") == [(1,)], 10)
        rows.move_to(standby)
        worker = start_worker(rows)
        worker.wait_for("database.unavailable")
        check = run_here("check", "--database", rows.url, "--nats", stream.url)
        assert "standby" in check.output
        stream.publish_starts([events.start(result_id="r1")])
        assert worker.is_running()
        standby.promote()
        worker.wait_for("pull.started", within=20)
        completes(stream, rows, ["r1"], worker)
    finally:
        standby.remove()


def test_an_execution_that_another_program_holds_delays_no_run_of_any(
    stream: Broker, cluster: Cluster, rows: PostgresRows, start_worker: StartWorker
) -> None:
    rows.insert_execution("execution-1", 10_000_000)
    worker = start_worker(rows, *QUICK, pulling=True)
    with psycopg.connect(host=str(cluster.folder), dbname=rows.name, user="tester") as other:
        other.execute("UPDATE executions SET job_id = 'x'")
        stream.publish_starts(events.start(result_id=f"held-{at}") for at in range(100))
        worker.until(lambda: rows.count() == 100, 10)
        eventually(stream.is_acked, 5)
        assert worker.logged("database.unavailable") == []
        other.rollback()
    stream.publish_starts([events.start(result_id="free")])
    completes(stream, rows, [*(f"held-{at}" for at in range(100)), "free"], worker)


def test_an_execution_that_another_program_holds_delays_the_results_of_no_other(
    stream: Broker, cluster: Cluster, rows: PostgresRows, start_worker: StartWorker
) -> None:
    stream.make_results_stream()
    stream.make_bucket()
    for exec_id in ("held", "free"):
        rows.insert_execution(exec_id, 1000, "running")
    worker = start_worker(rows, "--busy-timeout", "0.2", pulling=True, results=True)
    with psycopg.connect(host=str(cluster.folder), dbname=rows.name, user="tester") as other:
        other.execute("UPDATE executions SET job_id = 'x' WHERE exec_id = 'held'")
        stream.publish_results(
            events.result(result_id=f"r-{at}", exec_id=("held", "free")[at % 2]) for at in range(40)
        )
        worker.until(lambda: rows.execution("free") == "20/0 running", 15)
        worker.wait_for("executions.held")
        assert worker.logged("database.unavailable") == []
        other.rollback()
    worker.until(lambda: rows.execution("held") == "20/0 running", 30)
    assert rows.count() == 40
    assert worker.stop() == 0
