"""What the rivals share: the contract. They differ in how they pull, write and ack.

Decoding, instants and deadlines are the worker's own pure functions and the statements are those of
`sql/sqlite/queries`, so that all write the very same rows. A connection has SQLite's defaults;
the file is in WAL mode, and `synchronous` is FULL as for the worker.
"""

import asyncio
import signal
import sqlite3
import time
from argparse import ArgumentParser
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from repo.execution_results import Run
from repo.rejected import RejectedEvent
from repo.statements import statement
from tests.support.broker import BUCKET, CONSUMER, STREAM
from worker.codec.timestamps import format_instant, present_second
from worker.messages import read_delivery
from worker.projections.deadline import deadline
from worker.projections.manifests import Timeout, read_timeout
from worker.projections.starts import MalformedEvent, decode_start

__all__ = ["BUCKET", "CONSUMER", "STREAM"]

INSERT_RUN = statement("insert_run")
INSERT_REJECTED_EVENT = statement("insert_rejected_event")
PROMOTE_EXECUTION = statement("promote_execution")


@dataclass(frozen=True, slots=True)
class Arguments:
    """Where the broker and the database are."""

    nats: str
    database: str


def arguments() -> Arguments:
    """Return the arguments of the process."""
    parser = ArgumentParser()
    parser.add_argument("--nats", default="")
    parser.add_argument("--database", default="")
    return Arguments(**vars(parser.parse_args()))


def connect(path: str) -> sqlite3.Connection:
    """Open the database as a simple worker does: autocommit, and the defaults of the library."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def stopped() -> asyncio.Event:
    """Return an event that SIGTERM sets."""
    event = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, event.set)
    return event


class Manifests:
    """The timeouts of all manifests in memory: a snapshot, and every change since."""

    def __init__(self, watcher: KeyValue.KeyWatcher) -> None:
        self._watcher = watcher
        self._timeouts: dict[str, int] = {}

    @classmethod
    async def load(cls, js: JetStreamContext) -> "Manifests":
        """Read the bucket; `follow` has to be run to see its changes."""
        bucket = await js.key_value(BUCKET)
        manifests = cls(await bucket.watchall())
        while (entry := await manifests._watcher.updates(timeout=30)) is not None:
            manifests._apply(entry)
        return manifests

    async def follow(self) -> None:
        """Apply changes until cancelled."""
        while True:
            with suppress(TimeoutError):
                entry = await self._watcher.updates(timeout=60)
                if entry is not None:
                    self._apply(entry)

    def deadline(self, manifest_id: str, recorded_at: int) -> str | None:
        """Return the stored text of a run's deadline, None where there is none."""
        timeout = self._timeouts.get(manifest_id)
        return None if timeout is None else format_instant(deadline(recorded_at, timeout))

    def _apply(self, entry: KeyValue.Entry) -> None:
        timeout = None if entry.operation else read_timeout(entry.value or b"")
        if isinstance(timeout, Timeout):
            self._timeouts[entry.key] = timeout.nanoseconds
        else:
            self._timeouts.pop(entry.key, None)


def row(message: Msg, manifests: Manifests) -> Run | RejectedEvent:
    """Return the row that a message makes: of a run, or of a rejected event where it is none."""
    told = read_delivery(message.reply)
    recorded_at = told.recorded_at if told else time.time_ns()
    try:
        start = decode_start(message.data)
    except MalformedEvent as error:
        return RejectedEvent(
            stream=STREAM,
            stream_sequence=told.stream_sequence if told else 0,
            recorded_at=format_instant(recorded_at),
            subject=message.subject,
            payload=message.data,
            reason=str(error),
            rejected_at=present_second(),
        )
    return Run(
        result_id=start.result_id,
        request_id=start.request_id,
        exec_id=start.exec_id,
        pc_id=start.pc_id,
        started_at=format_instant(start.started_at),
        version=start.version,
        job_id=start.manifest_id,
        recorded_at=format_instant(recorded_at),
        expires_at=manifests.deadline(start.manifest_id, recorded_at),
    )


def write_batch(
    connection: sqlite3.Connection, messages: Iterable[Msg], manifests: Manifests
) -> None:
    """Write a batch in one transaction: its runs, its rejected events, each execution once."""
    rows = [row(message, manifests) for message in messages]
    runs = [each for each in rows if isinstance(each, Run)]
    rejected = [each for each in rows if isinstance(each, RejectedEvent)]
    exec_ids = dict.fromkeys(run.exec_id for run in runs if run.exec_id)
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany(INSERT_RUN, runs)
        connection.executemany(INSERT_REJECTED_EVENT, rejected)
        connection.executemany(PROMOTE_EXECUTION, [(exec_id,) for exec_id in exec_ids])
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
