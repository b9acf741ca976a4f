"""Credit: the messages that were asked for and are not yet here. Pure."""

import math
from dataclasses import dataclass


@dataclass(slots=True)
class _Request:
    messages: int
    ends: float


class Credit:
    """How many messages the server may still send, whatever it says or forgets to say. Pure.

    Times are in seconds of one monotonic clock, and never go back.
    """

    def __init__(self) -> None:
        self._requests: dict[str, _Request] = {}
        self._outstanding = 0
        self._first_end = math.inf

    def ask(self, request: str, messages: int, ends: float) -> None:
        """Count a request that the server ends by itself at `ends`."""
        self._requests[request] = _Request(messages, ends)
        self._outstanding += messages
        self._first_end = min(self._first_end, ends)

    def arrive(self, messages: int) -> None:
        """Count messages; which requests they answer cannot be told."""
        self._outstanding = max(0, self._outstanding - messages)
        if self._outstanding == 0:  # all requests are used up
            self._requests.clear()
            self._first_end = math.inf

    def end(self, request: str, undelivered: int | None) -> None:
        """Count a request as ended, with what the server says was not delivered of it.

        Where it does not say, the whole request is forfeit.
        """
        ended = self._requests.pop(request, None)
        if ended is not None:
            forfeit = ended.messages if undelivered is None else undelivered
            self._outstanding = max(0, self._outstanding - forfeit)
            self._bound()

    def outstanding(self, now: float) -> int:
        """Return the credit. Never more than the unexpired requests: that is how leaks end."""
        if now >= self._first_end:
            self._requests = {
                name: request for name, request in self._requests.items() if request.ends > now
            }
            self._bound()
        return self._outstanding

    def _bound(self) -> None:
        most = sum(request.messages for request in self._requests.values())
        self._outstanding = min(self._outstanding, most)
        self._first_end = min((r.ends for r in self._requests.values()), default=math.inf)
