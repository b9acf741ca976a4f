"""Continuous pull with credit and heartbeats from one consumer. Broker thread only.

Requests overlap, so that the server never waits for the next one. How it ends a request is told by
statuses on the request's own inbox; NATS's ADR-37 lists them.
"""

import asyncio
import contextlib
import json
import logging
import re
import time
from collections.abc import Callable, Sequence

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from worker.codec.timestamps import NANOSECONDS
from worker.errors import ConfigurationError, ConnectionLost, NoResponse, PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.outstanding import OutstandingMessages
from worker.jetstream.protocol import Delivered
from worker.jetstream.pull_requests import Credit
from worker.messages import Message, read_delivery

log = logging.getLogger(__name__)

MOST_CREDIT = 500
# Short, so that a stop can wait for the server to end what was asked for: a message that it sends
# while the subscription goes away is delivered to nobody, and stuck until the ack wait.
EXPIRES = 1.0
HEARTBEAT = 0.5
_EXPIRES_LATE = 1.0
_LONGEST_SILENCE = 5.0
_TICK = 0.5
_LEAVE_TICK = 0.05
_DRAIN_TIMEOUT = 1.0
_BACK_OFF = 1.0
_ENDED = re.compile(r"exceeds maxbytes|batch completed", re.IGNORECASE)
_MOST_IN_A_REQUEST = re.compile(r"Exceeded MaxRequestBatch of (\d+)", re.IGNORECASE)


class Puller:
    """One pull, on one inbox, from bind to stop or loss.

    `room` tells how many more messages may come, `arrived` is called when some have, `answered` at
    the first sign that requests are served at all. `last_sign` is when the consumer was last heard
    of (monotonic seconds).
    """

    def __init__(
        self,
        connection: Connection,
        subject: str,
        outstanding: OutstandingMessages,
        *,
        room: Callable[[], int],
        arrived: Callable[[], None],
        answered: Callable[[], None],
    ) -> None:
        self.last_sign = time.monotonic()
        self.is_answered = False
        self.changed = connection.disturbed
        self._connection = connection
        self._subject = subject
        self._outstanding = outstanding
        self._room = room
        self._arrived = arrived
        self._answered = answered
        self._inbox = connection.new_inbox()
        self._credit = Credit()
        self._last_request = 0
        self._last_delivery = 0
        self._waiting_since: float | None = None  # for any sign of the server
        self._not_before = 0.0
        self._stopping = False
        self._idle = False
        self._lost: str | None = None
        self._refused: str | None = None
        self._most = MOST_CREDIT
        self._reconnections = connection.reconnections
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Pull until `stop` is called; raises PullLost or BrokerError when nothing comes.

        Raises ConfigurationError where the consumer allows no request of this kind.
        """
        try:
            self._subscription = await self._connection.draw(
                self._inbox + ".*", self._take, self._take_status
            )
        except nats.errors.Error as error:
            raise PullLost("the inbox cannot be subscribed to") from error
        try:
            while not self._stopping:
                self._check()
                await self._refill()
                await self._next_change(_TICK)
            await self._let_credit_end()
        finally:
            await self._leave()

    def stop(self, *, idle: bool = False) -> None:
        """Make `run` leave the pull and return; at once where nothing can come any more."""
        self._stopping = True
        self._idle = idle
        self.changed.set()

    @property
    def is_lost(self) -> bool:
        """Tell whether the consumer is known to be gone."""
        return self._lost is not None

    def lose(self, problem: str) -> None:
        """Make `run` raise PullLost: somebody has found out that the consumer is gone."""
        self._lost = problem
        self.changed.set()

    async def _refill(self) -> None:
        now = time.monotonic()
        outstanding = self._credit.outstanding(now)
        if not self._connection.is_connected or now < self._not_before:
            return
        messages = min(self._most, self._room()) - outstanding
        # Asking for every freed place one by one would double the traffic.
        if messages <= 0 or outstanding > self._most // 2:
            return
        if self._waiting_since is None:
            self._waiting_since = now
        self._last_request += 1
        request = f"{self._inbox}.{self._last_request}"
        self._credit.ask(request, messages, now + EXPIRES + _EXPIRES_LATE)
        body = {
            "batch": messages,
            "expires": int(EXPIRES * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
            "max_bytes": max(8 * 1024 * 1024, 2 * self._connection.max_payload),
        }
        try:
            await self._connection.publish(self._subject, json.dumps(body).encode(), request)
        except nats.errors.Error as error:
            raise PullLost("the request for messages cannot be sent") from error

    def _check(self) -> None:
        now = time.monotonic()
        if self._refused is not None:
            raise ConfigurationError(self._refused)
        if self._lost is not None:
            raise PullLost(self._lost)
        self._connection.check()
        if self._connection.reconnections != self._reconnections:
            raise ConnectionLost("the connection was made anew")
        if self._waiting_since is None:
            return
        if not self._connection.is_connected:
            self._waiting_since = now
        silent = now - self._waiting_since
        if silent > _LONGEST_SILENCE:
            raise NoResponse(f"no message and no heartbeat for {silent:.1f} s")

    def _take(self, delivered: Sequence[Delivered]) -> None:
        now = time.monotonic()
        for subject, reply, payload in delivered:
            told = read_delivery(reply)
            if told is None:
                message = Message(subject, payload, 0, 1, time.time_ns())
            else:
                delivery, stream_sequence, consumer_sequence, recorded_at = told
                # A consumer counts its deliveries upwards: this is another one, with the same name.
                if consumer_sequence <= self._last_delivery:
                    self.lose("the consumer was made anew")
                self._last_delivery = consumer_sequence
                message = Message(subject, payload, stream_sequence, delivery, recorded_at)
            self._outstanding.arrive(message, reply, now)
        self._credit.arrive(len(delivered))
        self._arrived()
        if self._note_sign() <= self._most // 2:
            self.changed.set()

    def _note_sign(self) -> int:
        """Note that the server is there and return the credit; without credit it may be silent."""
        self.last_sign = now = time.monotonic()
        if not (self.is_answered or self.is_lost or self._refused):
            self.is_answered = True
            self._answered()
        credit = self._credit.outstanding(now)
        self._waiting_since = now if credit else None
        return credit

    def _take_status(self, message: Msg) -> None:
        self._read_status(message)
        self._note_sign()

    def _read_status(self, message: Msg) -> None:
        headers = message.headers or {}
        status, text = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":  # a heartbeat
            return
        undelivered = headers.get("Nats-Pending-Messages", "")
        self._credit.end(message.subject, int(undelivered) if undelivered.isdigit() else None)
        self.changed.set()
        lower = text.lower()
        if status == "409" and "consumer deleted" in lower:
            self.lose("the consumer was deleted")
        elif status == "503":  # nobody listens: the consumer or its stream is gone
            self.lose("the consumer does not answer")
        elif limit := _MOST_IN_A_REQUEST.search(text):
            self._most = int(limit[1])
        elif status == "400" or "exceeded maxrequest" in lower:
            self._refused = f"the consumer refuses every request: {text}"
        elif status not in ("404", "408") and not _ENDED.search(text):
            # The server is leaving, or has enough requests: asking again at once would only spin.
            self._not_before = time.monotonic() + _BACK_OFF
            log.warning("pull.status", extra={"status": status, "error": text})

    async def _next_change(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.changed.wait()
        self.changed.clear()

    async def _let_credit_end(self) -> None:
        """Wait until the server has nothing more to send for what was asked."""
        while not self._idle and self._connection.is_connected and self._lost is None:
            if self._credit.outstanding(time.monotonic()) == 0:
                return
            await self._next_change(_LEAVE_TICK)

    async def _leave(self) -> None:
        """Unsubscribe, and take in what the server had sent by then, so that it can be nak'd."""
        if self._subscription is None:
            return
        if not self._connection.is_connected:
            # Else the library would subscribe it anew once it is connected again.
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
            return
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_DRAIN_TIMEOUT):
                await self._subscription.drain()
