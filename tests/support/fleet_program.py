"""The fleet's own program, as far as the two shared tables go: a second writer of one database.

    python -m tests.support.fleet_program DATABASE NATS_URL STARTS_CONSUMER RESULTS_CONSUMER

It projects both streams one transaction a result, and tidies up by the
clock of the machine alone. A message whose write fails stays unacked and comes again. It ends on
SIGTERM and prints what it has done.
"""

import asyncio
import json
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import nats
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import ConsumerConfig

from worker.codec.timestamps import NANOSECONDS, format_instant, parse_instant
from worker.jetstream.tasks import cancel

NOTE = "[fleet: no result by the deadline]"
ALLOWED = 540  # seconds for a run, which a manifest of 360 s gives
_HOUR = 3600 * NANOSECONDS
_DAY = 24 * _HOUR
_TICK_EVERY = 0.2
_REST = 0.005  # after each message, so that a second program has its share

_INSERT_START = """
INSERT OR IGNORE INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, version, job_id, recorded_at, expires_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PROMOTE = "UPDATE executions SET status = 'running' WHERE exec_id = ? AND status = 'pending'"
_IS_REAPED = "SELECT reaped FROM execution_results WHERE result_id = ?"
_PUT_RESULT = """
INSERT INTO execution_results
    (result_id, request_id, exec_id, pc_id, started_at, exit_code, stdout, stderr, finished_at,
     job_id, recorded_at)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (result_id) DO UPDATE SET
    request_id = excluded.request_id, exit_code = excluded.exit_code, stdout = excluded.stdout,
    stderr = excluded.stderr, finished_at = excluded.finished_at, reaped = 0,
    job_id = coalesce(excluded.job_id, job_id)
WHERE finished_at IS NULL OR reaped = 1
"""
_COUNT = """
UPDATE executions SET
    success_count = success_count + :succeeded,
    failure_count = failure_count + 1 - :succeeded,
    status = iif(success_count + failure_count + 1 >= target_count, 'completed', 'running')
WHERE exec_id = :exec_id
"""
_EXPIRE = "UPDATE executions SET status = 'expired' WHERE status = 'pending' AND initiated_at < ?"
_REAP = """
UPDATE execution_results SET
    finished_at = :now, exit_code = -1, reaped = 1,
    stderr = iif(stderr = '', '', stderr || char(10)) || :note
WHERE finished_at IS NULL
    AND (expires_at < :now OR (expires_at IS NULL AND started_at < :day_ago))
RETURNING exec_id
"""
_DELETE_OLD = (
    "DELETE FROM execution_results WHERE recorded_at < ?",
    "DELETE FROM executions WHERE initiated_at < ?",
)


class Program:
    def __init__(self, connection: sqlite3.Connection) -> None:
        self.done: Counter[str] = Counter()
        self._connection = connection

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Begin by reading, as its library does: the write lock comes with the first write."""
        self._connection.execute("BEGIN")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            self._connection.execute("ROLLBACK")
            raise

    def start(self, start: dict[str, Any], stored_at: int) -> None:
        deadline = format_instant(stored_at + ALLOWED * NANOSECONDS)
        names = ("result_id", "request_id", "exec_id", "pc_id")
        values = [start[name] for name in names]
        values += [_stored(start["started_at"]), start["version"], start["manifest_id"]]
        self._connection.execute(_INSERT_START, (*values, format_instant(stored_at), deadline))
        self._connection.execute(_PROMOTE, (start["exec_id"],))

    def result(self, result: dict[str, Any], stored_at: int) -> None:
        values = [result[name] for name in ("result_id", "request_id", "exec_id", "pc_id")]
        values += [_stored(result["started_at"])]
        values += [result[name] for name in ("exit_code", "stdout", "stderr")]
        values += [_stored(result["finished_at"]), result["manifest_id"], format_instant(stored_at)]
        with self._transaction():
            was_reaped = self._connection.execute(_IS_REAPED, values[:1]).fetchone() == (1,)
            written = self._connection.execute(_PUT_RESULT, values).rowcount
            if written and not was_reaped:
                self._count(result["exec_id"], result["exit_code"])
        self.done["late" if was_reaped else "ended"] += written

    def _count(self, exec_id: str | None, exit_code: int) -> None:
        values = {"exec_id": exec_id, "succeeded": int(exit_code == 0)}
        self._connection.execute(_COUNT, values)

    def tidy_up(self) -> None:
        now = time.time_ns()
        times = {"now": format_instant(now), "day_ago": format_instant(now - _DAY), "note": NOTE}
        self._connection.execute(_EXPIRE, (format_instant(now - _HOUR),))
        with self._transaction():
            reaped = self._connection.execute(_REAP, times).fetchall()
            for (exec_id,) in reaped:
                self._count(exec_id, -1)
        self.done["reaped"] += len(reaped)
        for statement in _DELETE_OLD:
            self._connection.execute(statement, (format_instant(now - 90 * _DAY),))


def _stored(instant: str) -> str:
    return format_instant(parse_instant(instant))


def _stored_at(message: Msg) -> int:
    """Return when the broker stored a message, in nanoseconds."""
    return int(message.reply.split(".")[-2])


async def _project(
    js: JetStreamContext, names: tuple[str, str, str], program: Program, handle: Callable[..., None]
) -> None:
    stream, subjects, consumer = names
    config = ConsumerConfig(ack_wait=1)
    subscription = await js.pull_subscribe(subjects, consumer, stream, config)
    while True:
        try:
            messages = await subscription.fetch(10, timeout=1)
        except TimeoutError:
            continue
        for message in messages:
            try:
                handle(json.loads(message.data), _stored_at(message))
            except sqlite3.OperationalError:
                program.done["locked"] += 1
            else:
                await message.ack()
            await asyncio.sleep(_REST)


async def _tidy_up(program: Program) -> None:
    while True:
        try:
            program.tidy_up()
        except sqlite3.OperationalError:
            program.done["locked"] += 1
        await asyncio.sleep(_TICK_EVERY)


async def _run(program: Program, url: str, consumers: Sequence[str]) -> None:
    client = await nats.connect(url)
    js = client.jetstream()
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    starts = ("EVENTS", "events.started.>", consumers[0])
    results = ("RESULTS", "results.>", consumers[1])
    tasks = [
        asyncio.create_task(_project(js, starts, program, program.start)),
        asyncio.create_task(_project(js, results, program, program.result)),
        asyncio.create_task(_tidy_up(program)),
    ]
    waiting = asyncio.create_task(ended.wait())
    await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        if task.done():
            task.result()  # raises what has ended it
    await cancel(*tasks)
    await client.close()


def main(database: str, url: str, *consumers: str) -> None:
    with closing(sqlite3.connect(database, timeout=5, isolation_level=None)) as connection:
        program = Program(connection)
        asyncio.run(_run(program, url, consumers))
    print(json.dumps(program.done))


if __name__ == "__main__":
    main(*sys.argv[1:])
