"""A manifest counts for every start that is published after it, and few questions show that."""

import asyncio
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import nats
import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.beside import beside
from tests.support.broker import Broker
from tests.support.deadlines import Deadlines, manifest
from tests.support.nats_server import NatsServer
from tests.support.proxy import Proxy
from tests.support.rows import Rows

LOOK = "$JS.API.STREAM.INFO.KV_jobs"
TIMEOUTS = [(140, "20s"), (None, None), (5400, "1h")]
LISTENING = '"$KV.>", "$JS.>"'
# The worker's account hears nothing of what happens to the stream, and nothing is denied.
IMPORTED_JETSTREAM = """
accounts {
  FLEET {
    jetstream: enabled, users: [ { user: all, password: x } ]
    exports: [ { service: "$JS.API.>", response_type: stream }, { service: "$JS.ACK.>" } ]
  }
  WORKER {
    users: [ { user: worker, password: x } ]
    imports: [
      { service: { account: FLEET, subject: "$JS.API.>" } }
      { service: { account: FLEET, subject: "$JS.ACK.>" } }
    ]
  }
}
"""


@contextmanager
def others_put(url: str, a_second: int) -> Iterator[None]:
    """Put twenty other manifests in turns, so many a second in all."""

    async def put(ending: threading.Event) -> None:
        client = await nats.connect(url)
        began, number = time.monotonic(), 0
        while not ending.is_set():
            while number < (time.monotonic() - began) * a_second:
                await client.publish(f"$KV.jobs.other-{number % 20}", b"{}")
                number += 1
            await asyncio.sleep(min(0.005, 1 / a_second))
        await client.close()

    with beside(lambda ending: asyncio.run(put(ending))):
        yield


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


def test_a_start_of_the_worker_reads_the_bucket_once(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    stream.put_manifest("job", manifest("20s"))
    looks = stream.heard(LOOK)
    counts = []
    for _ in range(5):
        before = len(looks)
        worker = start_worker(rows, pulling=True)
        counts.append(len(looks) - before)
        assert worker.stop() == 0
    # One before the reading and one after it; the server may confirm late that nothing was missed.
    assert sorted(counts)[2] == 2


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


def test_a_user_of_an_account_that_imports_jetstream_gets_the_same_deadlines(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(IMPORTED_JETSTREAM).start()
    with Broker(server.login("all")) as broker:
        broker.make_stream()
        broker.make_bucket()
        worker = start_worker(rows, nats=server.login("worker"), pulling=True)
        put_and_start(Deadlines(broker, rows, worker), broker, 9)


@pytest.mark.parametrize("pause", [0.0, 0.03])
def test_a_put_while_the_connection_is_away_counts_for_the_next_start(
    server: NatsServer, stream: Broker, rows: Rows, start_worker: StartWorker, pause: float
) -> None:
    stream.make_bucket()
    with Proxy(server.port) as proxy:
        worker = start_worker(rows, nats=proxy.url, pulling=True)
        deadlines = Deadlines(stream, rows, worker)
        for number in range(9):
            time.sleep(0.6 + 0.05 * number)
            proxy.cut()
            time.sleep(pause)
            seconds, timeout = [(140, "20s"), (540, "360s"), (5400, "1h")][number % 3]
            stream.put_manifest("job", manifest(timeout))
            assert deadlines.of_a_start("job") == seconds


def test_a_put_after_a_restart_of_the_server_counts_for_the_next_start(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server().start()
    with Broker(server.url) as broker:
        broker.make_stream()
        broker.make_bucket()
        worker = start_worker(rows, nats=server.url, pulling=True)
        deadlines = Deadlines(broker, rows, worker)
        for _ in range(3):
            put_and_start(deadlines, broker, 3)
            server.stop()
            server.start()


@pytest.mark.parametrize("history", [1, 5])
def test_starts_do_not_wait_for_the_end_of_changes_of_other_manifests(
    stream: Broker, rows: Rows, start_worker: StartWorker, history: int
) -> None:
    stream.make_bucket(history=history)
    stream.put_manifest("job", manifest("20s"))
    worker = start_worker(rows, pulling=True)
    with others_put(stream.url, 1000):
        time.sleep(1)
        began = time.monotonic()
        put_and_start(Deadlines(stream, rows, worker), stream, 6)
        assert time.monotonic() - began < 18


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
