"""The watch of the manifests breaks, or there are very many: deadlines become right again."""

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.deadlines import Deadlines, manifest
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long

# A watch is compared with the bucket now and then only.
BOUND = 40


@short_and_long("times", short=1, long=8, timeout=600)
def test_a_manifest_that_changes_behind_a_broken_watch_of_20_000_counts_in_bounded_time(
    stream: Broker, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    stream.make_bucket()
    stream.put_manifests((f"job-{number}" for number in range(20_000)), manifest("20s"))
    worker = start_worker(rows)
    assert worker.wait_for("manifests.loaded", within=30)["manifests"] == 20_000
    deadlines = Deadlines(stream, rows, worker)
    for number in (0, 7_777, 19_999):
        assert deadlines.of_a_start(f"job-{number}") == 140
    for number in range(times):
        timeout, seconds = ("360s", 540) if number % 2 == 0 else ("1h", 5400)
        assert stream.break_watches() >= 1
        stream.put_manifest("job-7777", manifest(timeout))
        deadlines.wait_for("job-7777", seconds, BOUND)
        # The watch itself works again: the next change counts soon.
        stream.put_manifest("job-7777", manifest("2h"))
        deadlines.wait_for("job-7777", 10_800, 5)
    assert worker.stop() == 0


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
