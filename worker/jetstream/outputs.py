"""Fetches output that an agent has moved into the object store. Consumer thread only.

An object is a stream's messages: one that describes it, and its chunks (NATS ADR-20).
"""

import asyncio
import base64
import binascii
import hashlib
import logging
import random
import re
import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from worker.codec.jsontext import parse_json
from worker.errors import BrokerError, PullLost, describe
from worker.jetstream.connection import Connection
from worker.jetstream.ephemeral import EphemeralConsumer, Received, reading
from worker.jetstream.outstanding import MOST_BYTES, fetched
from worker.jetstream.stream import last_message
from worker.logs import Repeats
from worker.messages import Fetch, Message, Nak, Output
from worker.processing.pool import ProjectionPool
from worker.projections.output import LONGEST, output_text
from worker.status.counters import Counters

log = logging.getLogger(__name__)

# Of each part, since a slow link takes minutes for a large object.
_TIMEOUT = 60.0
_MOST_DELIVERIES = 10
# Ten deliveries with these delays take about 20 minutes.
_FIRST_DELAY = 5.0
_LONGEST_DELAY = 300.0
_PATIENCE = 1200.0
_WARN_AGAIN_AFTER = 60.0
# An object may be overwritten while it is read; PCs of one broadcast share a key.
_TRIES = 10
# Servers accept lines of 4 KiB by default.
_LONGEST_NAME = 64 * 1024
_NUID = re.compile(r"[A-Za-z0-9_-]{1,256}")


_NO_ANSWER = (BrokerError, TimeoutError, OSError)


class _Missing(Exception):
    """The object or its bucket does not exist, or does not hold what it describes."""


class _Described(NamedTuple):
    """An object as its own description has it; `size` is in bytes."""

    nuid: str
    size: int
    digest: str


class Group:
    """Messages with as much output as fits memory."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self._fetched = 0

    @property
    def is_full(self) -> bool:
        return self._fetched >= MOST_BYTES

    def add(self, message: Message, output: Output | None) -> None:
        message = message if output is None else message._replace(output=output)
        self.messages.append(message)
        self._fetched += fetched(message)

    def take(self) -> list[Message]:
        """Return the messages, and begin another group."""
        taken, self.messages, self._fetched = self.messages, [], 0
        return taken


class Outputs:
    """One bucket of the object store, over whichever connection there is."""

    def __init__(self, bucket: str, counters: Counters) -> None:
        self._bucket = bucket
        self._counters = counters
        self._connection: Connection | None = None
        # Since when the catch-up gets no answer; live results may get theirs meanwhile.
        self._stuck_since: float | None = None
        self._repeats = Repeats(_WARN_AGAIN_AFTER)

    def attach(self, connection: Connection) -> None:
        """Fetch over this connection from now on."""
        self._connection = connection

    async def fetch(self, message: Message, fetch: Fetch) -> Output | Nak:
        """Return the output of a message; a Nak where the store does not answer.

        After its last delivery what cannot be fetched counts as missing.
        """
        try:
            return await self._fetch(fetch, give_up=message.delivery >= _MOST_DELIVERIES)
        except _NO_ANSWER:
            delay = min(_FIRST_DELAY * 2.0 ** (message.delivery - 1), _LONGEST_DELAY)
            return Nak(delay * random.uniform(0.9, 1.0))  # noqa: S311 (jitter, no secret)

    async def fetch_for_catch_up(self, fetch: Fetch) -> Output:
        """Return the output of a message that is read again.

        Raises PullLost where the store does not answer; after about 20 minutes of that, what cannot
        be fetched counts as missing.
        """
        now = time.monotonic()
        self._stuck_since = self._stuck_since or now
        try:
            output = await self._fetch(fetch, give_up=now - self._stuck_since > _PATIENCE)
        except _NO_ANSWER as error:
            raise PullLost("the object store does not answer") from error
        self._stuck_since = None
        return output

    def _note_missing(self, key: str, problem: str) -> None:
        self._counters.add(objects_missing=1)
        level = logging.WARNING if self._repeats.due(problem) else logging.DEBUG
        extra = {"bucket": self._bucket, "object": key, "error": problem}
        log.log(level, "output.missing", extra=extra)

    async def _fetch(self, fetch: Fetch, *, give_up: bool) -> Output:
        return Output(
            await self._part(fetch.stdout, give_up=give_up),
            await self._part(fetch.stderr, give_up=give_up),
        )

    async def _part(self, key: str | None, *, give_up: bool) -> str | None:
        """Return the text of one object, or None where there is none or it counts as missing."""
        if key is None:
            return None
        try:
            if self._connection is None:
                raise BrokerError("there is no connection to the broker")
            data = await read_object(self._connection, self._bucket, key)
        except _Missing as error:
            self._note_missing(key, str(error))
            return None
        except _NO_ANSWER as error:
            self._counters.add(objects_unavailable=1)
            if self._repeats.due("away"):
                extra = {"bucket": self._bucket, "error": describe(error)}
                log.warning("output.unavailable", extra=extra)
            if not give_up:
                raise
            self._note_missing(key, "the object store did not answer for too long")
            return None
        self._counters.add(objects_fetched=1, outputs_cut=len(data) > LONGEST)
        return output_text(data)


async def completed(
    page: list[Message], outputs: Outputs | None, pool: ProjectionPool
) -> AsyncIterator[list[Message]]:
    """Yield messages that are read again, with what they name in the object store.

    They come in groups that fit memory. Raises RepositoryError, and PullLost where the store does
    not answer.
    """
    missing = await asyncio.wrap_future(pool.missing_objects(page)) if outputs else {}
    group = Group()
    for message in page:
        fetch = missing.get(message) if missing else None
        output = await outputs.fetch_for_catch_up(fetch) if outputs and fetch else None
        group.add(message, output)
        if group.is_full:
            yield group.take()
    if group.messages:
        yield group.take()


async def read_object(connection: Connection, bucket: str, key: str) -> bytes:
    """Return an object, or a little more than the most that is stored of it.

    Raises _Missing for what is not there or not whole, BrokerError or TimeoutError without an
    answer.
    """
    described = await _describe(connection, bucket, key)
    for _ in range(_TRIES):
        try:
            return await _read_chunks(connection, bucket, described)
        except _Missing:
            before, described = described, await _describe(connection, bucket, key)
            if described == before:
                raise
    raise _Missing(f"was overwritten {_TRIES} times while it was read")


async def _read_chunks(connection: Connection, bucket: str, described: _Described) -> bytes:
    stream, chunks = f"OBJ_{bucket}", f"$O.{bucket}.C.{described.nuid}"
    digest, size, kept = hashlib.sha256(), 0, bytearray()
    async with reading(connection, stream, delete=False, filter_subject=chunks) as consumer:
        while size < described.size and (page := await _next_page(consumer)):
            for received in page:
                data = received.message.data
                digest.update(data)
                size += len(data)
                if len(kept) <= LONGEST:
                    kept += data
    if size != described.size:
        raise _Missing(f"has {size} bytes instead of {described.size}")
    if described.digest and not _fits(described.digest, digest.digest()):
        raise _Missing("has another digest than it describes")
    return bytes(kept)


async def _next_page(consumer: EphemeralConsumer) -> list[Received]:
    async with asyncio.timeout(_TIMEOUT):
        return await consumer.page(2**63)


async def _describe(connection: Connection, bucket: str, key: str) -> _Described:
    name = base64.urlsafe_b64encode(key.encode()).decode()
    if len(name) > _LONGEST_NAME:
        raise _Missing("has a name that is longer than any subject")
    message = await last_message(connection, f"OBJ_{bucket}", f"$O.{bucket}.M.{name}")
    if message is None:
        raise _Missing("does not exist")
    try:
        document = parse_json(base64.b64decode(message.get("data", "")))
        if document.get("deleted"):
            raise _Missing("was deleted")
        nuid, size = document["nuid"], document["size"]
        # It becomes a part of a subject, which must not name anything else.
        if not _NUID.fullmatch(nuid):
            raise ValueError("nuid: expected letters and digits")
        # parse_json returns every number as a float.
        if not isinstance(size, float) or not size.is_integer():
            raise ValueError("size: expected an integer")
        return _Described(nuid, int(size), str(document.get("digest") or ""))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _Missing(f"has no description that can be read: {describe(error)}") from error


def _fits(described: str, found: bytes) -> bool:
    """Return whether a digest such as `SHA-256=…`, in URL-safe base64, is that of the bytes."""
    algorithm, _, text = described.partition("=")
    if algorithm.upper() != "SHA-256":
        return True  # no other one is known, so none can be compared
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)) == found
    except (ValueError, binascii.Error):
        return False
