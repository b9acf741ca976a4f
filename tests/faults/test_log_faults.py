"""Standard error that nobody reads: a full pipe, or a log driver that hangs."""

import fcntl
import json
import os
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.rows import Rows
from tests.support.waiting import eventually
from worker.logs import _MOST_QUEUED

DRAIN_TIMEOUT = 3


class UnreadLog:
    """The worker's log as a named pipe, which holds a page; nothing is read before `read_on`."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._descriptor, fcntl.F_SETPIPE_SZ, 4096)
        self._read = b""
        self._thread = threading.Thread(target=self._read_all, daemon=True)

    def read_on(self) -> None:
        """Read from now on whatever is written, until the worker ends."""
        os.set_blocking(self._descriptor, True)
        self._thread.start()

    def _read_all(self) -> None:
        while chunk := os.read(self._descriptor, 65_536):
            self._read += chunk

    def has(self, event: str) -> bool:
        """Return whether this event was read."""
        return f'"{event}"'.encode() in self._read

    def close(self) -> list[dict[str, Any]]:
        """Return the lines that were read once the worker has ended."""
        if self._thread.is_alive():
            self._thread.join(10)
        os.close(self._descriptor)
        return [json.loads(line) for line in self._read.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> UnreadLog:
    """The log of the first worker that the test starts."""
    return UnreadLog(tmp_path / "worker-1.log")


def test_a_log_that_nobody_reads_stops_neither_projection_nor_the_stop(
    stream: Broker, rows: Rows, start_worker: StartWorker, log: UnreadLog
) -> None:
    starts = 2 * _MOST_QUEUED
    stream.publish_starts(events.start() for _ in range(starts))
    options = ("--log-level", "debug", "--drain-timeout", f"{DRAIN_TIMEOUT}s")
    worker = start_worker(rows, *options)
    eventually(lambda: rows.count() == starts, 30)
    began = time.monotonic()
    assert worker.stop() == 0
    assert time.monotonic() - began < DRAIN_TIMEOUT + 2
    log.close()


def test_dropped_lines_are_counted_and_reported_once_the_log_is_read(
    stream: Broker, rows: Rows, start_worker: StartWorker, log: UnreadLog
) -> None:
    starts = 2 * _MOST_QUEUED
    stream.publish_starts(events.start() for _ in range(starts))
    worker = start_worker(rows, "--log-level", "debug")
    eventually(lambda: rows.count() == starts, 30)
    log.read_on()
    # The end waits a second for what is queued, which a busy machine may not read in that time.
    eventually(lambda: log.has("log.dropped"), 30)
    assert worker.stop() == 0
    lines = log.close()
    reported = [line["lines"] for line in lines if line["event"] == "log.dropped"]
    assert (lines[0]["event"], lines[-1]["event"]) == ("worker.starting", "worker.stopped")
    assert lines[-1]["counters"]["log_lines_dropped"] == sum(reported) > 0
    assert sum(line["event"] == "run.projected" for line in lines) > _MOST_QUEUED // 2
