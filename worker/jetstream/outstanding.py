"""Outstanding messages: received and not yet acked or nak'd. Consumer thread only; no I/O.

A message arrives, waits until a pool thread is free, becomes part of a batch, and is acked or nak'd
when the result of that batch is back. Their number and bytes are bounded, and so is memory.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from worker.messages import (
    ALWAYS,
    Batch,
    BatchResult,
    Fetch,
    Message,
    Nak,
    Output,
    StreamPosition,
    Wait,
)

# Events are small; messages as large as the server allows must not fill the memory.
MOST_BYTES = 32 * 1024 * 1024


class _Outstanding(NamedTuple):
    """A message, the subject that acks it, and when it arrived (monotonic seconds).

    `reply` is None where nothing may be acked any more: the stream or consumer was recreated, and
    the subject would ack another message. `run` is the one that it was fetched for, else None.
    """

    message: Message
    reply: str | None
    arrived: float
    run: str | None = None


class Finished(NamedTuple):
    """The reply subjects of messages that are to be acked, and those to be nak'd, with the delay.

    None is a message that is committed and may not be acked.
    """

    acks: list[str | None]
    naks: list[tuple[str, float]]


class OutstandingMessages:
    """Messages that wait or are in a batch, each with the reply subject that acks it.

    `arrived` counts all that ever began to wait: the newest of them are the last ones that wait.
    """

    def __init__(self, limit: int) -> None:
        self.arrived = 0
        self._limit = limit
        self._waiting: deque[_Outstanding] = deque()
        self._dispatched: dict[int, list[_Outstanding]] = {}
        self._returned: dict[int, list[_Outstanding]] = {}
        self._incomplete: dict[int, _Outstanding] = {}
        self._to_fetch: deque[tuple[int, Fetch, bool]] = deque()
        # Incomplete messages that wait for another one of their run, which comes first.
        self._behind: dict[str, deque[tuple[int, Fetch]]] = {}
        self._last_incomplete = 0
        self._dispatched_messages = 0
        self._bytes = self._fetched = 0
        self._last_number = self._last_finished = 0

    def __len__(self) -> int:
        away = len(self._incomplete) + sum(map(len, self._returned.values()))
        return len(self._waiting) + self._dispatched_messages + away

    @property
    def has_returned(self) -> bool:
        """Whether messages came back from a batch to wait for what has to precede them."""
        return bool(self._returned)

    @property
    def waiting(self) -> int:
        """How many messages have arrived and are not in a batch yet."""
        return len(self._waiting)

    @property
    def batches(self) -> int:
        """How many batches are dispatched and without a result."""
        return len(self._dispatched)

    @property
    def capacity(self) -> int:
        """How many more messages may be asked for."""
        return max(0, self._limit - len(self)) if self._bytes < MOST_BYTES else 0

    @property
    def oldest(self) -> int | None:
        """When the broker stored the oldest outstanding message, an instant; None without one."""
        batches = (*self._dispatched.values(), *self._returned.values())
        outstanding = chain(self._waiting, self._incomplete.values(), *batches)
        return min((one.message.stored_at for one in outstanding), default=None)

    @property
    def newest(self) -> int:
        """When the broker stored the newest message that waits, an instant; 0 without one."""
        return max((one.message.stored_at for one in self._waiting), default=0)

    def arrive(self, message: Message, reply: str, now: float) -> None:
        """Add a message that the broker delivered."""
        self._wait(_Outstanding(message, reply, now))
        self._bytes += len(message.payload)

    def next_batch(self, most: int, position: StreamPosition, ready_until: int = ALWAYS) -> Batch:
        """Return everything that waits, up to `most` messages, as the next batch.

        Messages of a deleted stream are not mixed with others: the position is not theirs.
        """
        is_deleted = self._waiting[0].reply is None
        taken: list[_Outstanding] = []
        while (
            self._waiting and len(taken) < most and (self._waiting[0].reply is None) == is_deleted
        ):
            taken.append(self._waiting.popleft())
        self._last_number += 1
        self._dispatched[self._last_number] = taken
        self._dispatched_messages += len(taken)
        messages = tuple(one.message for one in taken)
        place = None if is_deleted else position
        runs = frozenset(self._behind)
        return Batch(self._last_number, messages, place, ready_until, self._last_finished, runs)

    def finish(self, result: BatchResult) -> Finished:
        """Remove the messages of a batch, and return what is to be acked or nak'd.

        A message without a reply subject waits again unless it is committed: nothing would deliver
        it a second time.
        """
        number = result.batch.number
        batch = self._dispatched.pop(number, [])
        self._last_finished = max(self._last_finished, number)
        self._dispatched_messages -= len(batch)
        if result.are_all_acks:
            self._forget_sizes(batch)
            self._settle(batch)
            return Finished([one.reply for one in batch], [])
        finished = Finished([], [])
        for one, decision in zip(batch, result.decisions, strict=False):
            if one.reply is None and isinstance(decision, Nak):
                self._wait(one)
                continue
            if isinstance(decision, Wait):
                self._returned.setdefault(number, []).append(one)
                continue
            if isinstance(decision, Fetch):
                self._hold(one, decision)
                continue
            self._forget_sizes([one])
            self._settle([one])
            if isinstance(decision, Nak):
                finished.naks.append((str(one.reply), decision.delay))
            else:
                finished.acks.append(one.reply)
        return finished

    def take_back(self) -> None:
        """Have the messages that came back wait again, before all that arrived after them."""
        for number in sorted(self._returned, reverse=True):
            self._waiting.extendleft(reversed(self._returned[number]))
        self._returned = {}

    def next_incomplete(self) -> tuple[int, Message, Fetch, bool] | None:
        """Return a message whose objects are to be fetched now, each once, with its number.

        The last value is whether another message of its run came before it, so that its row may
        have ended by now. None while as much as may be in memory has been fetched and is not
        written yet.
        """
        while self._to_fetch and self._fetched < MOST_BYTES:
            number, fetch, follows = self._to_fetch.popleft()
            if (one := self._incomplete.get(number)) is not None:
                return number, one.message, fetch, follows
        return None

    def complete(self, number: int, output: Output) -> None:
        """Have an incomplete message wait again, with what was fetched for it.

        It comes first: other messages of its run may have arrived meanwhile.
        """
        one = self._incomplete.pop(number, None)
        if one is not None:
            message = one.message._replace(output=output)
            self._bytes += fetched(message)
            self._fetched += fetched(message)
            self._waiting.appendleft(one._replace(message=message))

    def _hold(self, one: _Outstanding, fetch: Fetch) -> None:
        """Keep a message until it is complete, and no earlier one of its run is kept."""
        self._last_incomplete += 1
        self._incomplete[self._last_incomplete] = one._replace(run=fetch.run)
        if fetch.run in self._behind:
            self._behind[fetch.run].append((self._last_incomplete, fetch))
        else:
            self._behind[fetch.run] = deque()
            self._to_fetch.append((self._last_incomplete, fetch, False))

    def _settle(self, batch: Iterable[_Outstanding]) -> None:
        """Go on with what waits for these messages, which are committed or given back."""
        for one in batch:
            if one.run is None or one.run not in self._behind:
                continue
            if behind := self._behind[one.run]:
                number, fetch = behind.popleft()
                self._to_fetch.append((number, fetch, True))
            else:
                del self._behind[one.run]

    def give_back(self, number: int) -> list[str]:
        """Remove an incomplete message; returns its reply subject, if it may be nak'd.

        One without a reply subject stays: nothing would deliver it a second time.
        """
        one = self._incomplete.get(number)
        if one is None or one.reply is None:
            return []
        del self._incomplete[number]
        self._forget_sizes([one])
        self._settle([one])
        return [one.reply]

    def fetch_again(self, number: int, fetch: Fetch) -> None:
        """Have the objects of an incomplete message fetched again, as at its next delivery."""
        one = self._incomplete.get(number)
        if one is not None:
            message = one.message._replace(delivery=one.message.delivery + 1)
            self._incomplete[number] = one._replace(message=message)
            self._to_fetch.append((number, fetch, False))

    def _forget_sizes(self, batch: Iterable[_Outstanding]) -> None:
        for one in batch:
            message = one.message
            self._bytes -= len(message.payload)
            if message.output is not None:
                self._bytes -= fetched(message)
                self._fetched -= fetched(message)

    def _wait(self, one: _Outstanding) -> None:
        self._waiting.append(one)
        self.arrived += 1

    def remove_waiting(self) -> list[str]:
        """Remove all messages that are not in a batch yet, and return their reply subjects.

        Messages without a reply subject stay: they cannot be nak'd.
        """
        # What nothing would deliver again is written without its output.
        incomplete = [
            one if one.reply else one._replace(message=one.message._replace(output=Output()))
            for one in self._incomplete.values()
        ]
        self.take_back()
        waiting = [*self._waiting, *incomplete]
        self._incomplete, self._behind = {}, {}
        removed = [one for one in waiting if one.reply is not None]
        self._waiting = deque(one for one in waiting if one.reply is None)
        self._forget_sizes(removed)
        return [one.reply for one in removed if one.reply is not None]

    def forget_replies(self) -> int:
        """Ack nothing that is outstanding now; returns how many messages that is.

        For a recreated stream or consumer: a late ack would ack another message with the same
        sequence. The messages are still projected; they may exist nowhere else any more.
        """
        self._waiting = deque(one._replace(reply=None) for one in self._waiting)
        for batches in (self._dispatched, self._returned):
            for number, batch in batches.items():
                batches[number] = [one._replace(reply=None) for one in batch]
        for number, one in self._incomplete.items():
            self._incomplete[number] = one._replace(reply=None)
        return len(self)

    def arrived_before(self, moment: float) -> Iterator[str]:
        """Yield the reply subjects of messages that have been outstanding since before a moment."""
        for one in self._waiting:
            if one.arrived >= moment:
                break  # they wait in the order of their arrival
            if one.reply is not None:
                yield one.reply
        away = (*self._dispatched.values(), *self._returned.values(), self._incomplete.values())
        for batch in away:
            yield from (
                one.reply for one in batch if one.arrived < moment and one.reply is not None
            )


def fetched(message: Message) -> int:
    """Return how many characters were fetched for a message."""
    return sum(len(text) for text in message.output or () if text is not None)
