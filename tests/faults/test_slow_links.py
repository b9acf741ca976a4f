"""A slow link to the broker: what is asked for follows what it brings, and nothing times out."""

import asyncio
import time

import nats
import pytest

from tests.conftest import StartWorker
from tests.support import events
from tests.support.broker import STREAM, Broker
from tests.support.deadlines import manifest, seconds_to_deadline
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.scale import short_and_long

FACTOR = 1.3


def seconds_of_a_fetch_loop(url: str, consumer: str, messages: int) -> float:
    """Return how long a program takes that fetches and acks one message after the other."""

    async def fetch() -> None:
        client = await nats.connect(url)
        subscription = await client.jetstream().pull_subscribe_bind(consumer, STREAM)
        for _ in range(messages):
            for message in await subscription.fetch(1, timeout=60):
                await message.ack()
        await client.close()

    began = time.monotonic()
    asyncio.run(fetch())
    return time.monotonic() - began


@short_and_long("times", short=1, long=10, timeout=600)
@pytest.mark.parametrize(
    ("rate", "number", "size", "acked"),
    [(100_000, 4, 200_000, False), (100_000, 4, 200_000, True), (20_000, 400, 50, False)],
    ids=["large", "large, read again", "small"],
)
def test_over_a_slow_link_every_event_is_sent_once_and_the_connection_lasts(
    deployment: Broker,
    rows: Rows,
    start_worker: StartWorker,
    rate: int,
    number: int,
    size: int,
    acked: bool,
    times: int,
) -> None:
    number *= times
    deployment.publish_starts(events.start(more="x" * size) for _ in range(number))
    deployment.make_consumer()
    if acked:
        deployment.fetch(number, ack=True)
    with Proxy(int(deployment.url.rpartition(":")[2]), rate=rate) as proxy:
        # The stream keeps its messages for ever, which is a warning of its own.
        options = ("--metrics-port", "0", "--retention", "off")
        worker = start_worker(rows, *options, nats=proxy.url, pulling=True)
        began = time.monotonic()
        worker.until(lambda: rows.count() == number and deployment.is_acked(), 60 * times)
        took = time.monotonic() - began
        assert deployment.delivered().consumer_seq == number
        assert [line for line in worker.lines if line["level"] == "warning"] == []
        assert proxy.connections == 1
        assert worker.stop() == 0
        if times > 1:
            deployment.make_consumer(durable_name="fetch")
            fetched = seconds_of_a_fetch_loop(proxy.url, "fetch", number)
            print(f"{took:.1f} s, a fetch loop {fetched:.1f} s")
            assert took < FACTOR * fetched


@pytest.mark.long
@pytest.mark.timeout(120)
def test_manifests_that_take_long_to_read_over_a_slow_link_are_waited_for(
    deployment: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    for number in range(2, 10):
        deployment.put_manifest(f"job-{number}", {**manifest("3600s"), "more": "x" * 200_000})
    deployment.publish(result_id="first", manifest_id="job-9")
    with Proxy(int(deployment.url.rpartition(":")[2]), rate=100_000) as proxy:
        worker = start_worker(rows, nats=proxy.url)
        run = worker.until(lambda: rows.run("first"), 40)
        assert seconds_to_deadline(run) == 5400
        assert worker.logged("manifests.unavailable") == []
        assert worker.stop() == 0
