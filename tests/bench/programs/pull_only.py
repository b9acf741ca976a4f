"""A limit: the worker's own connection and puller, and an ack for each message. No database."""

import asyncio
from collections import deque

import nats.errors

from tests.bench.programs import common
from tests.bench.programs.common import CONSUMER, STREAM
from worker.jetstream.connection import close, connect
from worker.jetstream.outstanding import OutstandingMessages
from worker.jetstream.pull import Puller
from worker.logs import Repeats
from worker.messages import Message
from worker.settings import Settings
from worker.status.readiness import Readiness

_IN_FLIGHT = Settings(nats_urls=(), database="").max_outstanding


class Replies(OutstandingMessages):
    """Keeps nothing of a message but the subject that acks it."""

    def __init__(self) -> None:
        super().__init__(_IN_FLIGHT)
        self.replies: deque[str] = deque()

    def __len__(self) -> int:
        return len(self.replies)

    def arrive(self, message: Message, reply: str, now: float) -> None:
        self.replies.append(reply)


def fail(error: BaseException) -> None:
    """End the process at what no retry can mend."""
    raise SystemExit(repr(error))


async def main() -> None:
    """Pull and ack until SIGTERM."""
    arguments = common.arguments()
    stop = common.stopped()
    settings = Settings(nats_urls=(arguments.nats,), database="")
    connection = await connect(settings, fail, Repeats(60), Readiness())
    replies, arrived = Replies(), asyncio.Event()
    subject = f"$JS.API.CONSUMER.MSG.NEXT.{STREAM}.{CONSUMER}"
    puller = Puller(
        connection,
        subject,
        replies,
        room=lambda: replies.room,
        arrived=arrived.set,
        answered=lambda: None,
    )
    pulling = asyncio.create_task(puller.run())

    def leave(_: object) -> None:
        puller.stop()
        arrived.set()

    stopping = asyncio.create_task(stop.wait())
    stopping.add_done_callback(leave)
    while not stop.is_set():
        await arrived.wait()
        arrived.clear()
        while replies.replies:
            await connection.publish(replies.replies.popleft(), b"+ACK")
        puller.changed.set()
    await pulling
    await connection.flush()
    await close(connection)


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except nats.errors.Error as error:
        raise SystemExit(repr(error)) from error
