"""Whether the bucket of the manifests may have changed since it was looked at. Loop thread only.

A server passes a message on to those who listen to its subject before it confirms to the publisher
that the message is stored. So the notice of a put comes before every start that was published after
the put, and until one comes the worker need not ask. In a cluster a notice comes from the
publisher's server in one hop, a start by way of the copies of its stream. The server announces
changes of the stream.
"""

import logging
import time
from typing import NamedTuple

import nats.errors

from worker.errors import describe
from worker.jetstream.bucket import State
from worker.jetstream.connection import Connection
from worker.jetstream.subjects import manifest_changes, readings, stream_changes

log = logging.getLogger(__name__)

_NEVER = float("-inf")
# A notice without a new message by then was a purge, or a put that was refused: publishers wait
# less than that for the answer to a put (5 seconds in the client libraries).
_DONE_WITHIN = 10.0
# Long enough for several looks to show whether puts are announced after all.
_DISTRUSTED_FOR = 60.0


class Look(NamedTuple):
    """When a look at the bucket began, and after how many reconnections."""

    began: float
    reconnections: int


class Notices:
    """Compares what was announced with what looks at the bucket show. Times are monotonic seconds.

    The bucket always counts as changed without the right to listen, in another domain or account,
    where messages come or go unasked, and for a while after one that was not announced.
    """

    def __init__(self, bucket: str) -> None:
        self._bucket = bucket
        self._connection: Connection | None = None
        self._is_direct = self._is_heard = False
        # What was announced while the connection was away is never delivered.
        self._reconnections = 0
        self._state: State | None = None
        # How many changes were announced and are not seen as new messages; below 0, how many new
        # messages were not announced.
        self._missing = 0
        self._last_announced = _NEVER
        self._changed_at = float("inf")
        self._trusted_from = _NEVER

    async def listen(self, connection: Connection) -> None:
        """Begin to listen over a connection. Where that cannot be done, nothing is quiet."""
        self._connection, self._is_direct, self._is_heard = connection, False, False
        self._reset()
        if connection.other_domain is not None:
            return  # what is published there may not come through
        try:
            await connection.listen(readings(self._bucket), self._hear)
            await connection.listen(stream_changes(self._bucket), self._reset)
            for subject in manifest_changes(self._bucket):
                self._is_direct = await connection.listen(subject, self._announced)
        except nats.errors.Error as error:
            log.warning("manifests.not_announced", extra={"error": describe(error)})

    def begin_look(self) -> Look:
        """Return what `looked` needs to know of a look that begins now."""
        # The library counts before it subscribes again, so before anything can arrive.
        reconnections = 0 if self._connection is None else self._connection.stats["reconnects"]
        return Look(time.monotonic(), reconnections)

    def looked(self, look: Look, state: State | None) -> None:
        """Take what a look has shown; None is no bucket."""
        if look.reconnections != self._reconnections:
            self._reconnections, self._state = look.reconnections, None
        before, self._state = self._state, state
        if before is not None and state is not None and before.created_at == state.created_at:
            if self._missing < 0:  # since the last look, so their notices are not on their way
                self._trusted_from = time.monotonic() + _DISTRUSTED_FOR
                self._missing = 0
            self._missing -= state.last - before.last
        else:
            self._missing = max(self._missing, 0)
        if look.began - self._last_announced >= _DONE_WITHIN:
            self._missing = min(self._missing, 0)
        if look.began > self._changed_at:
            self._changed_at = _NEVER

    @property
    def is_quiet(self) -> bool:
        """Whether the bucket is still as the last look has shown it."""
        return (
            self._is_direct
            and (self._is_heard or self._state is None)  # a missing bucket is not read
            and self._connection is not None
            and self._connection.stats["reconnects"] == self._reconnections
            and self._connection.notices_denied_at == _NEVER
            and (self._state is None or self._state.is_announced)
            and self._missing == 0
            and self._changed_at == _NEVER
            and time.monotonic() >= self._trusted_from
        )

    def _reset(self) -> None:
        """Treat what is known as outdated: something may have been missed."""
        self._changed_at = time.monotonic()
        self._state = None

    def _hear(self) -> None:
        # The server announced a consumer; each reading of the bucket creates one. Where the account
        # imports JetStream from another one, nothing is denied, and nothing is ever announced.
        self._is_heard = True

    def _announced(self) -> None:
        self._missing += 1
        self._last_announced = time.monotonic()
