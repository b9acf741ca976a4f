"""A manifest counts for every start that is published after it, and few questions show that."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.deadlines import Deadlines, manifest
from tests.support.rows import Rows

LOOK = "$JS.API.STREAM.INFO.KV_jobs"
TIMEOUTS = [(140, "20s"), (None, None), (5400, "1h")]
LISTENING = '"$KV.>", "$JS.>"'


def put_and_start(deadlines: Deadlines, broker: Broker, rounds: int) -> None:
    """Change a manifest and publish a start of it at once, often; each has its deadline."""
    for number in range(rounds):
        seconds, timeout = TIMEOUTS[number % 3]
        if timeout is None:
            broker.delete_manifest("job")
        else:
            broker.put_manifest("job", manifest(timeout))
        assert deadlines.of_a_start("job") == seconds


def test_a_manifest_that_was_put_just_before_a_start_counts_for_it(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    worker = start_worker(rows, pulling=True)
    put_and_start(Deadlines(stream, rows, worker), stream, 24)


def test_manifests_of_several_publishers_count_for_their_next_starts(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    worker = start_worker(rows, pulling=True)

    def publish(number: int) -> list[tuple[int | None, int | None]]:
        found = []
        with Broker(stream.url) as broker:
            deadlines = Deadlines(broker, rows, worker, prefix=f"{number}-")
            for round_ in range(6):
                seconds, timeout = TIMEOUTS[(number + round_) % 3]
                if timeout is None:
                    broker.delete_manifest(f"job-{number}")
                else:
                    broker.put_manifest(f"job-{number}", manifest(timeout))
                found.append((deadlines.of_a_start(f"job-{number}"), seconds))
        return found

    with ThreadPoolExecutor(5) as threads:
        for found in threads.map(publish, range(5)):
            assert all(seconds == expected for seconds, expected in found), found


def test_a_put_after_one_that_was_refused_counts_as_well(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    for number in range(9):
        seconds, timeout = [(140, "20s"), (540, "360s"), (5400, "1h")][number % 3]
        stream.put_manifest("job", manifest(timeout))
        stream.refuse_a_put("job")
        assert deadlines.of_a_start("job") == seconds


def test_a_user_who_may_not_listen_gets_the_same_deadlines_later(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(
        "authorization { users: [ { user: all, password: x }, { user: worker, password: x, "
        f"permissions: {{ subscribe: {{ deny: [{LISTENING}] }} }} }} ] }}"
    ).start()
    with Broker(server.login("all")) as broker:
        broker.make_stream()
        broker.make_bucket()
        worker = start_worker(rows, nats=server.login("worker"), pulling=True)
        put_and_start(Deadlines(broker, rows, worker), broker, 9)
        worker.wait_for("manifests.not_announced")


@pytest.mark.parametrize("is_busy", [False, True])
def test_the_bucket_is_looked_at_no_more_than_five_times_a_second(
    stream: Broker, rows: Rows, start_worker: StartWorker, is_busy: bool
) -> None:
    stream.make_bucket()
    stream.put_manifest("job-1", manifest("20s"))
    worker = start_worker(rows, pulling=True)
    time.sleep(1)
    looks = stream.heard(LOOK)
    began, published = time.monotonic(), 0
    while time.monotonic() - began < 4:
        if is_busy:
            stream.publish_starts(events.start() for _ in range(3))
            stream.put_manifest(f"other-{published}", manifest("20s"))
            published += 3
        time.sleep(0.01)
    seconds = time.monotonic() - began
    assert 1 <= len(looks) <= 5 * (seconds + 1)
    worker.until(lambda: rows.count() == published, 20)
