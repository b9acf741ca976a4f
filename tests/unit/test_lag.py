"""Whose age the lag is, and how seldom the broker is asked; the broker is a stand-in here."""

import asyncio
import time
from datetime import UTC, datetime
from typing import Any, cast

import nats.errors
from nats.js.api import ConsumerConfig

from worker.codec.timestamps import NANOSECONDS, format_instant
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import Lag
from worker.jetstream.reconciliation import Footing
from worker.messages import Message
from worker.settings import Settings
from worker.status.counters import Counters
from worker.status.health import Progress
from worker.status.readiness import Readiness

HOUR = 3600 * NANOSECONDS
NOW = time.time_ns()


class Broker:
    """Answers a request for the first start above a sequence, and counts the requests."""

    def __init__(self, stored: dict[int, int]) -> None:
        self.stored = stored
        self.asked = 0
        self.is_allowed = True

    async def ask(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        if not self.is_allowed:
            raise nats.errors.TimeoutError
        assert subject == "$JS.API.STREAM.MSG.GET.EVENTS"
        wanted = body["seq"]
        found = min((sequence for sequence in self.stored if sequence >= wanted), default=None)
        if found is None:
            return {"error": {"err_code": 10037}}
        message = {"seq": found, "time": format_instant(self.stored[found])}
        return {"message": message}

    def forgive(self, moment: float) -> str:
        return "not permitted"


class Case:
    """What is in hand, on a consumer whose floor, pending and ack_pending a test sets."""

    def __init__(self, stored: dict[int, int]) -> None:
        async def catch_up() -> None: ...

        settings = Settings((), "sqlite:///x.db")
        readiness = Readiness()
        self.dispatcher = Dispatcher(settings, Counters(), readiness, lambda _: None, catch_up)
        self.broker = Broker(stored)
        progress = Progress(readiness, patience=1, busy_timeout=1)
        self.lag = Lag(settings.stream, self.dispatcher, progress)

    def oldest(self, *, floor: int = 0, pending: int = 0, ack_pending: int = 0) -> int | None:
        footing = Footing("2026-05-20T00:00:00+00:00", 1, True, floor, floor)
        made = datetime(2026, 5, 20, tzinfo=UTC)
        binding = Binding(made, pending, ack_pending, footing, ConsumerConfig())
        connection = cast(Connection, self.broker)
        return asyncio.run(self.lag._oldest(connection, binding))

    def arrive(self, recorded_at: int) -> None:
        self.dispatcher.outstanding.arrive(Message("s", b"", 1, 1, recorded_at), "reply", 0.0)


def test_without_work_there_is_none_and_the_broker_is_not_asked() -> None:
    case = Case({1: NOW})
    assert case.oldest(floor=1) is None
    assert case.broker.asked == 0


def test_what_is_in_hand_counts_when_the_broker_knows_of_nothing_yet() -> None:
    case = Case({})
    case.arrive(NOW - HOUR)
    case.arrive(NOW - 2 * HOUR)
    assert case.oldest() == NOW - 2 * HOUR
    assert case.broker.asked == 0


def test_it_is_the_first_start_above_the_floor_asked_for_once_until_the_floor_passes_it() -> None:
    case = Case({5: NOW - 3 * HOUR, 9: NOW - HOUR})
    case.arrive(NOW)
    for floor in (0, 2, 4):
        assert case.oldest(floor=floor, pending=1, ack_pending=1) == NOW - 3 * HOUR
    assert case.broker.asked == 1
    assert case.oldest(floor=5, ack_pending=1) == NOW - HOUR
    assert case.oldest(floor=8, ack_pending=1) == NOW - HOUR
    assert case.broker.asked == 2
    assert case.oldest(floor=9, ack_pending=1) == NOW  # only what is in hand
    # A consumer that was made anew begins lower again.
    assert case.oldest(floor=0, pending=2) == NOW - 3 * HOUR


def test_a_user_who_may_not_ask_is_told_what_is_known_and_seldom_asks_again() -> None:
    case = Case({1: NOW - HOUR})
    case.broker.is_allowed = False
    before = time.time_ns()
    first = case.oldest(pending=5)
    assert first is not None
    assert before <= first <= time.time_ns()
    assert case.oldest(pending=5) == first
    case.arrive(NOW - 2 * HOUR)
    assert case.oldest(pending=5) == NOW - 2 * HOUR
    assert case.broker.asked == 1
