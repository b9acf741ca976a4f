"""Everything that the page for the browser shows, as one frozen value."""

import os
import socket
import time
from functools import partial
from typing import NamedTuple

from repo import Database
from worker import __version__
from worker.codec.timestamps import NANOSECONDS, present_second
from worker.observability.database_view import DatabaseView, View, read_tables
from worker.settings import Settings
from worker.status.health import Verdict
from worker.status.history import Sample
from worker.status.peers import Worker
from worker.status.worker_status import WorkerStatus


class Facts(NamedTuple):
    """The worker at one moment: `made_at` by this machine's clock, `moment` in monotonic seconds.

    Instants are in nanoseconds since 1970, ages and lag in seconds. What is None is unknown.
    """

    made_at: int
    moment: float
    verdict: Verdict
    this: Worker
    others: tuple[Worker, ...] | None
    lag: float | None
    pending: int | None
    ack_pending: int | None
    outstanding: int
    projected_up_to_age: float | None
    last_commit: int | None
    samples: tuple[Sample, ...]
    database: View


class Overview:
    """Looks at the worker for the page; `sample` belongs to one thread, `facts` to any."""

    def __init__(self, settings: Settings, status: WorkerStatus, database: Database) -> None:
        self._status = status
        self._database = DatabaseView(partial(read_tables, database, status.broker_clock))
        self._this = Worker(
            socket.gethostname(),
            os.getpid(),
            __version__,
            present_second(),
            "",
            settings.database,
        )

    def sample(self) -> None:
        """Take a sample of lag and rate if one is due."""
        self._status.sample()

    def facts(self) -> Facts:
        """Return what is known now; waits for the database up to two seconds."""
        database = self._database.latest()
        status, health = self._status, self._status.health
        verdict, last_commit = health.verdict(), health.last_commit
        return Facts(
            made_at=time.time_ns(),
            moment=time.monotonic(),
            verdict=verdict,
            this=self._this._replace(state=verdict.state),
            others=status.other_workers,
            lag=health.lag,
            pending=health.pending,
            ack_pending=health.ack_pending,
            outstanding=health.outstanding,
            projected_up_to_age=health.projected_up_to_age,
            last_commit=None if last_commit is None else round(last_commit * NANOSECONDS),
            samples=status.history.samples,
            database=database,
        )
