"""Continuous pull from one durable consumer, with overlapping requests. Consumer thread only.

Requests overlap, so that the server never waits for the next one. It ends a request with a status
on the request's own inbox; NATS's ADR-37 lists them. This is what the Go client's Consume does; the
library's `fetch` costs three times the CPU.
"""

import asyncio
import contextlib
import json
import logging
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import nats.errors
from nats.aio.subscription import Subscription

from worker.codec.timestamps import NANOSECONDS
from worker.errors import ConfigurationError, ConnectionLost, NoResponse, PullLost
from worker.jetstream.connection import Connection
from worker.jetstream.consumer_info import EXPIRES, least_bytes, usual_bytes
from worker.jetstream.deliveries import Deliveries
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.window import BYTES_USED_UP, Window
from worker.jetstream.wire import Delivered
from worker.logs import Repeats
from worker.messages import Message, is_marker, read_delivery

log = logging.getLogger(__name__)

MOST_REQUESTED = 2000
HEARTBEAT = 0.5
_EXPIRES_LATE = 1.0
_LONGEST_SILENCE = 5.0
_TICK = 0.5
_LEAVE_TICK = 0.05
_UNSUBSCRIBE_TIMEOUT = 1.0
_BACK_OFF = 1.0
_REPEAT_WARNING_AFTER = 60.0
# The server adds it to a message that it delivers without the payload.
_PAYLOAD_SIZE = "Nats-Msg-Size"
_WILDCARD = re.compile(r"[*>]")
_COMPLETED = "batch completed"
_MOST_BYTES_IN_A_REQUEST = re.compile(r"Exceeded MaxRequestMaxBytes of (\d+)", re.IGNORECASE)
_MOST_IN_A_REQUEST = re.compile(r"Exceeded MaxRequestBatch of (\d+)", re.IGNORECASE)


@dataclass(slots=True)
class _Request:
    messages: int
    ends: float


class PullRequests:
    """Counts the messages that were requested and have not arrived. Pure.

    Whatever the server reports or forgets to report. Times are seconds of one monotonic clock.
    """

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}
        self._requested = 0
        self._first_end = math.inf

    def add(self, request: str, messages: int, ends: float) -> None:
        """Count a request that the server ends by itself at `ends`."""
        self._requests[request] = _Request(messages, ends)
        self._requested += messages
        self._first_end = min(self._first_end, ends)

    def arrived(self, messages: int) -> None:
        """Count messages; which requests they answer is unknown."""
        self._requested = max(0, self._requested - messages)
        if self._requested == 0:  # all requests are used up
            self._requests.clear()
            self._first_end = math.inf

    def end(self, request: str, undelivered: int | None) -> None:
        """Count a request as ended, with the number of messages that were not delivered of it.

        Where the server does not report it (None), the whole request counts as undelivered.
        """
        ended = self._requests.pop(request, None)
        if ended is not None:
            lost = ended.messages if undelivered is None else undelivered
            self._requested = max(0, self._requested - lost)
            self._limit()

    def requested(self, now: float) -> int:
        """Return how many messages may still come; never more than unexpired requests asked for."""
        if now >= self._first_end:
            self._requests = {
                name: request for name, request in self._requests.items() if request.ends > now
            }
            self._limit()
        return self._requested

    def _limit(self) -> None:
        most = sum(request.messages for request in self._requests.values())
        self._requested = min(self._requested, most)
        self._first_end = min((r.ends for r in self._requests.values()), default=math.inf)


class PullSubscription:
    """One pull, on one inbox, from bind to stop or loss.

    `is_answered` is whether the server has served a request. `in_doubt` is set when a message shows
    that the consumer's settings may have changed; such a message is neither decoded nor acked.
    """

    def __init__(
        self,
        connection: Connection,
        subject: str,
        filter_subject: str,
        dispatcher: Dispatcher,
        deliveries: Deliveries,
    ) -> None:
        self.is_answered = False
        self._doubtful: list[tuple[Message, str]] = []
        self.in_doubt = asyncio.Event()
        self._prefix = _WILDCARD.split(filter_subject)[0]
        self._deliveries = deliveries
        self._changed = connection.disturbed  # also set by the dispatcher, when capacity grows
        self._connection = connection
        self._subject = subject
        self._dispatcher = dispatcher
        self._inbox = connection.new_inbox()
        self._requests = PullRequests()
        self._last_request = 0
        self._last_delivery = 0
        self._waiting_since: float | None = None  # for any sign of the server
        self._not_before = 0.0
        self._stopping = False
        self._idle = False
        self._refused: str | None = None
        self._bug: Exception | None = None
        self._most_messages = MOST_REQUESTED
        self._most_bytes = usual_bytes(connection.max_payload)
        self._window = Window(connection.max_payload)
        self._repeats = Repeats(_REPEAT_WARNING_AFTER)
        self._reconnections = connection.reconnections
        self._subscription: Subscription | None = None

    async def run(self) -> None:
        """Pull until `stop` is called; raises PullLost or BrokerError when nothing comes.

        Raises ConfigurationError where the consumer allows no request of this kind.
        """
        try:
            self._subscription = await self._connection.receive(f"{self._inbox}.*", self._receive)
        except nats.errors.Error as error:
            raise PullLost("the inbox cannot be subscribed to") from error
        try:
            while not self._stopping:
                self._check()
                await self._refill()
                await self._next_change(_TICK)
            await self._let_requests_end()
        finally:
            await self._leave()

    def stop(self, *, idle: bool = False) -> None:
        """Make `run` leave the pull and return; at once where nothing can come any more."""
        self._stopping = True
        self._idle = idle
        self._changed.set()

    # --- requests ---

    @property
    def _most(self) -> int:
        return min(self._most_messages, self._window.messages)

    async def _refill(self) -> None:
        now = time.monotonic()
        requested = self._requested()
        if not self._connection.is_connected or now < self._not_before:
            return
        messages = min(self._most, self._dispatcher.capacity) - requested
        # A request for every freed place would double the traffic.
        if messages <= 0 or requested > self._most // 2:
            return
        if self._waiting_since is None:
            self._waiting_since = now
        self._last_request += 1
        request = f"{self._inbox}.{self._last_request}"
        self._requests.add(request, messages, now + EXPIRES + _EXPIRES_LATE)
        body = {
            "batch": messages,
            "expires": int(EXPIRES * NANOSECONDS),
            "idle_heartbeat": int(HEARTBEAT * NANOSECONDS),
            "max_bytes": min(self._most_bytes, self._window.max_bytes),
        }
        self._window.asked(requested + messages, now)
        try:
            await self._connection.publish(self._subject, json.dumps(body).encode(), request)
        except nats.errors.Error as error:
            raise PullLost("the request for messages cannot be sent") from error

    def _check(self) -> None:
        now = time.monotonic()
        if self._bug is not None:
            raise self._bug
        if self._refused is not None:
            raise ConfigurationError(self._refused)
        if self._dispatcher.lost is not None:
            raise PullLost(self._dispatcher.lost)
        self._connection.check()
        if self._connection.reconnections != self._reconnections:
            raise ConnectionLost("the client has reconnected")
        if self._waiting_since is None:
            return
        if not self._connection.is_connected:
            self._waiting_since = now
        if self._connection.link.is_overdue(self._waiting_since, _LONGEST_SILENCE):
            silent = now - self._waiting_since
            raise NoResponse(f"no message and no heartbeat for {silent:.1f} s")

    def _requested(self) -> int:
        """Return how many messages may still come; a late end of a request may be on its way."""
        return self._requests.requested(self._connection.link.arrived_until)

    # --- messages ---

    def _receive(self, messages: Sequence[Delivered]) -> None:
        try:
            self._take(messages)
        except Exception as error:  # noqa: BLE001 (raised by `run`; the library would only log it)
            self._bug = error
            self._changed.set()

    def _take(self, messages: Sequence[Delivered]) -> None:
        now = time.monotonic()
        arrive, delivered, payload = self._dispatcher.outstanding.arrive, 0, 0
        first = 0
        for message in messages:
            reply = message.reply
            # Only the reply subject distinguishes a delivery from a status: a message that was
            # published may carry any header.
            if not reply:
                self._read_status(message)
                continue
            read = self._read_message(message, reply)
            delivered += 1
            payload += len(message.data)
            first = first or self._last_delivery
            self._deliveries.reached(read.stream_sequence, is_new=read.delivery == 1)
            if not message.subject.startswith(self._prefix):
                self._doubt("a message that the filter does not bring")
            elif not message.data and _PAYLOAD_SIZE in (message.headers or {}):
                self._doubt("a message without its payload")
                self._doubtful.append((read, reply))
            else:
                arrive(read, reply, now)
        if delivered:
            self._requests.arrived(delivered)
            self._window.arrived(delivered, payload, now, self._connection.link.round_trip)
            self._deliveries.arrived(first, self._last_delivery, delivered)
            self._dispatcher.messages_arrived()
        if self._note_sign(now) <= self._most // 2:
            self._changed.set()

    def _doubt(self, problem: str) -> None:
        """Have the consumer looked at: its settings may have changed."""
        self.in_doubt.set()
        if self._repeats.due(problem):
            log.warning("pull.doubtful", extra={"error": problem})

    def clear_doubt(self) -> None:
        """Take in what was doubtful: the consumer was looked at since, and is usable."""
        self.in_doubt.clear()
        doubtful, self._doubtful = self._doubtful, []
        for message, reply in doubtful:
            self._dispatcher.outstanding.arrive(message, reply, time.monotonic())
        if doubtful:
            self._dispatcher.messages_arrived()

    def _read_message(self, message: Delivered, reply: str) -> Message:
        read = read_delivery(reply)
        if read is None:
            return Message(message.subject, message.data, 0, 1, time.time_ns())
        delivery, stream_sequence, consumer_sequence, stored_at = read
        # A consumer numbers its deliveries upwards: this is another one of the same name.
        if consumer_sequence <= self._last_delivery:
            self._dispatcher.lose("the consumer was recreated")
        self._last_delivery = consumer_sequence
        marker = is_marker(message.data, message.headers)
        return Message(message.subject, message.data, stream_sequence, delivery, stored_at, marker)

    def _note_sign(self, now: float) -> int:
        """Note that the server is there; returns how many messages are requested.

        Without a request the server may be silent.
        """
        self._dispatcher.heard(now)
        if not (self.is_answered or self._dispatcher.lost or self._refused):
            self.is_answered = True
            self._dispatcher.pull_answered()
        requested = self._requested()
        self._waiting_since = now if requested else None
        return requested

    def _read_status(self, message: Delivered) -> None:
        headers = message.headers or {}
        status, text = headers.get("Status", ""), headers.get("Description", "")
        if status == "100":  # a heartbeat
            return
        undelivered = headers.get("Nats-Pending-Messages", "")
        self._requests.end(message.subject, int(undelivered) if undelivered.isdigit() else None)
        self._changed.set()
        lower = text.lower()
        if BYTES_USED_UP in lower:
            self._window.filled(time.monotonic(), self._connection.link.round_trip)
        elif undelivered != "0":
            self._window.ended()
        if status == "409" and "consumer deleted" in lower:
            self._dispatcher.lose("the consumer was deleted")
        elif status == "503":  # no responders: the consumer or its stream is gone
            self._dispatcher.lose("the consumer does not answer")
        elif limit := _MOST_IN_A_REQUEST.search(text):
            self._most_messages = int(limit[1])
        elif (limit := _MOST_BYTES_IN_A_REQUEST.search(text)) and self._are_enough(int(limit[1])):
            self._most_bytes = int(limit[1])
        elif status == "400" or "exceeded maxrequest" in lower:
            self._refused = f"the consumer refuses every request: {text}"
        elif not (status in ("404", "408") or BYTES_USED_UP in lower or _COMPLETED in lower):
            # The server is leaving, or has enough requests: asking again at once would only spin.
            self._not_before = time.monotonic() + _BACK_OFF
            log.warning("pull.status", extra={"status": status, "error": text})

    def _are_enough(self, most_bytes: int) -> bool:
        return most_bytes >= least_bytes(self._connection.max_payload)

    async def _next_change(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._changed.wait()
        self._changed.clear()

    # --- the end ---

    async def _let_requests_end(self) -> None:
        """Wait until the server has nothing more to send for what was requested."""
        while not self._idle and self._connection.is_connected and self._dispatcher.lost is None:
            if self._requested() == 0:
                return
            await self._next_change(_LEAVE_TICK)

    async def _leave(self) -> None:
        """Unsubscribe, and take in what the server had sent by then, so that it can be nak'd."""
        if self._subscription is None:
            return
        if not self._connection.is_connected:
            # Else the library would subscribe again once it is connected.
            with contextlib.suppress(nats.errors.Error, OSError):
                await self._subscription.unsubscribe()
            return
        with contextlib.suppress(nats.errors.Error, OSError, TimeoutError):
            async with asyncio.timeout(_UNSUBSCRIBE_TIMEOUT):
                await self._subscription.drain()
