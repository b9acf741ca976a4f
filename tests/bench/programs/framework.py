"""FastStream's pull subscriber in batch mode: batches of 100, one transaction and its acks each.

Its own decoding and validation are off, and so are its logs: they would only cost it time.
"""

import asyncio
from typing import Any

from faststream import AckPolicy, FastStream
from faststream.nats import JStream, NatsBroker, PullSub
from nats.aio.msg import Msg

from tests.bench.programs import common
from tests.bench.programs.batched import BATCH
from tests.bench.programs.common import CONSUMER, STREAM, Manifests


async def raw_messages(message: Any, _original: Any) -> list[Msg]:
    """Hand the messages of a batch on as they came."""
    messages: list[Msg] = message.raw_message
    return messages


async def main() -> None:
    """Serve until SIGTERM, which the framework handles itself."""
    arguments = common.arguments()
    connection = common.connect(arguments.database)
    broker = NatsBroker(arguments.nats, apply_types=False, logger=None)
    client = await broker.connect()
    manifests = await Manifests.load(client.jetstream())

    async def project(messages: list[Msg]) -> None:
        common.write_batch(connection, messages, manifests)

    subscriber = broker.subscriber(
        "events.started.>",
        consumer=CONSUMER,
        stream=JStream(STREAM, declare=False),
        pull_sub=PullSub(batch_size=BATCH, timeout=0.5, batch=True),
        decoder=raw_messages,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    subscriber(project)
    follow = asyncio.create_task(manifests.follow())
    await FastStream(broker, logger=None).run()
    follow.cancel()
    connection.close()


if __name__ == "__main__":
    asyncio.run(main())
