"""What the page shows of the database: read for the page, by one reader at a time, then kept.

Nothing waits for the database for long: a page that several people watch costs one short read in
ten seconds, and while the database does not answer, the page says so.
"""

import logging
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from repo import Database, overview, queries
from repo.errors import RepositoryError
from repo.overview import JobCount, ReasonCount
from repo.queries import Counted
from worker.codec.timestamps import format_instant
from worker.errors import describe
from worker.status.broker_clock import BrokerClock

log = logging.getLogger(__name__)

MOST_RUNS = 20_000
MOST_EVENTS = 10_000  # as the statement counts
MOST_JOBS = 50
MOST_REASONS = 20

_FRESH_FOR = 10.0
_WAIT = 2.0


class Tables(NamedTuple):
    """What was found. `now` is the instant by which runs are overdue, and whose clock showed it."""

    counted: Counted
    jobs: tuple[JobCount, ...]
    reasons: tuple[ReasonCount, ...]
    now: int
    by_broker: bool


class View(NamedTuple):
    """What the last read found, or else why there is nothing to show."""

    tables: Tables | None
    problem: str = ""


class DatabaseView:
    """Reads with `read` when it is asked and what it has is old; any thread may ask.

    `fresh_for` is for how many seconds a view is kept, `wait` how long to wait for a new one.
    """

    def __init__(
        self,
        read: Callable[[], Tables],
        *,
        fresh_for: float = _FRESH_FOR,
        wait: float = _WAIT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._fresh_for = fresh_for
        self._wait = wait
        self._clock = clock
        self._lock = threading.Lock()
        self._done = threading.Event()
        self._done.set()
        self._began = float("-inf")
        self._view: View | None = None

    def latest(self) -> View:
        """Return what the tables held at most ten seconds ago, or why that is not known."""
        with self._lock:
            is_old = self._clock() - self._began > self._fresh_for
            if is_old and self._done.is_set():
                self._start()
            done = self._done
        if done.wait(self._wait) and self._view is not None:
            return self._view
        return View(None, f"no answer for {self._clock() - self._began:.0f} s")

    def _start(self) -> None:
        done = threading.Event()
        threading.Thread(target=self._run, args=(done,), name="page's reader", daemon=True).start()
        self._began, self._done = self._clock(), done

    def _run(self, done: threading.Event) -> None:
        try:
            self._view = View(self._read())
        except RepositoryError as error:
            self._view = View(None, f"{error.summary}: {error}")
        except BaseException as error:  # no thread may end unseen
            log.exception("page.failed", extra={"error": describe(error)})
            self._view = View(None, describe(error))
        finally:
            done.set()


def read_tables(database: Database, broker_clock: BrokerClock) -> Tables:
    """Read what the page shows, on a connection of its own; raises RepositoryError."""
    known = broker_clock.now
    now = time.time_ns() if known is None else known
    with database.reading() as connection:
        return Tables(
            queries.count(connection, format_instant(now), MOST_EVENTS + 1),
            # One more than is shown, to see whether there are more.
            tuple(overview.count_by_job(connection, format_instant(now), MOST_RUNS, MOST_JOBS + 1)),
            tuple(overview.count_by_reason(connection)),
            now,
            by_broker=known is not None,
        )
