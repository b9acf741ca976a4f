"""What the broker or another worker does while this worker runs normally."""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.integration.conftest import RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from worker.errors import PullLost
from worker.jetstream.catch_up import CatchUpReader
from worker.jetstream.connection import Connection, connect
from worker.jetstream.presence import Presence
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor


def test_a_consumer_that_is_deleted_while_no_pull_request_is_open_is_recreated(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, "--max-outstanding", "10", "--retry-for", "20s", pulling=True)
    with rows.locked():
        stream.publish_starts(events.start() for _ in range(30))
        # Without capacity the worker has no pull request on the broker that could fail.
        eventually(lambda: (c := stream.consumer()).num_ack_pending == 10 and not c.num_waiting, 10)
        stream.delete_consumer()
    worker.until(lambda: rows.count() == 30)
    assert worker.logged("consumer.recreated")
    assert worker.stop() == 0


def test_two_workers_share_one_consumer_and_one_database(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    workers = [start_worker(rows, "--batch", "50", "--max-outstanding", "100") for _ in range(2)]
    for worker in workers:
        worker.wait_for("worker.ready")
    published = stream.publish_starts(events.start() for _ in range(4000))
    workers[0].until(lambda: rows.count() == published and stream.is_acked())
    for worker in workers:
        assert worker.stop() == 0
        assert worker.counters["runs_inserted"] > 0
        assert worker.counters["acks_dropped"] == 0
        assert {line["level"] for line in worker.lines} <= {"info", "warning"}
        assert worker.logged("batch.failed") == []
    assert rows.count() == published
    assert sum(worker.counters["runs_inserted"] for worker in workers) == published


def test_the_broker_does_not_disconnect_a_worker_with_a_backlog_of_large_messages(
    server: NatsServer, stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    before = len(server.log)
    for _ in range(100):
        stream.publish(b"x" * 1_000_000)
    worker = run_until_idle(rows, "--ack-wait", "5s")
    assert rows.count("rejected_events") == 100
    # A server drops a client with 64 MiB of pending data, and all messages on their way to it.
    assert "Slow Consumer" not in server.log[before:]
    assert worker.logged("broker.disconnected") == []
    assert worker.counters["redelivered"] == 0


async def _announce(connection: Connection, settings: Settings) -> None:
    presence = Presence(settings)
    with contextlib.suppress(PullLost):
        await presence.open(connection)
    await presence.announce("a place")


async def _ask(connection: Connection, settings: Settings) -> None:
    await Presence(settings).open(connection)


async def _read(connection: Connection, settings: Settings) -> None:
    subject = STARTS.read_filter
    async with CatchUpReader(connection, settings.stream, subject, 10) as reader:
        await anext(reader.pages(1, 1))


@pytest.mark.filterwarnings("ignore:.*utcnow:DeprecationWarning")  # pytest drops the worker's own
@pytest.mark.parametrize("use", [_announce, _ask, _read])
def test_a_connection_that_has_closed_is_a_lost_pull_and_no_bug(
    server: NatsServer, use: Callable[[Connection, Settings], Coroutine[Any, Any, None]]
) -> None:
    settings = Settings((server.url,), "sqlite:///x.db")
    status = WorkerStatus([STARTS.name], stalled_after=1, busy_timeout=1, is_observed=False)

    async def use_closed() -> None:
        connection = await connect(settings, Supervisor(), status)
        await connection.shut_down()
        with pytest.raises(PullLost):
            await use(connection, settings)

    asyncio.run(use_closed())
