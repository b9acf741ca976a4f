"""What is here and not yet settled, bounded. Belongs to the broker thread; no I/O.

A message arrives, waits until a pool thread is free, begins as part of a batch, and is settled
when that batch's decisions are back.
"""

from collections import deque

from worker.decisions import Decision
from worker.messages import Batch, Decisions, Message

_FORGOTTEN = ""


class InFlight:
    """Messages in hand, each with the reply subject that settles it."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: deque[tuple[Message, str]] = deque()
        self._begun: dict[int, list[str]] = {}
        self._begun_messages = 0
        self._last_number = 0

    def __len__(self) -> int:
        return len(self._waiting) + self._begun_messages

    @property
    def waiting(self) -> int:
        """How many messages have arrived and are in no batch yet."""
        return len(self._waiting)

    @property
    def batches(self) -> int:
        """How many batches have begun and are not settled."""
        return len(self._begun)

    @property
    def room(self) -> int:
        """How many more messages may be asked for."""
        return max(0, self._limit - len(self))

    def arrive(self, message: Message, reply: str) -> None:
        """Take a message that the broker delivered."""
        self._waiting.append((message, reply))

    def begin(self, most: int) -> Batch:
        """Return everything that waits, up to `most` messages, as the next batch."""
        taken = [self._waiting.popleft() for _ in range(min(most, len(self._waiting)))]
        self._last_number += 1
        self._begun[self._last_number] = [reply for _, reply in taken]
        self._begun_messages += len(taken)
        return Batch(self._last_number, tuple(message for message, _ in taken))

    def settle(self, decisions: Decisions) -> list[tuple[str, Decision]]:
        """Return each message's reply subject with its decision; nothing for what was forgotten."""
        replies = self._begun.pop(decisions.batch.number, [])
        self._begun_messages -= len(replies)
        decided = zip(replies, decisions.decisions, strict=False)
        return [(reply, decision) for reply, decision in decided if reply != _FORGOTTEN]

    def give_up_waiting(self) -> list[str]:
        """Return the reply subjects of all messages in no batch yet, which are in hand no more."""
        replies = [reply for _, reply in self._waiting if reply != _FORGOTTEN]
        self._waiting.clear()
        return replies

    def forget_replies(self) -> int:
        """Make sure that nothing in hand is ever settled, and return how many messages that is.

        For a stream or durable that was made anew: a late ack would settle another message, one
        with the same sequence. The messages themselves are still projected; they may be in hand
        and nowhere else any more.
        """
        self._waiting = deque((message, _FORGOTTEN) for message, _ in self._waiting)
        self._begun = {number: [_FORGOTTEN] * len(begun) for number, begun in self._begun.items()}
        return len(self)
