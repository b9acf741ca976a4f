"""The obvious better worker: `fetch(100)`, one transaction a batch, ack each message after it."""

import asyncio

import nats

from tests.bench.programs import common
from tests.bench.programs.common import CONSUMER, STREAM, Manifests

BATCH = 100


async def main() -> None:
    """Fetch, write and ack one batch after the other until SIGTERM."""
    arguments = common.arguments()
    stop = common.stopped()
    connection = common.connect(arguments.database)
    client = await nats.connect(arguments.nats)
    js = client.jetstream()
    manifests = await Manifests.load(js)
    follow = asyncio.create_task(manifests.follow())
    subscription = await js.pull_subscribe("events.started.>", durable=CONSUMER, stream=STREAM)
    while not stop.is_set():
        try:
            messages = await subscription.fetch(BATCH, timeout=0.5)
        except TimeoutError:
            continue
        common.write_batch(connection, messages, manifests)
        for message in messages:
            await message.ack()
    follow.cancel()
    await client.flush()
    await client.close()
    connection.close()


if __name__ == "__main__":
    asyncio.run(main())
