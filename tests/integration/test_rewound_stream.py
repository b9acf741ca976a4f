"""A sequence number alone proves nothing: streams and consumers that go back."""

import shutil
from pathlib import Path

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.integration.conftest import RunUntilIdle
from tests.support import restoring
from tests.support.broker import STREAM, Broker
from tests.support.nats_server import NatsServer
from tests.support.restoring import publish
from tests.support.rows import Rows
from tests.support.worker_process import WorkerProcess


class OldBroker:
    """A server whose stream can be put back to an older state, its consumers left as they are."""

    def __init__(self, server: NatsServer) -> None:
        self.server = server
        self.url = server.url

    def stop_and_copy(self, to: Path) -> None:
        self.server.stop()
        shutil.copytree(self._messages, to)
        self.server.start()

    def put_back(self, copy: Path) -> None:
        messages = self._messages
        shutil.rmtree(messages)
        shutil.copytree(copy, messages)

    @property
    def _messages(self) -> Path:
        (found,) = self.server.store.glob(f"**/streams/{STREAM}/msgs")
        return found


@pytest.fixture
def old(make_server: MakeServer) -> OldBroker:
    return OldBroker(make_server().start())


def fill(broker: Broker, first: int, last: int) -> None:
    publish(broker, first, last)
    assert broker.stream_info().state.last_seq >= last - first + 1


def rewound(worker: WorkerProcess) -> int:
    return len(worker.logged("stream.rewound", level="warning"))


@pytest.mark.parametrize("is_running", [True, False])
@pytest.mark.parametrize(
    ("new", "last"),
    [(30, "short of the consumer"), (50, "exactly at the consumer"), (80, "beyond the consumer")],
)
def test_a_stream_that_goes_back_is_read_again(
    old: OldBroker,
    rows: Rows,
    tmp_path: Path,
    start_worker: StartWorker,
    *,
    is_running: bool,
    new: int,
    last: str,
) -> None:
    with Broker(old.url) as broker:
        broker.make_stream()
        worker = start_worker(rows, nats=old.url, pulling=True)
        fill(broker, 1, 50)
        worker.until(lambda: rows.count() == 50 and broker.is_acked())
        old.stop_and_copy(tmp_path / "copy")
        fill(broker, 51, 100)
        worker.until(lambda: rows.count() == 100 and broker.is_acked())
        if not is_running:
            assert worker.stop() == 0
        old.server.stop()
        old.put_back(tmp_path / "copy")
        old.server.start()
        publish(broker, 101, 100 + new)
        if not is_running:
            worker = start_worker(rows, nats=old.url)
        worker.until(lambda: rows.count() == 100 + new, 30)
        publish(broker, 201, 300)
        worker.until(lambda: rows.count() == 200 + new, 30)
        assert worker.stop() == 0
        assert rewound(worker) == 1, last


def test_an_older_database_beside_an_older_stream_reads_only_what_it_lacks(
    old: OldBroker,
    rows: Rows,
    tmp_path: Path,
    start_worker: StartWorker,
    run_until_idle: RunUntilIdle,
) -> None:
    with Broker(old.url) as broker:
        broker.make_stream()
        fill(broker, 1, 40)
        run_until_idle(rows, nats=old.url)
        backup = restoring.copy(rows, tmp_path / "backup.db")
        fill(broker, 41, 50)
        run_until_idle(rows, nats=old.url)
        old.stop_and_copy(tmp_path / "copy")
        fill(broker, 51, 100)
        run_until_idle(rows, nats=old.url)
        restoring.put_back(rows, backup)
        old.server.stop()
        old.put_back(tmp_path / "copy")
        old.server.start()
        publish(broker, 101, 130)
        worker = start_worker(rows, nats=old.url)
        worker.until(lambda: rows.count() == 80, 30)
        assert worker.stop() == 0
