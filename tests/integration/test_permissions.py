"""The least rights on the broker: enough for everything, and each of them is told of when it lacks.

The server reads the very files that are shipped.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import run_projector
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess
from worker.jetstream.client import BrokerClient
from worker.jetstream.permission_probe import lacking
from worker.jetstream.permissions import (
    Right,
    create_stream_rights,
    reader_rights,
    worker_rights,
)
from worker.schema import migrate
from worker.settings import Credentials, Settings

SCRIPTS = Path(__file__).parents[2] / "scripts"
SHIPPED = SCRIPTS / "deploy" / "nats"
FILES = sorted(SHIPPED.glob("*.conf"))
CONSUMER = "backend_events_projector"
TOLD_IN = ("broker.error", "pull.lost", "manifests.unavailable")

WORKER = worker_rights("EVENTS", CONSUMER, "jobs")


def short_of(number: int) -> list[Right]:
    """Return the rights on a consumer of its own, without one of them."""
    rights = worker_rights("EVENTS", f"consumer-{number}", "jobs")
    return rights[:number] + rights[number + 1 :]


def user(name: str, rights: list[Right]) -> str:
    allowed = ", ".join(f'"{right.subject}"' for right in rights if not right.subscribe)
    inbox = ", ".join(f'"{right.subject}"' for right in rights if right.subscribe) or '"none"'
    return (
        f"{{ user: {name}, password: x, permissions: {{ publish: {{ allow: [{allowed}] }}, "
        f"subscribe: {{ allow: [{inbox}] }} }} }}"
    )


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    folder = tmp_path_factory.mktemp("guarded")
    shutil.copytree(SHIPPED, folder, dirs_exist_ok=True)
    users = [
        "{ user: all, password: x }",
        "{ user: worker, password: x, permissions: $PROJECTOR_WORKER }",
        "{ user: reader, password: x, permissions: $PROJECTOR_READER }",
        "{ user: creator, password: x, permissions: $PROJECTOR_CREATOR }",
        *(user(f"short-{number}", short_of(number)) for number in range(len(WORKER))),
    ]
    includes = [f'include "{path.name}"' for path in FILES]
    config = [*includes, "authorization { users: [", *users, "] }"]
    server = NatsServer(folder, config="\n".join(config)).start()
    yield server
    server.stop()


@pytest.fixture
def everything(guarded: NatsServer) -> Iterator[Broker]:
    """A connection that may do everything, on a server with nothing on it."""
    with Broker(url(guarded, "all")) as broker:
        broker.delete_everything()
        yield broker


def url(server: NatsServer, name: str) -> str:
    return f"nats://{name}:x@127.0.0.1:{server.port}"


def test_the_files_that_are_shipped_hold_what_the_code_asks_for() -> None:
    shipped = {path.stem: set(re.findall(r'"([^"]+)"', path.read_text("utf-8"))) for path in FILES}
    assert shipped == {
        "worker": {right.subject for right in WORKER},
        "reader": {right.subject for right in reader_rights("EVENTS", CONSUMER, "jobs")},
        "creator": {right.subject for right in [*WORKER, *create_stream_rights("EVENTS")]},
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_server_takes_each_file_without_the_others(
    make_server: MakeServer, tmp_path: Path, path: Path
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "nats-1")
    config = (
        f'include "{path.name}"\nauthorization {{ users: [ '
        f"{{ user: only, password: x, permissions: $PROJECTOR_{path.stem.upper()} }} ] }}"
    )
    with Broker(url(make_server(config).start(), "only")):
        pass


def test_the_server_takes_the_documented_example_as_it_is(
    make_server: MakeServer, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (SCRIPTS / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```\n(include .*?)^```$", readme, re.M | re.S)
    shutil.copytree(SHIPPED, tmp_path / "nats-1")
    monkeypatch.setenv("WORKER_PASSWORD", "x")
    monkeypatch.setenv("OPERATOR_PASSWORD", "x")
    server = make_server(example).start()
    with Broker(url(server, "operator")):
        pass
    options = ("--json", "--database", rows.url, "--nats", url(server, "worker"))
    findings = run_projector("check", *options, cwd=tmp_path).document["findings"]
    assert [f["text"] for f in findings if f["name"] == "rights"] == [
        f"all {len(WORKER)} that a worker needs; not the ones of verify, rebuild and explain"
    ]


def test_these_rights_are_enough_to_create_project_watch_replay_and_retry(
    guarded: NatsServer,
    everything: Broker,
    rows: Rows,
    tmp_path: Path,
    start_worker: StartWorker,
) -> None:
    creator, worker = url(guarded, "creator"), url(guarded, "worker")
    everything.make_bucket()
    everything.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    first = start_worker(rows, "--create-stream", "--until-idle", nats=creator)
    assert first.exit_code() == 0, first.text

    everything.publish_starts(events.start() for _ in range(20))
    everything.publish(b"no start")
    running = start_worker(rows, nats=worker)
    eventually(lambda: rows.count() == 20, 15, lambda: running.text)
    everything.put_manifest("job-2", {"execute": {"timeout": "20s"}})  # heard of by the watch
    everything.publish(manifest_id="job-2", result_id="second")
    eventually(lambda: everything.is_settled() and rows.count() == 21, 15, lambda: running.text)
    assert running.stop() == 0
    assert rows.query("SELECT 1 FROM execution_results WHERE expires_at IS NULL") == []

    for suffix in ("", "-wal", "-shm"):
        rows.path.with_name(rows.path.name + suffix).unlink(missing_ok=True)
    migrate(rows.url)
    again = start_worker(rows, "--until-idle", nats=worker)
    assert again.exit_code() == 0, again.text
    assert again.logged("database.wiped")
    assert rows.count() == 21
    retried = run_projector(
        *("rejected", "retry", "--all", "--database", rows.url, "--nats", worker), cwd=tmp_path
    )
    assert (retried.code, retried.output.splitlines()[-1]) == (1, "1 rejected")
    reader = ("--json", "--database", rows.url, "--nats", url(guarded, "reader"))
    for command in ("status", "verify", "rebuild"):
        done = run_projector(command, *reader, cwd=tmp_path)
        assert done.code == 0, done
    explained = run_projector("explain", "second", *reader, cwd=tmp_path)
    assert (explained.code, explained.document["problems"]) == (0, [])
    for process in (first, running, again):
        assert process.logged("broker.error") == [], process.text
    # Ending a consumer at once is no right of a reader's: it ends by itself soon.
    refused = [line for line in guarded.log.splitlines() if "ermissions" in line]
    assert all("CONSUMER.DELETE" in line for line in refused), refused


def test_each_right_that_is_taken_away_is_named_in_the_log(
    guarded: NatsServer, everything: Broker, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    everything.make_stream()
    everything.make_bucket()
    # Large: the server asks for flow control after a mebibyte, and goes on without to two.
    script = {"execute": {"timeout": "20s"}, "script": "x" * 100_000}
    everything.put_manifests((f"job-{number}" for number in range(1, 41)), script)
    everything.publish_starts(events.start() for _ in range(3))
    # Durables that have settled what no file has: each worker finds its own wiped, and replays.
    settled = start_worker(rows, "--until-idle", nats=url(guarded, "all"))
    assert settled.exit_code() == 0, settled.text
    workers: dict[int, WorkerProcess] = {}
    for number in range(len(WORKER)):
        name = f"consumer-{number}"
        everything.make_consumer(durable_name=name)
        everything.settle(name, 3)
        path = tmp_path / f"{number}.db"
        migrate(f"sqlite:///{path}")
        workers[number] = start_worker(
            Rows(path), "--consumer", name, nats=url(guarded, f"short-{number}")
        )
    for number, worker in workers.items():
        right = worker_rights("EVENTS", f"consumer-{number}", "jobs")[number]
        subject = right.subject.rstrip("*>")
        eventually(lambda: names(worker, subject), 25, lambda: f"{subject}\n{worker.text}")  # noqa: B023
    for worker in workers.values():
        worker.kill()


def names(worker: WorkerProcess, subject: str) -> bool:
    return any(
        line["event"] in TOLD_IN
        and "ermissions Violation" in line["error"]
        and subject in line["error"]
        for line in worker.lines
    )


def test_check_names_each_right_that_is_missing_and_trying_them_changes_nothing(
    guarded: NatsServer, everything: Broker, rows: Rows, tmp_path: Path
) -> None:
    everything.make_stream()
    everything.make_bucket()
    everything.publish()

    def check(name: str, *options: str) -> tuple[int, list[str]]:
        done = run_projector(
            *("check", "--json", "--database", rows.url, "--nats", url(guarded, name), *options),
            cwd=tmp_path,
        )
        found = [f for f in done.document["findings"] if f["name"] == "rights"]
        return done.code, [f["text"] for f in found]

    assert check("all") == (0, [f"all {len(WORKER)} that a worker needs"])
    assert not everything.has_consumer()
    everything.make_consumer()
    everything.take_without_ack(1)
    before = everything.consumer()
    assert check("all", "--create-stream")[0] == 0
    after = everything.consumer()
    assert (after.created, after.num_pending, after.num_ack_pending) == (
        before.created,
        before.num_pending,
        before.num_ack_pending,
    )
    assert check("worker")[1][0].endswith("not the ones of verify, rebuild and explain")
    code, texts = check("worker", "--create-stream")
    assert (code, len(texts)) == (1, 1)
    assert "may not publish to $JS.API.STREAM.CREATE.EVENTS " in texts[0]
    code, texts = check("reader")
    reads = {right.subject for right in reader_rights("EVENTS", CONSUMER, "jobs")}
    reads.add(f"$JS.API.CONSUMER.MSG.NEXT.EVENTS.{CONSUMER}")  # one of MSG.NEXT.EVENTS.*
    assert code == 1
    assert [re.search(r" to (\S+)", text)[1] for text in texts] == [  # type: ignore[index]
        right.subject for right in WORKER if right.subject not in reads
    ]


@pytest.mark.parametrize("number", range(len(WORKER)))
def test_a_right_is_tried_exactly(guarded: NatsServer, number: int) -> None:
    rights = worker_rights("EVENTS", f"consumer-{number}", "jobs")
    credentials = Credentials(user=f"short-{number}", password="x")
    with BrokerClient(
        Settings((guarded.url,), "sqlite:///none.db", credentials=credentials)
    ) as visit:
        assert lacking(visit, rights) == [rights[number]]
