"""What is here and not yet settled, bounded in messages and bytes. Broker thread only; no I/O.

A message arrives, waits until a pool thread is free, begins as part of a batch, and is settled
when that batch's decisions are back.
"""

from collections import deque
from collections.abc import Iterator
from itertools import chain
from typing import NamedTuple

from worker.decisions import Decision, Nak
from worker.messages import Batch, Decisions, Message, Position

_FORGOTTEN = ""

# Starts are small; a queue of messages as large as the server allows must not fill the memory.
MOST_BYTES = 32 * 1024 * 1024


class _Held(NamedTuple):
    """A message, the reply subject that settles it, and when it arrived (monotonic seconds)."""

    message: Message
    reply: str
    arrived: float


class OutstandingMessages:
    """Messages in hand, each with the reply subject that settles it.

    `arrived` counts all that ever began to wait: the newest of them are the last ones that wait.
    """

    def __init__(self, limit: int) -> None:
        self.arrived = 0
        self._limit = limit
        self._waiting: deque[_Held] = deque()
        self._begun: dict[int, list[_Held]] = {}
        self._begun_messages = 0
        self._bytes = 0
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
        return max(0, self._limit - len(self)) if self._bytes < MOST_BYTES else 0

    @property
    def oldest(self) -> int | None:
        """When the broker stored the oldest message in hand, an instant; None if there is none."""
        held = chain(self._waiting, *self._begun.values())
        return min((one.message.recorded_at for one in held), default=None)

    def arrive(self, message: Message, reply: str, now: float) -> None:
        """Take a message that the broker delivered."""
        self._wait(_Held(message, reply, now))
        self._bytes += len(message.payload)

    def begin(self, most: int, position: Position) -> Batch:
        """Return everything that waits, up to `most` messages, as the next batch.

        Messages of a stream that is no more are not mixed with others: the position is not theirs.
        """
        forgotten = self._waiting[0].reply == _FORGOTTEN
        taken: list[_Held] = []
        while (
            self._waiting
            and len(taken) < most
            and (self._waiting[0].reply == _FORGOTTEN) == forgotten
        ):
            taken.append(self._waiting.popleft())
        self._last_number += 1
        self._begun[self._last_number] = taken
        self._begun_messages += len(taken)
        messages = tuple(held.message for held in taken)
        return Batch(self._last_number, messages, None if forgotten else position)

    def settle(self, decisions: Decisions) -> list[tuple[str, Decision]]:
        """Return each message's reply subject with its decision.

        What was forgotten has none, and waits again unless it is committed: nobody would deliver
        it a second time.
        """
        begun = self._begun.pop(decisions.batch.number, [])
        self._begun_messages -= len(begun)
        settled: list[tuple[str, Decision]] = []
        for held, decision in zip(begun, decisions.decisions, strict=False):
            if held.reply == _FORGOTTEN and isinstance(decision, Nak):
                self._wait(held)
                continue
            self._bytes -= len(held.message.payload)
            if held.reply != _FORGOTTEN:
                settled.append((held.reply, decision))
        return settled

    def _wait(self, held: _Held) -> None:
        self._waiting.append(held)
        self.arrived += 1

    def give_up_waiting(self) -> list[str]:
        """Return the reply subjects of all messages in no batch yet, which are in hand no more.

        What was forgotten stays: it cannot be given back to anybody.
        """
        given_up = [held for held in self._waiting if held.reply != _FORGOTTEN]
        self._waiting = deque(held for held in self._waiting if held.reply == _FORGOTTEN)
        self._bytes -= sum(len(held.message.payload) for held in given_up)
        return [held.reply for held in given_up]

    def forget_replies(self) -> int:
        """Make sure that nothing in hand is ever settled, and return how many messages that is.

        For a stream or consumer that was made anew: a late ack would settle another message, one
        with the same sequence. The messages themselves are still projected; they may be in hand
        and nowhere else any more.
        """
        self._waiting = deque(_forgotten(held) for held in self._waiting)
        for number, begun in self._begun.items():
            self._begun[number] = [_forgotten(held) for held in begun]
        return len(self)

    def arrived_before(self, moment: float) -> Iterator[str]:
        """Yield the reply subjects of what has been in hand since before a moment."""
        for held in self._waiting:
            if held.arrived >= moment:
                break  # they wait in the order of their arrival
            if held.reply != _FORGOTTEN:
                yield held.reply
        for begun in self._begun.values():
            yield from (
                held.reply for held in begun if held.arrived < moment and held.reply != _FORGOTTEN
            )


def _forgotten(held: _Held) -> _Held:
    return _Held(held.message, _FORGOTTEN, held.arrived)
