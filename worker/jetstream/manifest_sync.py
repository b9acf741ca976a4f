"""Keeps the manifest cache equal to the bucket, for every batch. Consumer thread only."""

import asyncio
import contextlib
import logging
import time

import nats.errors

from worker.errors import BrokerError, ConfigurationError, ConnectionLost, describe
from worker.jetstream.bucket import Bucket, BucketMissing
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import Connection
from worker.jetstream.notices import Notices
from worker.jetstream.tasks import run_until
from worker.projections.manifests import ManifestCache

log = logging.getLogger(__name__)

# A start waits this long for a bucket that does not answer; then deadlines are missing.
PATIENCE = 10.0
_FRESH_FOR = 1.0
_COMPARE_AFTER = 0.5
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 5.0
_UNREADABLE = (nats.errors.Error, OSError, TimeoutError, ValueError, BrokerError)


class ManifestSync:
    """Compares one bucket with a cache, for ever and whenever a batch needs it."""

    def __init__(self, bucket: str, cache: ManifestCache) -> None:
        self._name = bucket
        self._cache = cache
        self._bucket = Bucket(bucket, cache)
        self._notices = Notices(bucket)
        self._wanted = asyncio.Event()
        self._waiting: list[asyncio.Future[None]] = []
        self._connection: Connection | None = None
        self._connected_at = self._known_until = float("-inf")
        self._is_given_up = self._is_silent = False
        self._last_problem: str | None = None

    @property
    def is_fresh(self) -> bool:
        """Whether the cache is what the bucket held lately, within the last second if it exists."""
        return self._is_given_up or time.monotonic() <= self._known_until

    @property
    def may_try(self) -> bool:
        """Whether the bucket still holds what the last look found.

        A deadline is never corrected, so nothing is written before the manifests are known.
        """
        return time.monotonic() <= self._known_until and self._notices.is_quiet

    @property
    def reached(self) -> int:
        """Nothing is known without asking."""
        return 0

    async def catch_up(self, stored_at: int = 0) -> None:  # noqa: ARG002 (see Prerequisite)
        """Return when the cache holds all that the bucket holds now.

        A manifest that was put just before an event must count for it, and one that is gone must
        not: a deadline is never corrected later. A bucket that cannot be read does not stop
        projection: after a bounded time the cache is cleared, and deadlines are missing.
        """
        began = time.monotonic()
        while not (self._is_silent or self.may_try):
            equal: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting.append(equal)
            self._wanted.set()
            try:
                async with asyncio.timeout(PATIENCE):
                    await equal
                return
            except TimeoutError:
                # While there is no connection nothing is dispatched.
                if self._has_been_connected_for(PATIENCE) and self._is_overdue(began):
                    self._give_up("no answer in time", self._waiting, is_silent=True)

    async def be_fresh_or_empty(self) -> None:
        """Return within about a second: what waits is projected now, bucket or not."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FRESH_FOR):
                await self.catch_up()
        if not self.is_fresh:
            self._give_up("no answer before the stop", self._waiting, is_silent=False)

    def _has_been_connected_for(self, seconds: float) -> bool:
        connected = self._connection is not None and self._connection.is_connected
        return connected and time.monotonic() - self._connected_at >= seconds

    def _is_overdue(self, since: float) -> bool:
        """Return whether the bucket is silent, and not only slow to read over a slow link."""
        since = max(since, self._bucket.read_at)
        return self._connection is None or self._connection.link.is_overdue(since, PATIENCE)

    def refresh(self) -> None:
        """Compare now, without waiting for the backoff: the client may have reconnected."""
        self._wanted.set()

    async def run(self, connection: Connection) -> None:
        """Keep the cache equal until cancelled; errors are logged and retried with backoff."""
        self._connection = connection
        await self._notices.listen(connection)
        while True:
            try:
                await connection.usable()
            except BrokerError:  # closed for good, which ends the session, and this with it
                await asyncio.sleep(_COMPARE_AFTER)
                continue
            self._connected_at = time.monotonic()
            self._is_silent = False
            lost = ConnectionLost("the connection was lost")
            with contextlib.suppress(ConnectionLost):
                await run_until(connection.lost(), self._compare_for_ever(connection), lost)

    async def _compare_for_ever(self, connection: Connection) -> None:
        backoff = _FIRST_BACKOFF
        while True:
            if await self._compare(connection):
                backoff = _FIRST_BACKOFF
                await self._rest(_COMPARE_AFTER)
            else:
                await self._rest(backoff)
                backoff = min(backoff * 2, _LONGEST_BACKOFF)

    async def _compare(self, connection: Connection) -> bool:
        """Make the cache equal to the bucket; returns whether it is."""
        look = self._notices.begin_look()
        self._wanted.clear()
        waiting = list(self._waiting)
        try:
            state = await self._bucket.sync(connection)
        except BucketMissing as error:
            self._notices.looked(look, None)
            self._known_until = time.monotonic() + 2 * _LONGEST_BACKOFF
            self._give_up(f"the bucket {error}", waiting, is_silent=False)
            return False
        except _UNREADABLE as error:
            if connection.is_connected:  # a request that is refused only times out
                self._log_problem(connection.problem_since(look.began) or describe(error))
            return False
        self._notices.looked(look, state)
        self._known_until = time.monotonic() + _FRESH_FOR
        self._cache.confirm()
        self._is_given_up = self._is_silent = False
        self._last_problem = None
        # Those who came meanwhile, too, where nothing was announced since the look began.
        self._answer(list(self._waiting) if self.may_try else waiting)
        return True

    async def _rest(self, seconds: float) -> None:
        """Return after a while, or when a batch needs the manifests."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._wanted.wait()

    def _give_up(
        self, problem: str, waiting: list[asyncio.Future[None]], *, is_silent: bool
    ) -> None:
        """Have no manifests; `is_silent` is whether the next batches need not even ask."""
        self._log_problem(problem)
        self._cache.clear()
        self._bucket.forget()
        self._is_given_up, self._is_silent = True, is_silent
        self._answer(waiting)

    def _answer(self, waiting: list[asyncio.Future[None]]) -> None:
        for one in waiting:
            if not one.done():
                one.set_result(None)
        self._waiting = [one for one in self._waiting if not one.done()]

    def _log_problem(self, problem: str) -> None:
        """Log a problem once, not at each attempt."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("manifests.unavailable", extra={"bucket": self._name, "error": problem})


def read_manifests(client: BrokerClient, name: str, cache: ManifestCache) -> int:
    """Fill the cache for a command; returns how many messages of the bucket have no key.

    Raises ConfigurationError where the bucket does not exist, and BrokerError where it cannot be
    read now.
    """
    bucket = Bucket(name, cache, delete=True)
    try:
        client.do(bucket.sync(client.connection))
    except BucketMissing as error:
        raise ConfigurationError(f"bucket {name!r} {error}") from error
    except _UNREADABLE as error:
        raise BrokerError(f"the bucket {name!r} cannot be read") from error
    return bucket.without_key
