"""Whatever happens to the bucket, no start gets a deadline that the bucket does not hold."""

import signal
from collections.abc import Callable

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.deadlines import Deadlines, manifest
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.waiting import eventually

# After a lost connection the worker has to bind again.
BOUND = 20


def recreate(broker: Broker, others: int = 0) -> None:
    broker.delete_bucket()
    broker.make_bucket()
    broker.put_manifests((f"new-{number}" for number in range(1 + others)), manifest("360s"))


# What happens to a bucket in which `job` has 20 s, and the seconds to a deadline afterwards.
CHANGES: dict[str, tuple[Callable[[Broker], object], int | None]] = {
    "recreated with fewer revisions": (recreate, None),
    "recreated with more revisions": (lambda broker: recreate(broker, 100), None),
    "deleted": (Broker.delete_bucket, None),
    "purged": (Broker.purge_bucket, None),
    "one key purged": (lambda broker: broker.purge_bucket(subject="$KV.jobs.job"), None),
    "old messages purged": (lambda broker: broker.purge_bucket(seq=30), None),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_first_start_after_any_change_of_the_bucket_has_the_deadline_of_the_new_one(
    stream: Broker, rows: Rows, start_worker: StartWorker, change: str
) -> None:
    happen, seconds = CHANGES[change]
    stream.make_bucket()
    stream.put_manifests((f"other-{number}" for number in range(20)), manifest("360s"))
    stream.put_manifest("job", manifest("20s"))
    stream.put_manifests((f"later-{number}" for number in range(20)), manifest("360s"))
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    assert deadlines.of_a_start("job") == 140
    happen(stream)
    assert deadlines.of_a_start("job") == seconds
    if change != "deleted":
        stream.put_manifest("job", manifest("1h"))
        assert deadlines.of_a_start("job") == 5400


@pytest.mark.parametrize("later", [0, 2, 60])
def test_a_bucket_that_was_restored_from_a_copy_counts_as_it_is(
    stream: Broker, rows: Rows, start_worker: StartWorker, later: int
) -> None:
    stream.make_bucket()
    stream.put_manifests((f"other-{number}" for number in range(40)), manifest("360s"))
    stream.put_manifest("job", manifest("1h"))
    saved = stream.save_bucket()
    stream.put_manifest("job", manifest("20s"))
    stream.put_manifest("gone", manifest("20s"))
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    assert deadlines.of_a_start("job") == 140
    # The copy has fewer revisions than the worker has seen, as many, or more.
    worker.send(signal.SIGSTOP)
    stream.restore_bucket(saved)
    for number in range(later):
        stream.put_manifest(f"later-{number}", manifest("2h"))
    worker.send(signal.SIGCONT)
    assert [deadlines.of_a_start(name) for name in ("job", "gone")] == [5400, None]


def test_each_change_among_20_000_manifests_counts_for_the_next_start(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    stream.put_manifests((f"job-{number}" for number in range(20_000)), manifest("20s"))
    worker = start_worker(rows, pulling=True)
    assert worker.wait_for("manifests.loaded", within=30)["manifests"] == 20_000
    deadlines = Deadlines(stream, rows, worker)
    for number in (0, 7_777, 19_999):
        assert deadlines.of_a_start(f"job-{number}") == 140
        stream.put_manifest(f"job-{number}", manifest("1h"))
        assert deadlines.of_a_start(f"job-{number}") == 5400
        stream.purge_bucket(subject=f"$KV.jobs.job-{number}")
        assert deadlines.of_a_start(f"job-{number}") is None


@pytest.mark.parametrize("way", ["bucket", "key"])
def test_an_expired_manifest_gives_no_deadline(
    stream: Broker, rows: Rows, start_worker: StartWorker, way: str
) -> None:
    if way == "key":
        if stream.version < (2, 11):
            pytest.skip("keys have a TTL from nats-server 2.11 on; NATS_SERVER names another one")
        stream.make_bucket_with_ttl()
        stream.put_manifest("kept", manifest("1h"))
        stream.put_manifest("job", manifest("20s"), ttl="2s")
    else:
        stream.make_bucket(ttl=3)
        stream.put_manifest("job", manifest("20s"))
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    assert deadlines.of_a_start("job") == 140
    eventually(lambda: stream.manifests_left() == (way == "key"), 15)
    assert deadlines.of_a_start("job") is None
    if way == "key":
        assert deadlines.of_a_start("kept") == 5400


def test_no_start_gets_an_old_deadline_while_the_bucket_cannot_be_read(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    users = (
        "authorization {{ users: [ {{ user: all, password: x }}, {{ user: worker, password: x, "
        'permissions: {{ publish: {{ deny: ["{}"] }} }} }} ] }}'
    )
    allowed, denied = users.format("none"), users.format("$JS.API.STREAM.INFO.KV_jobs")
    server = make_server(allowed).start()
    with Broker(server.login("all")) as broker:
        broker.make_stream()
        broker.make_bucket()
        broker.put_manifest("job", manifest("20s"))
        worker = start_worker(rows, nats=server.login("worker"), pulling=True)
        deadlines = Deadlines(broker, rows, worker)
        assert deadlines.of_a_start("job") == 140
        server.configure(denied)
        broker.put_manifest("job", manifest("1h"))
        assert deadlines.of_a_start("job") is None
        server.configure(allowed)
        deadlines.wait_for("job", 5400, BOUND)
        assert worker.stop() == 0


def test_keys_that_come_and_go_cost_one_warning_a_minute_and_no_memory(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    for number in range(25):
        stream.put_manifest("job", manifest(f"{number} parsecs"))
        assert deadlines.of_a_start("job") is None
    assert len(worker.logged("manifest.without_timeout")) == 1
    before = worker.most_memory
    for start in range(0, 60_000, 6_000):
        names = [f"short-lived-{number}" for number in range(start, start + 6_000)]
        stream.put_manifests(names, manifest("20s"))
        assert deadlines.of_a_start(names[-1]) == 140
        stream.delete_manifests(names)
        assert deadlines.of_a_start(names[-1]) is None
    assert worker.most_memory - before < 15 * 1024 * 1024


@short_and_long("times", short=1, long=20, timeout=600)
def test_starts_are_projected_without_a_bucket_and_a_recreated_bucket_is_read_from_its_beginning(
    stream: Broker, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    worker = start_worker(rows)
    worker.wait_for("manifests.unavailable", error="the bucket does not exist")
    deadlines = Deadlines(stream, rows, worker)
    assert deadlines.of_a_start("job") is None
    stream.make_bucket()
    for index in range(20):
        stream.put_manifest(f"gone-{index}", manifest("1h"))
    deadlines.wait_for("gone-1", 5400, 8)
    for number in range(times):
        stream.delete_bucket()
        stream.make_bucket()
        # The revisions of the new bucket are lower than those that the worker has seen.
        timeout, seconds = ("20s", 140) if number % 2 == 0 else ("360s", 540)
        stream.put_manifest("job", manifest(timeout))
        deadlines.wait_for("job", seconds, BOUND)
        deadlines.wait_for("gone-1", None, BOUND)
    assert worker.stop() == 0
    assert worker.counters["deadline_missing_manifests_unavailable"] >= 1


def test_manifests_that_change_while_the_broker_is_unavailable_count_after_its_return(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Proxy(server.port) as proxy, Broker(server.url) as broker:
        broker.make_stream()
        broker.make_bucket()
        for name in ("changed", "deleted", "purged", "kept"):
            broker.put_manifest(name, manifest("20s"))
        worker = start_worker(rows, nats=proxy.url)
        worker.wait_for("manifests.loaded", manifests=4)
        worker.wait_for("pull.started")
        with proxy.closed():
            worker.wait_for("broker.disconnected")
            broker.put_manifest("changed", manifest("1h"))
            broker.delete_manifest("deleted")
            broker.purge_manifest("purged")
            broker.put_manifest("new", manifest("360s"))
        deadlines = Deadlines(broker, rows, worker)
        expected = {"changed": 5400, "deleted": None, "purged": None, "new": 540, "kept": 140}
        for name, seconds in expected.items():
            deadlines.wait_for(name, seconds, BOUND)
        assert worker.stop() == 0
