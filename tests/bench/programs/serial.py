"""The simplest correct worker: one message at a time, each statement its own transaction, ack."""

import asyncio
import sqlite3

import nats
from nats.aio.msg import Msg

from repo.execution_results import Run
from tests.bench.programs import common
from tests.bench.programs.common import CONSUMER, STREAM, Manifests


def write(connection: sqlite3.Connection, message: Msg, manifests: Manifests) -> None:
    """Write what a message says, each statement on its own."""
    row = common.row(message, manifests)
    if not isinstance(row, Run):
        connection.execute(common.INSERT_REJECTED_EVENT, row)
        return
    connection.execute(common.INSERT_RUN, row)
    if row.exec_id:
        connection.execute(common.PROMOTE_EXECUTION, (row.exec_id,))


async def main() -> None:
    """Fetch, write and ack one message after the other until SIGTERM."""
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
            (message,) = await subscription.fetch(1, timeout=0.5)
        except TimeoutError:
            continue
        write(connection, message, manifests)
        await message.ack()
    follow.cancel()
    await client.flush()
    await client.close()
    connection.close()


if __name__ == "__main__":
    asyncio.run(main())
