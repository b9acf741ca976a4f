"""The watch of the manifests breaks, and there are very many: the cache is right in the end."""

import itertools
from collections.abc import Callable

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long
from tests.support.times import stored_text
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

# Each timeout with the seconds from the record to the deadline that follows from it.
TIMEOUTS = {"20s": 140, "360s": 540, "1h": 5400, "2h": 10_800}
# A watch is compared with the bucket now and then, not all the time.
BOUND = 40

_numbers = itertools.count(1)


@short_and_long("times", short=1, long=8, timeout=600)
def test_a_timeout_that_changes_behind_a_broken_watch_of_20_000_counts_within_a_bounded_time(
    broker: Broker, rows: Rows, start_worker: StartWorker, times: int
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifests((f"job-{number}" for number in range(20_000)), _manifest("20s"))
    worker = start_worker(rows)
    assert worker.wait_for("manifests.loaded", within=30)["manifests"] == 20_000
    deadline = _deadlines(broker, rows, worker)
    for number in (0, 7_777, 19_999):
        assert deadline(f"job-{number}") == 140
    for number in range(times):
        timeout = "360s" if number % 2 == 0 else "1h"
        assert broker.break_watches() >= 1
        broker.put_manifest("job-7777", _manifest(timeout))
        eventually(
            lambda timeout=timeout: deadline("job-7777") == TIMEOUTS[timeout],  # type: ignore[misc]
            BOUND,
            lambda: worker.text,
        )
        # And the watch itself is whole again: what changes now counts soon.
        broker.put_manifest("job-7777", _manifest("2h"))
        eventually(lambda: deadline("job-7777") == 10_800, 5, lambda: worker.text)
    assert worker.stop() == 0


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_bucket_that_is_deleted_and_made_again_and_again_is_read_anew_each_time(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_bucket()
    for index in range(20):
        broker.put_manifest(f"gone-{index}", _manifest("1h"))
    worker = start_worker(rows)
    worker.wait_for("manifests.loaded", manifests=20)
    deadline = _deadlines(broker, rows, worker)
    assert deadline("gone-1") == 5400
    for number in range(20):
        broker.delete_bucket()
        broker.make_bucket()
        # The new bucket's revisions are lower than those that are known.
        wanted = "20s" if number % 2 == 0 else "360s"
        broker.put_manifest("job", _manifest(wanted))
        eventually(
            lambda wanted=wanted: deadline("job") == TIMEOUTS[wanted],  # type: ignore[misc]
            BOUND,
            lambda: worker.text,
        )
        eventually(lambda: deadline("gone-1") is None, BOUND, lambda: worker.text)
    assert worker.stop() == 0


def test_what_changes_while_the_broker_is_away_counts_after_its_return(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Proxy(server.port) as proxy, Broker(server.url) as broker:
        broker.make_stream()
        broker.make_bucket()
        for name in ("changed", "deleted", "purged", "kept"):
            broker.put_manifest(name, _manifest("20s"))
        worker = start_worker(rows, nats=proxy.url)
        worker.wait_for("manifests.loaded", manifests=4)
        worker.wait_for("pull.started")
        with proxy.closed():
            worker.wait_for("broker.disconnected")
            broker.put_manifest("changed", _manifest("1h"))
            broker.delete_manifest("deleted")
            broker.purge_manifest("purged")
            broker.put_manifest("new", _manifest("360s"))
        deadline = _deadlines(broker, rows, worker)
        wanted = {"changed": 5400, "deleted": None, "purged": None, "new": 540, "kept": 140}
        for name, seconds in wanted.items():
            eventually(
                lambda name=name, seconds=seconds: deadline(name) == seconds,  # type: ignore[misc]
                BOUND,
                lambda: worker.text,
            )
        assert worker.stop() == 0


def _manifest(timeout: str) -> dict[str, object]:
    return {"execute": {"timeout": timeout}, "script": "x" * 100}


def _deadlines(broker: Broker, rows: Rows, worker: WorkerProcess) -> Callable[[str], int | None]:
    """Return a function that publishes a start and returns its deadline, in seconds from it."""

    def deadline(manifest_id: str) -> int | None:
        result_id = f"run-{next(_numbers)}"
        broker.publish(result_id=result_id, manifest_id=manifest_id)
        row = eventually(lambda: rows.run(result_id), 20, lambda: worker.text)
        assert row is not None
        if row["expires_at"] is None:
            return None
        recorded = row["recorded_at"].removesuffix("+00:00")
        spans = [s for s in TIMEOUTS.values() if stored_text(recorded, plus=s) == row["expires_at"]]
        assert spans, row
        return spans[0]

    return deadline
