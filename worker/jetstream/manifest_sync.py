"""Keeps the manifest cache equal to the bucket: a snapshot, then the watch. Consumer thread only.

The library's watch can go stale without an error (a recreated bucket, a restarted server), so the
bucket's last revision is compared with the watch's every few seconds, and the snapshot is taken
again after every reconnect and every few minutes.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime

import nats.errors
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import BadBucketError, BucketNotFoundError, InvalidBucketNameError
from nats.js.kv import KeyValue

from worker.errors import BrokerError, ConfigurationError, describe
from worker.jetstream.client import BrokerClient
from worker.jetstream.connection import API, API_TIMEOUT, Connection
from worker.jetstream.tasks import run_until
from worker.projections.manifests import Manifest, ManifestCache, NoTimeout, put_later, read_timeout

log = logging.getLogger(__name__)

FIRST_SNAPSHOT_TIMEOUT = 10.0
_SNAPSHOT_TIMEOUT = 30.0
_QUIET = 1.0
_CATCH_UP_TIMEOUT = 0.25
_NO_CATCH_UP = 5.0
_COMPARE_AFTER = 10.0
_REFRESH_AFTER = 300.0
_FIRST_BACKOFF = 0.5
_LONGEST_BACKOFF = 5.0
_NO_BUCKET = (BucketNotFoundError, BadBucketError, InvalidBucketNameError)


class ManifestSync:
    """Follows one bucket into a cache, for ever."""

    def __init__(self, bucket: str, cache: ManifestCache) -> None:
        self._bucket = bucket
        self._cache = cache
        self._attempted = asyncio.Event()
        self._again = asyncio.Event()
        self._last_problem: str | None = None
        self._reported: dict[str, int] = {}
        self._connection: Connection | None = None
        self._following: KeyValue | None = None
        self._revision = 0
        self._advanced = asyncio.Event()
        self._catch_up_after = 0.0

    async def first_attempt(self) -> None:
        """Return after the first attempt at a snapshot, or after a bounded time.

        A bucket that cannot be read does not stop projection: deadlines are missing until it can.
        """
        try:
            async with asyncio.timeout(FIRST_SNAPSHOT_TIMEOUT):
                await self._attempted.wait()
        except TimeoutError:
            self._log_problem("no snapshot within the time allowed")

    async def catch_up(self) -> None:
        """Return when the cache holds all that the bucket holds now, at once if it cannot be read.

        A manifest that was put just before an event must count for it: a missing deadline is never
        filled in later. Otherwise watch and pull are not ordered against each other.
        """
        bucket, connection = self._following, self._connection
        if bucket is None or connection is None or time.monotonic() < self._catch_up_after:
            return
        try:
            async with asyncio.timeout(_CATCH_UP_TIMEOUT):
                info = await connection.ask(f"{API}.STREAM.INFO.KV_{self._bucket}")
                last = info["state"]["last_seq"] if "state" in info else 0
                while self._following is bucket and self._revision < last:
                    self._advanced.clear()
                    await self._advanced.wait()
        except (nats.errors.Error, OSError, TimeoutError, ValueError):
            # The watch reports its own trouble; do not slow down the messages as well.
            self._catch_up_after = time.monotonic() + _NO_CATCH_UP

    def refresh(self) -> None:
        """Take a new snapshot now: the client has reconnected."""
        self._again.set()

    async def load(self, js: JetStreamContext) -> None:
        """Take one snapshot into the cache, without a watch.

        Raises ConfigurationError where the bucket does not exist, and BrokerError where it cannot
        be read now.
        """
        try:
            bucket = await js.key_value(self._bucket)
            async with _watching(bucket) as watcher:
                await self._load(watcher, await _info(bucket))
        except _NO_BUCKET as error:
            raise ConfigurationError(f"bucket {self._bucket!r} {_no_bucket(error)}") from error
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise BrokerError(f"the bucket {self._bucket!r} cannot be read") from error

    async def run(self, connection: Connection, js: JetStreamContext) -> None:
        """Follow the bucket until cancelled; errors are logged and retried with backoff."""
        self._connection = connection
        backoff = _FIRST_BACKOFF
        while True:
            self._again.clear()
            began = time.monotonic()
            try:
                await self._follow(js)
                backoff = _FIRST_BACKOFF
            except _NO_BUCKET as error:
                if isinstance(error, BucketNotFoundError):
                    self._cache.clear()
                self._log_problem(f"the bucket {_no_bucket(error)}")
            except (nats.errors.Error, OSError, TimeoutError) as error:
                # A request that is refused only times out.
                self._log_problem(connection.problem_since(began) or describe(error))
            else:
                continue
            self._attempted.set()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(backoff):
                    await self._again.wait()
            backoff = min(backoff * 2, _LONGEST_BACKOFF)

    async def _follow(self, js: JetStreamContext) -> None:
        """Take a snapshot and apply changes to it until it is time for another."""
        bucket = await js.key_value(self._bucket)
        info = await _info(bucket)
        async with _watching(bucket) as watcher:
            await self._load(watcher, info)
            self._following = bucket
            self._attempted.set()
            self._last_problem = None
            try:
                await self._changes(bucket, watcher, info)
            finally:
                self._following = None
                self._advanced.set()

    async def _load(self, watcher: KeyValue.KeyWatcher, info: StreamInfo) -> None:
        async with asyncio.timeout(_SNAPSHOT_TIMEOUT):
            snapshot, revision = await self._snapshot(watcher, info.state.last_seq)
        self._cache.replace(snapshot)
        self._revision = revision
        log.info(
            "manifests.loaded",
            extra={"bucket": self._bucket, "manifests": len(self._cache), "revision": revision},
        )

    async def _snapshot(
        self, watcher: KeyValue.KeyWatcher, last: int
    ) -> tuple[dict[str, Manifest], int]:
        """Return the last value of each key and the highest revision seen, `last` or above.

        The watch's own end marker can come too early, and revision `last` may be gone from the
        bucket: after the marker a quiet moment ends it as well.
        """
        snapshot: dict[str, Manifest] = {}
        revision = 0
        marked = False
        while revision < last:
            try:
                entry = await watcher.updates(timeout=_QUIET if marked else _SNAPSHOT_TIMEOUT)
            except TimeoutError:
                if marked:
                    break
                raise
            if entry is None:
                marked = True
                continue
            revision = max(revision, entry.revision or 0)
            put_later(snapshot, entry.key, self._manifest(entry))
        return snapshot, max(revision, last)

    async def _changes(
        self, bucket: KeyValue, watcher: KeyValue.KeyWatcher, info: StreamInfo
    ) -> None:
        """Apply changes until a refresh is due; return early when the watch has gone stale."""
        refresh_at = time.monotonic() + _REFRESH_AFTER
        compare_at = time.monotonic() + _COMPARE_AFTER
        behind = False
        while not self._again.is_set() and time.monotonic() < refresh_at:
            entry = await self._next(watcher, compare_at - time.monotonic())
            if entry is not None:
                self._cache.apply(entry.key, self._manifest(entry))
                self._revision = max(self._revision, entry.revision or 0)
                self._advanced.set()
            if time.monotonic() < compare_at:
                continue
            compare_at = time.monotonic() + _COMPARE_AFTER
            now = await _info(bucket)
            if now.created != info.created or (behind and now.state.last_seq > self._revision):
                log.warning("manifests.stale", extra={"bucket": self._bucket})
                return
            behind = now.state.last_seq > self._revision

    async def _next(self, watcher: KeyValue.KeyWatcher, seconds: float) -> KeyValue.Entry | None:
        """Return the next change, or None after a while or when a refresh is wanted."""
        change = watcher.updates(timeout=max(seconds, 0.01))
        try:
            entry: KeyValue.Entry | None = await run_until(
                self._again.wait(), change, TimeoutError()
            )
        except TimeoutError:
            return None
        return entry

    def _manifest(self, entry: KeyValue.Entry) -> Manifest:
        put_at, revision = _put_at(entry), entry.revision or 0
        if entry.operation is not None:  # DEL or PURGE
            return Manifest(revision, None, put_at)
        timeout = read_timeout(entry.value or b"")
        if isinstance(timeout, NoTimeout) and self._reported.get(entry.key) != revision:
            self._reported[entry.key] = revision
            log.warning(
                "manifest.without_timeout",
                extra={
                    "manifest_id": entry.key,
                    "reason": timeout.reason,
                    "error": timeout.problem,
                },
            )
        return Manifest(revision, timeout, put_at)

    def _log_problem(self, problem: str) -> None:
        """Log a problem once, not at each attempt."""
        if problem != self._last_problem:
            self._last_problem = problem
            log.warning("manifests.unavailable", extra={"bucket": self._bucket, "error": problem})


def _put_at(entry: KeyValue.Entry) -> float:
    created: object = entry.created  # declared as a number, and a datetime in fact
    return created.timestamp() if isinstance(created, datetime) else 0.0


def _no_bucket(error: Exception) -> str:
    if isinstance(error, BucketNotFoundError):
        return "does not exist"
    return f"is not a key-value bucket ({type(error).__name__})"


async def _info(bucket: KeyValue) -> StreamInfo:
    status = await bucket.status()
    return status.stream_info


@asynccontextmanager
async def _watching(bucket: KeyValue) -> AsyncIterator[KeyValue.KeyWatcher]:
    watcher = await bucket.watchall()
    try:
        yield watcher
    finally:
        with contextlib.suppress(nats.errors.Error, OSError):
            await watcher.stop()


def read_manifests(client: BrokerClient, bucket: str, cache: ManifestCache) -> None:
    """Fill the cache for a command; takes a minute at most. Raises as `ManifestSync.load` does."""
    js = client.connection.jetstream(timeout=API_TIMEOUT)
    client.do(ManifestSync(bucket, cache).load(js))
