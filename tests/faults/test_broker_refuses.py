"""The broker is not there or refuses the worker: it says what is wrong, and tries again."""

import signal
import socket
import time
from functools import partial

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.outcome import assert_whole
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

# A user, who is also the consumer that this user's worker binds, and what the user is denied.
DENIED = {
    "stream": ("publish", "$JS.API.STREAM.INFO.EVENTS"),
    "consumer": ("publish", "$JS.API.CONSUMER.INFO.EVENTS.consumer"),
    "create": ("publish", "$JS.API.CONSUMER.DURABLE.CREATE.EVENTS.create"),
    "next": ("publish", "$JS.API.CONSUMER.MSG.NEXT.EVENTS.next"),
    "bucket": ("publish", "$JS.API.STREAM.INFO.KV_jobs"),
    "inbox": ("subscribe", "_INBOX.>"),
}


def test_a_broker_that_is_not_there_silent_or_refusing_is_told_of_each_time_it_is_tried(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    # All three at once, since each takes its time.
    users = (
        "authorization {{ users: [ {{ user: all, password: x }}, {{ user: me, password: {} }} ] }}"
    )
    absent, refusing = make_server().start(), make_server(users.format("other")).start()
    absent.stop()
    with socket.create_server(("127.0.0.1", 0)) as silent:
        mine = f"nats://me:mine@127.0.0.1:{refusing.port}"
        at_absent = start_worker(rows, "--create-stream", nats=absent.url)
        at_refusing = start_worker(rows, "--create-stream", nats=mine)
        at_silent = start_worker(rows, nats=f"nats://127.0.0.1:{silent.getsockname()[1]}")
        causes = {
            "refused": at_absent,
            "authorization violation": at_refusing,
            "timeout": at_silent,
        }
        for cause, worker in causes.items():
            for times in (1, 2):
                told = worker.wait_for("broker.unavailable", times=times, within=30)
                assert told["level"] == "warning"
            # A server that hangs up may take its last words with it, but not every time.
            worker.wait_for_error("broker.unavailable", cause, within=30)
            assert worker.logged("worker.ready") == []
            assert worker.logged("worker.started") == []
            assert worker.wait_for("worker.not_ready")["error"]
        assert at_silent.stop(within=6) == 0
    refusing.configure(users.format("mine"))
    absent.start()
    all_rights = f"nats://all:x@127.0.0.1:{refusing.port}"
    for url, worker in ((absent.url, at_absent), (all_rights, at_refusing)):
        _projects(url, rows, worker)
        worker.wait_for("worker.ready")
        assert worker.stop() == 0


def test_a_missing_permission_is_named_with_its_subject_until_it_is_granted(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(_users(DENIED)).start()
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
        broker.make_bucket()
        workers = {
            user: start_worker(
                rows, "--consumer", user, nats=f"nats://{user}:y@127.0.0.1:{server.port}"
            )
            for user in DENIED
        }
        for user, worker in workers.items():
            told = worker.wait_for_error(
                "manifests.unavailable" if user == "bucket" else "pull.lost",
                "permission",
                DENIED[user][1].rstrip(">"),
                within=20,
            )
            assert told["level"] == "warning"
            assert worker.is_running()
            if user != "bucket":
                assert worker.logged("worker.ready") == []
        server.configure(_users(dict.fromkeys(DENIED, ("publish", "nothing.of.ours"))))
        broker.publish(result_id="at last")
        for user, worker in workers.items():
            worker.wait_for("worker.ready", within=20)
            eventually(partial(broker.is_settled, user), 20)
        for worker in workers.values():
            worker.send(signal.SIGTERM)
        for worker in workers.values():
            assert worker.exit_code() == 0
    assert rows.result_ids() == ["at last"]


def test_acks_that_are_not_permitted_are_told_of_and_cost_no_second_row(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(_users({"few": ("publish", "$JS.ACK.>")})).start()
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
        broker.publish(result_id="once")
        worker = start_worker(
            rows, "--ack-wait", "1s", nats=f"nats://few:y@127.0.0.1:{server.port}"
        )
        worker.wait_for_error(None, "permission", "$js.ack.")
        eventually(lambda: rows.count() == 1, 5, lambda: worker.text)
        server.configure(_users({"few": ("publish", "nothing.of.ours")}))
        eventually(broker.is_settled, 15, lambda: worker.text)
        assert_whole(broker, rows, ["once"])
        assert worker.stop() == 0


def test_a_server_without_jetstream_is_told_of_until_it_has_it(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(jetstream=False).start()
    worker = start_worker(rows, "--create-stream", nats=server.url)
    told = worker.wait_for("pull.lost", times=2, within=20)
    assert "jetstream" in told["error"].lower()
    assert worker.logged("worker.ready") == []
    server.stop()
    server.configure("", jetstream=True)
    server.start()
    _projects(server.url, rows, worker)
    worker.wait_for("worker.ready")
    assert worker.stop() == 0


def test_an_account_without_jetstream_is_told_of_until_it_has_it(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    account = "accounts {{ FLEET {{ {} users: [ {{ user: me, password: x }} ] }} }}"
    server = make_server(account.format("")).start()
    url = f"nats://me:x@127.0.0.1:{server.port}"
    worker = start_worker(rows, "--create-stream", nats=url)
    told = worker.wait_for("pull.lost", times=2, within=20)
    assert "jetstream" in told["error"].lower()
    assert worker.logged("worker.ready") == []
    server.stop()
    server.configure(account.format("jetstream: enabled,"))
    server.start()
    _projects(url, rows, worker)
    assert worker.stop() == 0


def _users(denied: dict[str, tuple[str, str]]) -> str:
    """Return a configuration with a user who may do everything, and users denied one subject."""
    users = ["{ user: all, password: x }"] + [
        f'{{ user: {user}, password: y, permissions: {{ {kind}: {{ deny: ["{subject}"] }} }} }}'
        for user, (kind, subject) in denied.items()
    ]
    return f"authorization {{ users: [ {', '.join(users)} ] }}"


def _projects(url: str, rows: Rows, worker: WorkerProcess) -> None:
    """Fail unless a start that is published now becomes a row within seconds."""
    with Broker(url) as broker:
        eventually(broker.has_stream, 20, lambda: worker.text)
        result_id = f"at last {time.monotonic()}"
        broker.publish(result_id=result_id)
    eventually(lambda: rows.run(result_id), 20, lambda: worker.text)
