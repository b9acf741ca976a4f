"""The broker is unavailable, silent or refuses the worker, which logs the cause and tries again."""

import socket
import time

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

USERS = "authorization {{ users: [ {{ user: all, password: x }}, {{ user: me, password: {} }} ] }}"
ACCOUNT = "accounts {{ FLEET {{ {} users: [ {{ user: me, password: x }} ] }} }}"


def assert_projects(url: str, rows: Rows, worker: WorkerProcess) -> None:
    """Assert that the worker becomes ready and a start that is published now becomes a run."""
    with Broker(url) as broker:
        eventually(broker.has_stream, 20, lambda: worker.text)
        # A stream that was only just created may not take messages yet.
        worker.wait_for("worker.ready", within=20)
        result_id = f"at last {time.monotonic()}"
        broker.publish(result_id=result_id)
    worker.until(lambda: rows.run(result_id), 20)
    assert worker.stop() == 0


def test_a_broker_that_is_unavailable_silent_or_refusing_is_logged_at_each_attempt(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    # All three at the same time, because each takes several seconds.
    absent, refusing = make_server().start(), make_server(USERS.format("other")).start()
    absent.stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        at_absent = start_worker(rows, "--create-stream", nats=absent.url)
        at_refusing = start_worker(rows, "--create-stream", nats=refusing.login("me", "mine"))
        at_silent = start_worker(rows, nats=f"nats://127.0.0.1:{silent.getsockname()[1]}")
        causes = {
            "refused": at_absent,
            "authorization violation": at_refusing,
            "the server does not greet": at_silent,
        }
        for cause, worker in causes.items():
            line = worker.wait_for("broker.unavailable", times=2, within=30)
            assert line["level"] == "warning"
            # When a server hangs up, its last message is sometimes lost, but not every time.
            worker.wait_for_error("broker.unavailable", cause, within=30)
            assert worker.logged("worker.ready") == worker.logged("worker.started") == []
            assert worker.wait_for("worker.not_ready")["error"]
        assert at_silent.stop(within=6) == 0
    refusing.configure(USERS.format("mine"))
    absent.start()
    assert_projects(absent.url, rows, at_absent)
    assert_projects(refusing.login("all"), rows, at_refusing)


@pytest.mark.parametrize("lacking", ["server", "account"])
def test_a_server_or_account_without_jetstream_is_logged_until_jetstream_is_enabled(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker, lacking: str
) -> None:
    by_server = lacking == "server"
    server = make_server("" if by_server else ACCOUNT.format(""), jetstream=not by_server).start()
    url = server.url if by_server else server.login("me")
    worker = start_worker(rows, "--create-stream", nats=url)
    line = worker.wait_for("pull.lost", times=2, within=20)
    assert "jetstream" in line["error"].lower()
    assert worker.logged("worker.ready") == []
    server.stop()
    server.configure("" if by_server else ACCOUNT.format("jetstream: enabled,"))
    server.start()
    assert_projects(url, rows, worker)
