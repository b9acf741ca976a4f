"""The programs that the worker is compared with; `python -m tests.bench.rivals NAME` runs one.

They use the worker's pure functions and SQL files, and so write the same rows; they differ in how
they pull, write and ack. This is the only module of the benchmark that imports code of the worker.
The rivals read the manifests once and expect valid events: neither changes while they run.
"""

import asyncio
import json
import signal
import sqlite3
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from repo.execution_results import Run
from repo.statements import statement, text, texts
from tests.bench.data import TIMEOUTS, Result, make_events
from tests.support.broker import BUCKET, CONSUMER, STREAM
from worker.codec.durations import parse_duration
from worker.codec.timestamps import format_instant
from worker.messages import Message
from worker.projections.deadline import deadline
from worker.projections.results import build_result, decode_result
from worker.projections.starts import decode_start

_INSERT_RUN = texts("sqlite")[statement("insert_run")]
_INSERT_MANY = {rows: text("sqlite", statement("insert_runs"), rows) for rows in (1000, 100)}
_PROMOTE_EXECUTION = texts("sqlite")[statement("promote_execution")]
_END_RUN = texts("sqlite")[statement("end_run")]
_COUNT_ENDED_RUNS = texts("sqlite")[statement("count_ended_runs")]
_LIMIT_BATCH = 2000


def main() -> None:
    """Run one program until SIGTERM; a limit writes everything and prints how long that took."""
    options = parser()
    options.add_argument("name", choices=("fetch", "faststream", "sqlite"))
    options.add_argument("--batch", type=int, default=100)
    options.add_argument("--decode", action="store_true")
    given = options.parse_args()
    connection = connect(given.database)
    if given.name == "sqlite":
        print(json.dumps(write_alone(connection, given.events, decode=given.decode)))
    else:
        asyncio.run((fetch if given.name == "fetch" else faststream)(given, connection))
    connection.close()


def parser() -> ArgumentParser:
    """Return a parser of the options that rivals, limits and the probe share."""
    options = ArgumentParser()
    options.add_argument("--nats", required=True)
    options.add_argument("--database", required=True)
    options.add_argument("--events", type=int)
    return options


async def fetch(given: Namespace, connection: sqlite3.Connection) -> None:
    """Fetch, write and ack one batch after the other; a batch of one has no transaction."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    client = await nats.connect(given.nats)
    js = client.jetstream()
    timeouts = await read_timeouts(js)
    subscription = await js.pull_subscribe_bind(CONSUMER, STREAM)
    while not stop.is_set():
        try:
            messages = await subscription.fetch(given.batch, timeout=0.5)
        except TimeoutError:
            continue
        runs = make_runs(stored(messages), timeouts)
        if given.batch == 1:
            connection.execute(_INSERT_RUN, runs[0])
            connection.execute(_PROMOTE_EXECUTION, (runs[0].exec_id,))
        else:
            write_batch(connection, runs)
        for message in messages:
            await message.ack()
    await client.flush()
    await client.close()


async def faststream(given: Namespace, connection: sqlite3.Connection) -> None:
    """Serve with FastStream's pull subscriber; its decoding, validation and logs are off."""
    from faststream import AckPolicy, FastStream
    from faststream.nats import JStream, NatsBroker, PullSub

    async def raw_messages(message: Any, _original: Any) -> Any:
        return message.raw_message

    async def project(messages: list[Msg]) -> None:
        write_batch(connection, make_runs(stored(messages), timeouts))

    broker = NatsBroker(given.nats, apply_types=False, logger=None)
    client = await broker.connect()
    timeouts = await read_timeouts(client.jetstream())
    subscriber = broker.subscriber(
        "events.started.>",
        durable=CONSUMER,
        stream=JStream(STREAM, declare=False),
        pull_sub=PullSub(batch_size=given.batch, timeout=0.5, batch=True),
        decoder=raw_messages,
        ack_policy=AckPolicy.NACK_ON_ERROR,
    )
    subscriber(project)
    await FastStream(broker, logger=None).run()


def write_alone(connection: sqlite3.Connection, events: int, *, decode: bool) -> float:
    """Write rows, or decode payloads and write them, and return the seconds that this took.

    As in the worker: the settings, rows in a transaction, rows in a statement.
    """
    connection.execute("PRAGMA cache_size = -65536")
    connection.execute("PRAGMA wal_autocheckpoint = 16000")
    timeouts = parse_timeouts(TIMEOUTS)
    now = time.time_ns()
    messages = [(each.payload, now + n * 1001) for n, each in enumerate(make_events(events))]
    starts = range(0, events, _LIMIT_BATCH)
    batches = (make_runs(messages[at : at + _LIMIT_BATCH], timeouts) for at in starts)
    ready = batches if decode else list(batches)
    began = time.perf_counter()
    for runs in ready:
        write_batch(connection, runs, rows_at_once=True)
    return time.perf_counter() - began


def connect(path: str) -> sqlite3.Connection:
    """Open a database in autocommit, as durable as the worker's: a WAL file, synchronous FULL."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


async def read_timeouts(js: JetStreamContext) -> dict[str, int]:
    """Return the timeout of each manifest in the bucket, in nanoseconds."""
    watcher = await (await js.key_value(BUCKET)).watchall()
    texts = {}
    while (entry := await watcher.updates(timeout=30)) is not None:
        texts[entry.key] = json.loads(entry.value or b"")["execute"]["timeout"]
    await watcher.stop()
    return parse_timeouts(texts)


def parse_timeouts(texts: dict[str, str]) -> dict[str, int]:
    return {manifest_id: parse_duration(text) for manifest_id, text in texts.items()}


def stored(messages: Iterable[Msg]) -> list[tuple[bytes, int]]:
    """Return each payload, and when the server stored it, in nanoseconds since 1970."""
    return [(message.data, int(message.reply.split(".")[-2])) for message in messages]


def make_runs(messages: Iterable[tuple[bytes, int]], timeouts: dict[str, int]) -> list[Run]:
    """Return the rows of payloads that the server stored at these times."""
    return [
        Run(
            result_id=start.result_id,
            request_id=start.request_id,
            exec_id=start.exec_id,
            pc_id=start.pc_id,
            started_at=start.started_at,
            version=start.version,
            job_id=start.manifest_id,
            recorded_at=format_instant(stored_at),
            expires_at=format_instant(deadline(stored_at, timeouts[start.manifest_id])),
        )
        for start, stored_at in ((decode_start(data), stored_at) for data, stored_at in messages)
    ]


def write_batch(
    connection: sqlite3.Connection, runs: Sequence[Run], *, rows_at_once: bool = False
) -> None:
    """Write runs in one transaction, and promote each of their executions once."""
    connection.execute("BEGIN IMMEDIATE")
    written = 0
    for rows, insert in _INSERT_MANY.items() if rows_at_once else ():
        while len(runs) - written >= rows:
            values = list(chain.from_iterable(runs[written : written + rows]))
            connection.execute(insert, values)
            written += rows
    connection.executemany(_INSERT_RUN, runs[written:])
    exec_ids = dict.fromkeys(run.exec_id for run in runs)
    connection.executemany(_PROMOTE_EXECUTION, [(exec_id,) for exec_id in exec_ids])
    connection.execute("COMMIT")


def write_end(connection: sqlite3.Connection, result: Result) -> None:
    """Write one result and count it, in one transaction."""
    event = decode_result(result.payload)
    end = build_result(event, Message(result.subject, result.payload, 1, 1, time.time_ns()))
    succeeded = end.exit_code == 0
    count = {"exec_id": end.exec_id, "succeeded": succeeded, "failed": not succeeded}
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_END_RUN, end.as_end())
    connection.execute(_COUNT_ENDED_RUNS, count)
    connection.execute("COMMIT")


if __name__ == "__main__":
    main()
