"""How much to ask the broker for at a time: what the link brings in about half a second. Pure.

The server sends all that is asked for at once. What a slow link cannot bring soon waits in buffers
on the way, and every answer waits behind it; after the ack wait it is even sent a second time. So
the first request is for one message, and while the messages come quickly each is for twice as many.
"""

from worker.jetstream.consumer_info import least_bytes, usual_bytes

# How the server describes why it has ended such a request.
BYTES_USED_UP = "exceeds maxbytes"
_LONG = 0.5
_SHORT = _LONG / 2
_LEAST = 16 * 1024
# Subjects and the protocol's own words.
_OVERHEAD = 200


class Window:
    """Learns from how long it takes until everything has arrived that was asked for.

    `messages` is how many may be on their way, `max_bytes` the bytes of one request. Times are
    seconds of one monotonic clock; `round_trip` is what a ping takes on the idle link.
    """

    def __init__(self, max_payload: int) -> None:
        """`max_payload` is the server's, in bytes."""
        self._least, self._most = least_bytes(max_payload), usual_bytes(max_payload)
        self._wanted = _LEAST
        self._message = float(self._most)
        self._awaited = 0
        self._asked_at = 0.0
        self._messages = self._bytes = 0

    @property
    def messages(self) -> int:
        return max(1, int(self._wanted / self._message))

    @property
    def max_bytes(self) -> int:
        # Sizes differ, and the largest message must fit.
        return max(self._least, min(self._most, 2 * self._wanted))

    def asked(self, messages: int, now: float) -> None:
        """Note that so many messages are on their way, or will be. One request is timed at once."""
        if self._awaited == 0:
            self._awaited, self._asked_at = messages, now
            self._messages = self._bytes = 0

    def arrived(self, messages: int, payload: int, now: float, round_trip: float) -> None:
        """Note messages and the bytes of their payloads."""
        self._messages += messages
        self._bytes += payload + messages * _OVERHEAD
        if 0 < self._awaited <= self._messages:
            self._learn(now - self._asked_at - round_trip)

    def ended(self) -> None:
        """Note that the server has ended a request: the time says nothing, it had no more."""
        self._awaited = 0
        if self._messages:
            self._message = self._bytes / self._messages

    def filled(self, now: float, round_trip: float) -> None:
        """Note that the server has ended a request since its bytes are used up."""
        if self._awaited and self._messages:
            self._learn(now - self._asked_at - round_trip)

    def _learn(self, seconds: float) -> None:
        if seconds > _LONG:
            self._wanted = max(_LEAST, int(self._bytes * _LONG / seconds))
        elif seconds <= _SHORT:
            self._wanted = min(self._most, max(self._wanted, 2 * self._bytes))
        self.ended()
