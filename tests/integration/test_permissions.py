"""The rights that are shipped suffice, and a missing one is named in the log and by `check`.

The server reads the very files that are shipped.
"""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.integration.conftest import MakeServer, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import run_here, run_projector
from tests.support.deadlines import manifest
from tests.support.endpoints import OBSERVED, Port
from tests.support.nats_server import NatsServer, free_address
from tests.support.restoring import wipe
from tests.support.rows import Rows
from tests.support.worker_process import WorkerProcess
from worker.jetstream.permissions import (
    Permission,
    create_stream_permissions,
    reader_permissions,
    worker_permissions,
)
from worker.projections.starts import STARTS
from worker.settings import Settings

SCRIPTS = Path(__file__).parents[2] / "scripts"
SHIPPED = SCRIPTS / "deploy" / "nats"
FILES = sorted(SHIPPED.glob("*.conf"))

SETTINGS = Settings((), "sqlite:///x.db")
STARTS_ALONE = replace(SETTINGS, projections=(STARTS.name,))
WORKER = worker_permissions(STARTS_ALONE)
AT_HUB = replace(STARTS_ALONE, js_domain="hub")
NUMBERS = range(len(WORKER))
# For users at a leaf node, who are limited to the hub's JetStream and an inbox prefix.
PLACES = ("--js-domain", "hub", "--inbox-prefix", "_INBOX_Projector.1")
PREFIXES = {"": (), "placed-": PLACES}
# In another domain a worker listens to no changes of the manifests.
MISSING = [
    (number, prefix)
    for number, right in enumerate(WORKER)
    for prefix in (PREFIXES if right in worker_permissions(AT_HUB) else [""])
]
# Without one of these nothing can be pulled.
ESSENTIAL = ("_INBOX", "STREAM.INFO.EVENTS", "CONSUMER.INFO.EVENTS", "MSG.NEXT.EVENTS")


def rights_on(number: int, prefix: str = "") -> list[Permission]:
    """Return the rights on the consumer that belongs to the user without right `number`."""
    rights = worker_permissions(replace(STARTS_ALONE, consumer=f"consumer-{number}"))
    return [right.placed(PLACES[3], PLACES[1]) for right in rights] if prefix else rights


def user_without(number: int, prefix: str = "") -> str:
    """Return the configuration of a user with all rights but one."""
    rights = rights_on(number, prefix)
    del rights[number]
    publish = ", ".join(f'"{right.subject}"' for right in rights if not right.subscribe)
    subscribe = ", ".join(f'"{right.subject}"' for right in rights if right.subscribe) or '"none"'
    return (
        f"{{ user: {prefix}without-{number}, password: x, permissions: {{ "
        f"publish: {{ allow: [{publish}] }}, subscribe: {{ allow: [{subscribe}] }} }} }}"
    )


def users(*more: str) -> str:
    return "\n".join(["authorization { users: [ { user: all, password: x }", *more, "] }"])


class Guarded(NamedTuple):
    hub: NatsServer
    leaf: NatsServer

    def login(self, user: str) -> str:
        return (self.leaf if user.startswith("placed-") else self.hub).login(user)

    def refusals(self) -> list[str]:
        lines = (self.hub.log + self.leaf.log).splitlines()
        return [line for line in lines if "ermissions" in line]


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    """A server with a user for each file, and a user without each right of a worker.

    And a leaf node with the same users, in files changed as the runbook says.
    """
    address, servers = free_address(), []
    linked = {"": f"listen: {address}", "placed-": f"remotes: [{{ url: nats://all:x@{address} }}]"}
    for prefix, leafnodes in linked.items():
        folder = tmp_path_factory.mktemp("guarded")
        config = [f"leafnodes {{ {leafnodes} }}"]
        shipped = []
        for path in FILES:
            text = path.read_text("utf-8")
            if prefix:
                text = text.replace("$JS.API.", "$JS.hub.API.").replace("_INBOX.", f"{PLACES[3]}.")
            (folder / path.name).write_text(text)
            config.append(f'include "{path.name}"')
            block = f"$PROJECTOR_{path.stem.upper()}"
            shipped.append(f"{{ user: {prefix}{path.stem}, password: x, permissions: {block} }}")
        config.append(users(*shipped, *(user_without(number, prefix) for number in NUMBERS)))
        domain = "leaf" if prefix else "hub"
        servers.append(NatsServer(folder, config="\n".join(config), domain=domain).start())
    yield Guarded(*servers)
    for server in servers:
        server.stop()


@pytest.fixture
def unlimited(guarded: Guarded) -> Iterator[Broker]:
    """A connection with all rights to the same server, which is empty."""
    with Broker(guarded.login("all")) as broker:
        broker.delete_everything()
        yield broker


def test_the_shipped_files_contain_exactly_the_rights_in_the_code() -> None:
    shipped = {path.stem: set(re.findall(r'"([^"]+)"', path.read_text("utf-8"))) for path in FILES}
    both = worker_permissions(SETTINGS)
    assert shipped == {
        "worker": {right.subject for right in both},
        "reader": {right.subject for right in reader_permissions(SETTINGS)},
        "creator": {right.subject for right in [*both, *create_stream_permissions(SETTINGS)]},
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_server_accepts_each_file_without_the_others(
    make_server: MakeServer, tmp_path: Path, path: Path
) -> None:
    shutil.copytree(SHIPPED, tmp_path / "nats-1")
    config = (
        f'include "{path.name}"\nauthorization {{ users: [ '
        f"{{ user: only, password: x, permissions: $PROJECTOR_{path.stem.upper()} }} ] }}"
    )
    with Broker(make_server(config).start().login("only")):
        pass


def test_the_server_accepts_the_documented_example_as_it_is(
    make_server: MakeServer, tmp_path: Path, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (SCRIPTS / "README.md").read_text("utf-8")
    (example,) = re.findall(r"^```\n(include .*?)^```$", readme, re.M | re.S)
    shutil.copytree(SHIPPED, tmp_path / "nats-1")
    monkeypatch.setenv("WORKER_PASSWORD", "x")
    monkeypatch.setenv("OPERATOR_PASSWORD", "x")
    server = make_server(example).start()
    with Broker(server.login("operator")):
        pass
    assert check(rows, server.login("worker"))[1][0].startswith(f"all {len(WORKER)} ")


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_shipped_rights_suffice_to_create_project_watch_read_again_retry_and_read(
    prefix: str,
    guarded: Guarded,
    unlimited: Broker,
    rows: Rows,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
) -> None:
    worker, places = guarded.login(f"{prefix}worker"), PREFIXES[prefix]
    unlimited.make_bucket()
    unlimited.put_manifest("job-1", manifest("20s"))
    creator = guarded.login(f"{prefix}creator")
    first = run_until_idle(rows, "--create-stream", *places, nats=creator)

    unlimited.publish_starts(events.start() for _ in range(20))
    unlimited.publish(b"not JSON")
    running = start_worker(rows, *OBSERVED, *places, nats=worker)
    running.until(lambda: rows.count() == 20)
    unlimited.put_manifest("job-2", manifest("20s"))  # arrives through the watch
    unlimited.publish(manifest_id="job-2", result_id="second")
    running.until(lambda: unlimited.is_acked() and rows.count() == 21)
    with rows.locked():
        unlimited.publish()
        port = Port(running)
        running.until(lambda: port.metrics().get("projector_lag_seconds", 0) > 0)
    running.until(lambda: unlimited.is_acked() and rows.count() == 22)
    assert running.stop() == 0
    assert rows.query("SELECT 1 FROM execution_results WHERE expires_at IS NULL") == []

    wipe(rows)
    again = run_until_idle(rows, *places, nats=worker)
    assert rows.count() == 22
    on_worker = ("--database", rows.url, "--nats", worker, *places)
    retried = run_projector("rejected", "retry", "--all", *on_worker, cwd=rows.path.parent)
    assert (retried.code, retried.output.splitlines()[-1]) == (1, "1 rejected")
    reader = guarded.login(f"{prefix}reader")
    on_reader = ("--json", "--database", rows.url, "--nats", reader, *places)
    starts = {"PROJECTOR_PROJECTION": "starts"}
    for command in ("status", "verify", "rebuild"):
        done = run_projector(command, *on_reader, cwd=rows.path.parent, **starts)
        assert done.code == 0, done
    explained = run_projector("explain", "second", *on_reader, cwd=rows.path.parent, **starts)
    assert (explained.code, explained.document["problems"]) == (0, [])
    for process in (first, running, again):
        assert process.logged("broker.error") == process.logged("lag.unknown") == []
        assert process is first or process.logged("manifests.loaded")
    # A reader may not delete its consumer, which expires soon.
    refusals = guarded.refusals()
    assert all("CONSUMER.DELETE" in line for line in refusals), refusals


@pytest.mark.parametrize("prefix", PREFIXES)
def test_the_shipped_rights_suffice_for_results_and_output_in_the_object_store(
    prefix: str,
    guarded: Guarded,
    unlimited: Broker,
    rows: Rows,
    run_until_idle: RunUntilIdle,
) -> None:
    worker, places = guarded.login(f"{prefix}worker"), PREFIXES[prefix]
    unlimited.make_bucket()
    unlimited.make_output_bucket()
    unlimited.put_output("request/stdout", b"output")
    creator = guarded.login(f"{prefix}creator")
    run_until_idle(rows, "--create-stream", *places, nats=creator, results=True)
    unlimited.publish(result_id="run")
    unlimited.publish_results([events.result(result_id="run", stdout_object="request/stdout")])
    for _ in range(2):  # as it comes, and read again
        again = run_until_idle(rows, *places, nats=worker, results=True)
        assert (rows.run("run") or {})["stdout"] == "output"
        assert again.logged("broker.error") == []
        wipe(rows)
    run_until_idle(rows, *places, nats=worker, results=True)
    reader = guarded.login(f"{prefix}reader")
    on_reader = ("--json", "--database", rows.url, "--nats", reader, *places)
    for command in (("status",), ("verify",), ("rebuild",), ("explain", "run")):
        done = run_projector(*command, *on_reader, cwd=rows.path.parent)
        assert (done.code, done.document.get("problems", [])) == (0, []), done
    assert all("CONSUMER.DELETE" in line for line in guarded.refusals()), guarded.refusals()


def test_a_missing_right_is_named_in_the_log_until_it_is_granted_and_costs_no_row(
    make_server: MakeServer, rows: Rows, tmp_path: Path, start_worker: StartWorker
) -> None:
    server = make_server(users(*(user_without(number) for number in NUMBERS))).start()
    workers: dict[int, tuple[WorkerProcess, Rows]] = {}
    with Broker(server.login("all")) as broker:
        broker.make_stream()
        broker.make_bucket()
        # After one mebibyte the server asks for flow control, and it continues without up to two.
        large = {**manifest("20s"), "script": "x" * 100_000}
        broker.put_manifests((f"job-{number}" for number in range(1, 41)), large)
        broker.publish_starts(events.start() for _ in range(3))
        for number in NUMBERS:
            name = f"consumer-{number}"
            # All is acked and no database has it: each worker reads the stream again.
            if "DURABLE.CREATE" not in rights_on(number)[number].subject:
                broker.make_consumer(durable_name=name, ack_wait=2.0)
                broker.fetch(3, name, ack=True)
            database = Rows(tmp_path / f"{number}.db")
            database.migrate()
            options = ("--consumer", name, "--ack-wait", "2s")
            worker = start_worker(database, *options, nats=server.login(f"without-{number}"))
            workers[number] = (worker, database)
        for worker, _ in workers.values():
            worker.wait_for("worker.started")
        # This is to be acked, and makes each worker compare its checkpoint with the stream.
        broker.publish()
        for number, (worker, _) in workers.items():
            subject = rights_on(number)[number].subject.partition("*")[0].rstrip(">")
            line = worker.wait_for_error(None, "permissions violation", subject, within=25)
            assert line["level"] == "warning"
            if any(part in subject for part in ESSENTIAL):
                assert worker.logged("worker.ready") == [], subject

        server.configure(users(*(f"{{ user: without-{n}, password: x }}" for n in NUMBERS)))
        for number, (worker, database) in workers.items():
            worker.wait_for("worker.ready", within=20)
            worker.until(lambda: broker.is_acked(f"consumer-{number}"), 20)  # noqa: B023
            worker.until(lambda: database.count() == 4)  # noqa: B023
            assert worker.is_running()


def check(rows: Rows, nats: str, *options: str) -> tuple[int, list[str]]:
    """Return the exit code of `check`, and what it reports about rights."""
    arguments = ("--json", "--projection", "starts", "--database", rows.url, "--nats", nats)
    done = run_here("check", *arguments, *options)
    found = [f for f in done.document["findings"] if f["name"] == "permissions"]
    return done.code, [finding["text"] for finding in found]


def test_check_names_each_missing_right_and_changes_nothing_on_the_broker(
    guarded: Guarded, unlimited: Broker, rows: Rows
) -> None:
    unlimited.make_stream()
    unlimited.make_bucket()
    unlimited.publish()
    everything, creator = guarded.login("all"), ("--create-stream",)
    assert check(rows, everything) == (0, [f"all {len(WORKER)} that a worker needs"])
    assert not unlimited.has_consumer()
    unlimited.make_consumer()
    unlimited.fetch(1, ack=False)
    before = unlimited.consumer()
    assert check(rows, everything, *creator)[0] == 0
    after = unlimited.consumer()
    assert after.created == before.created
    assert (after.num_pending, after.num_ack_pending) == (before.num_pending, 1)
    worker = guarded.login("worker")
    assert check(rows, worker)[1][0].endswith("verify, rebuild and explain need more")
    # The server takes its own domain out of a subject before it looks at permissions.
    code, texts = check(rows, worker, *creator, "--js-domain", "hub")
    assert (code, len(texts)) == (1, 1)
    assert "may not publish to $JS.API.STREAM.CREATE.EVENTS " in texts[0]


@pytest.mark.parametrize(("number", "prefix"), MISSING)
def test_check_names_exactly_the_right_that_is_missing(
    guarded: Guarded, unlimited: Broker, rows: Rows, number: int, prefix: str
) -> None:
    nats = guarded.login(f"{prefix}without-{number}")
    code, texts = check(rows, nats, "--consumer", f"consumer-{number}", *PREFIXES[prefix])
    assert code == 1
    assert [re.search(r" to (\S+)", text)[1] for text in texts] == [  # type: ignore[index]
        rights_on(number, prefix)[number].subject
    ]


def test_a_subject_that_an_option_changes_is_named_as_it_is_on_the_broker(
    guarded: Guarded, unlimited: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    nats = guarded.login("placed-worker")
    expected = {
        (): ('Subscription to "_INBOX.',),
        PLACES[:2]: ('Subscription to "_INBOX.',),
        (*PLACES[:3], "_INBOX_Other"): ('Subscription to "_INBOX_Other.',),
        PLACES[2:]: ('Publish to "$JS.API.STREAM.INFO.EVENTS"',),
        (*PLACES, "--stream", "OTHER"): ('Publish to "$JS.hub.API.STREAM.INFO.OTHER"',),
    }
    workers = [(start_worker(rows, *given, nats=nats), text) for given, text in expected.items()]
    for worker, text in workers:
        worker.wait_for_error(None, "permissions violation for ", *text)
        assert text[0].partition('"')[2].rstrip('"') in worker.text
