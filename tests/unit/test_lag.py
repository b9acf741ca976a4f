"""Which message's age the lag is, and how rarely the broker is asked; the broker is a stand-in."""

import asyncio
import time
from types import SimpleNamespace
from typing import Any, cast

import nats.errors
import pytest
from nats.js.api import SequenceInfo

from worker.codec.timestamps import NANOSECONDS, format_instant
from worker.jetstream.connection import Connection
from worker.jetstream.consumer import Binding
from worker.jetstream.consumer_info import Config
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.lag import LagMonitor
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.recovery import Recovery
from worker.jetstream.stream import StreamState
from worker.messages import Message
from worker.processing.queues import ResultQueue
from worker.projections.manifests import ManifestCache
from worker.projections.starts import STARTS
from worker.settings import Settings
from worker.status.broker_clock import BrokerClock
from worker.status.health import CatchUp
from worker.status.worker_status import WorkerStatus

HOUR = 3600 * NANOSECONDS
NOW = time.time_ns()


class Broker:
    """Returns the first message at or above a sequence, and counts the requests."""

    other_domain = None
    max_payload = 1024 * 1024

    def __init__(self, stored: dict[int, int]) -> None:
        self.stored = stored
        self.asked = 0
        self.clock = BrokerClock()
        self.clock.set(NOW)
        self.is_allowed = True
        self.delay = 0.0

    async def ask(self, subject: str, body: dict[str, Any]) -> dict[str, Any]:
        self.asked += 1
        await asyncio.sleep(self.delay)
        if not self.is_allowed:
            raise nats.errors.TimeoutError
        assert subject == "$JS.API.STREAM.MSG.GET.EVENTS"
        assert body["next_by_subj"] == STARTS.read_filter
        found = min((sequence for sequence in self.stored if sequence >= body["seq"]), default=None)
        if found is None:
            return {"error": {"err_code": 10037}}
        return {"message": {"seq": found, "time": format_instant(self.stored[found])}}

    def new_inbox(self) -> str:
        return "_INBOX.x"

    async def receive(self, *_: object) -> None:
        self.asked += 1
        raise nats.errors.ConnectionClosedError

    def forget_problem_since(self, _moment: float) -> str | None:
        return "not permitted"


def binding(*, ack_floor: int = 0, pending: int = 0, ack_pending: int = 0) -> Binding:
    stream = StreamState("2026-05-20T00:00:00+00:00", 9, 900, 1, 9, "", keeps_acked=True)
    floor = SequenceInfo(ack_floor, ack_floor)
    return Binding(stream, Config(), pending, ack_pending, 0, 0, floor, floor)


class Monitored:
    """A lag monitor on a consumer whose ack floor, pending and ack pending a test sets."""

    def __init__(self, stored: dict[int, int]) -> None:
        settings = Settings((), "sqlite:///x.db")
        worker = WorkerStatus([STARTS.name], stalled_after=1, busy_timeout=1, is_observed=True)
        self.status = status = worker.projections[STARTS.name]
        pool: Any = None  # nothing is dispatched
        manifests = ManifestSync(settings.bucket, ManifestCache())
        self.dispatcher = Dispatcher(settings, pool, ResultQueue(), manifests, status)
        self.broker = Broker(stored)
        status.health.broker_clock = self.broker.clock
        self.recovery = SimpleNamespace(caught_up_to=0)
        self.monitor = LagMonitor(
            settings, STARTS.read_filter, self.dispatcher, cast(Recovery, self.recovery), status
        )

    def lag(self, **figures: int) -> float | None:
        """Return the lag that is shown after a look."""
        health = self.status.health
        health.broker_heard()
        health.record_consumer(figures.get("pending", 0), 0)
        asyncio.run(self.monitor._record_oldest(cast(Connection, self.broker), binding(**figures)))
        return health.lag

    def unprojected(self, **figures: int) -> int:
        """Return how many of the stream's 900 bytes in 9 messages are shown as not projected."""
        self.lag(**figures)
        assert self.status.health.stream is not None
        return self.status.health.stream.unprojected_bytes

    def oldest(self, **figures: int) -> int | None:
        return asyncio.run(self.monitor._oldest(cast(Connection, self.broker), binding(**figures)))

    def arrive(self, stored_at: int) -> None:
        self.dispatcher.outstanding.arrive(Message("s", b"", 1, 1, stored_at), "reply", 0.0)


def test_without_work_on_the_broker_only_outstanding_messages_count_and_it_is_not_asked() -> None:
    monitored = Monitored({1: NOW - 9 * HOUR})
    seen = [monitored.oldest(ack_floor=1)]
    for hours in (1, 2):
        monitored.arrive(NOW - hours * HOUR)
        seen.append(monitored.oldest(ack_floor=1))
    assert seen == [None, NOW - HOUR, NOW - 2 * HOUR]
    assert monitored.broker.asked == 0


def test_the_first_message_above_the_ack_floor_is_asked_for_once_until_it_is_acked() -> None:
    monitored = Monitored({5: NOW - 3 * HOUR, 9: NOW - HOUR})
    monitored.arrive(NOW)
    for ack_floor in (0, 2, 4):
        assert monitored.oldest(ack_floor=ack_floor, pending=1, ack_pending=1) == NOW - 3 * HOUR
    assert monitored.broker.asked == 1
    for ack_floor in (5, 8):
        assert monitored.oldest(ack_floor=ack_floor, ack_pending=1) == NOW - HOUR
    assert monitored.broker.asked == 2
    assert monitored.oldest(ack_floor=9, ack_pending=1) == NOW  # only the outstanding message
    # A recreated consumer begins at a lower sequence.
    assert monitored.oldest(ack_floor=0, pending=2) == NOW - 3 * HOUR


def test_over_a_slow_link_the_last_answer_counts_for_a_while() -> None:
    monitored = Monitored({5: NOW - 3 * HOUR, 9: NOW - HOUR})
    monitored.broker.delay = 0.2
    for ack_floor in (4, 5):
        assert monitored.oldest(ack_floor=ack_floor, pending=1) == NOW - 3 * HOUR
    assert monitored.broker.asked == 1


def test_without_the_permission_to_ask_the_lag_is_estimated_and_the_broker_rarely_asked() -> None:
    monitored = Monitored({1: NOW - HOUR})
    monitored.broker.is_allowed = False
    first = monitored.oldest(pending=5)
    assert first is not None
    assert NOW <= first < NOW + HOUR
    assert monitored.oldest(pending=5) == first
    monitored.arrive(NOW - 2 * HOUR)
    assert monitored.oldest(pending=5) == NOW - 2 * HOUR
    assert monitored.broker.asked == 1


def test_without_the_brokers_time_the_lag_is_unknown_and_the_broker_rarely_asked() -> None:
    monitored = Monitored({1: NOW - HOUR})
    monitored.broker.clock.forget()
    monitored.broker.is_allowed = False
    assert monitored.lag(pending=5) is None
    asked = monitored.broker.asked
    assert monitored.lag(pending=5) is None
    assert monitored.broker.asked == asked
    assert monitored.lag() == 0


# --- bytes ---


def test_without_work_on_the_broker_no_byte_is_unprojected() -> None:
    assert Monitored({}).unprojected(ack_floor=3) == 0


def test_what_follows_the_first_message_above_the_ack_floor_is_unprojected() -> None:
    monitored = Monitored({7: NOW, 9: NOW})
    assert monitored.unprojected(ack_floor=2, pending=2) == 300
    assert monitored.unprojected(ack_floor=7, pending=1) == 100
    # A stream that was created again begins at a lower sequence.
    monitored.monitor._found = monitored.monitor._found._replace(stream_created_at="before")
    monitored.broker.is_allowed = False
    assert monitored.unprojected(ack_floor=2, pending=2) == 700


def test_while_the_worker_catches_up_what_follows_the_checkpoint_is_unprojected() -> None:
    monitored = Monitored({9: NOW})
    monitored.recovery.caught_up_to = 4
    health = monitored.status.health
    for ack_floor, pending in ((9, 0), (8, 1)):
        health.record_catch_up(CatchUp(0.0))
        assert monitored.unprojected(ack_floor=ack_floor, pending=pending) == 500
        health.record_catch_up(None, is_complete=True)
        assert monitored.unprojected(ack_floor=ack_floor, pending=pending) == 100 * pending


@pytest.mark.parametrize(("sequence", "expected"), [(1, 900), (11, 900), (15, 500), (20, 0)])
def test_bytes_are_those_from_a_sequence_on_that_the_stream_still_holds(
    sequence: int, expected: int
) -> None:
    stream = StreamState("", 9, 900, 11, 19, "", keeps_acked=True)
    assert stream.bytes_from(sequence) == expected
    assert StreamState("", 0, 0, 20, 19, "", keeps_acked=True).bytes_from(sequence) == 0


def test_what_the_broker_reported_of_a_stream_is_unknown_once_the_consumer_is() -> None:
    monitored = Monitored({})
    monitored.unprojected()
    health = monitored.status.health
    health.forget_consumer()
    health.record_consumer(0, 0)
    assert health.stream is None
    assert health.oldest_age is None
