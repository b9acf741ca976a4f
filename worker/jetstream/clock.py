"""What the broker's clock shows. Loop thread only.

Servers since 2.10 show it in most answers. An older one shows it only in the answer to the creation
of a consumer. So where nothing has shown it lately, one is created that reads nothing and ends by
itself: on the bucket, or on the stream if the bucket does not exist.
"""

from worker.errors import PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.ephemeral import reading
from worker.jetstream.stream import ApiError, read_state
from worker.settings import Settings


async def broker_time(connection: Connection, settings: Settings, filter_subject: str) -> int:
    """Return what the broker's clock shows now, in nanoseconds since 1970.

    `filter_subject` is of the stream's own consumer. Raises BrokerError where the broker does not
    show it; then it is asked again after a minute.
    """
    if connection.clock.is_due:
        connection.clock.asked()
        await _ask(connection, settings, filter_subject)
    now = connection.clock.now
    if now is None:
        raise PullLost("the broker does not report its time")
    return now


async def _ask(connection: Connection, settings: Settings, filter_subject: str) -> None:
    try:
        await _create(connection, f"KV_{settings.bucket}", "")
    except ApiError:
        stream = await read_state(connection, settings.stream)
        # Any other stream keeps what a consumer has not read.
        if stream is None or not stream.keeps_acked:
            raise
        await _create(connection, settings.stream, filter_subject)


async def _create(connection: Connection, stream: str, subject: str) -> None:
    new = {"filter_subject": subject, "deliver_policy": "new"}
    async with reading(connection, stream, delete=False, **new):
        pass  # the answer to the creation has shown the time
