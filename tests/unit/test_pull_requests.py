import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from worker.jetstream.connection import Connection
from worker.jetstream.deliveries import Deliveries
from worker.jetstream.dispatcher import Dispatcher
from worker.jetstream.manifest_sync import ManifestSync
from worker.jetstream.pull import PullRequests, PullSubscription
from worker.jetstream.wire import Delivered
from worker.processing.queues import ResultQueue
from worker.projections.manifests import ManifestCache
from worker.settings import Settings
from worker.status.worker_status import WorkerStatus
from worker.supervisor import Supervisor

A, B = ("a", 10, 10.0), ("b", 5, 12.0)


def added(*requests: tuple[str, int, float]) -> PullRequests:
    """Return requests by name, with their messages and the second at which they expire."""
    pull = PullRequests()
    for name, messages, ends in requests:
        pull.add(name, messages, ends)
    return pull


def test_each_message_counts_against_all_overlapping_requests() -> None:
    pull = added(A, B)
    assert pull.requested(0.0) == 15
    pull.arrived(12)
    assert pull.requested(0.0) == 3


@pytest.mark.parametrize(("undelivered", "requested"), [(6, 5), (None, 1)])
def test_an_ended_request_loses_what_the_server_reports_or_else_all_of_its_messages(
    undelivered: int | None, requested: int
) -> None:
    pull = added(A, B)
    pull.arrived(4)
    pull.end("a", undelivered)
    assert pull.requested(0.0) == requested


def test_a_request_ends_once_and_an_unknown_one_changes_nothing() -> None:
    pull = added(A, B)
    for name, undelivered in (("a", 10), ("a", 10), ("other", 3)):
        pull.end(name, undelivered)
    assert pull.requested(0.0) == 5


def test_a_request_that_the_server_never_ends_expires_and_is_counted_once() -> None:
    pull = added(A, B)
    assert [pull.requested(now) for now in (9.9, 10.0)] == [15, 5]
    pull.end("a", 10)
    assert [pull.requested(now) for now in (10.0, 12.0)] == [5, 0]


@pytest.mark.parametrize("arrived", [2, 5])
def test_used_up_requests_reduce_no_later_request(arrived: int) -> None:
    pull = added(("a", 2, 10.0))
    pull.arrived(arrived)
    assert pull.requested(0.0) == 0
    pull.add("b", 4, 20.0)
    pull.end("a", None)
    assert pull.requested(0.0) == 4


steps = st.one_of(
    st.tuples(st.just("add"), st.integers(1, 500), st.floats(0.1, 20)),
    st.tuples(st.just("arrive"), st.integers(1, 600), st.just(0.0)),
    st.tuples(st.just("end"), st.integers(0, 20), st.none() | st.integers(0, 600)),
    st.tuples(st.just("wait"), st.just(0), st.floats(0, 15)),
)


@given(st.lists(steps, max_size=30))
def test_the_count_stays_within_the_unexpired_requests_and_always_returns_to_zero(
    happened: list[tuple[str, int, float | None]],
) -> None:
    pull = PullRequests()
    now = 0.0
    added: list[tuple[int, float]] = []
    for what, number, value in happened:
        if what == "add":
            ends = now + (value or 0.0)
            pull.add(f"r{len(added)}", number, ends)
            added.append((number, ends))
        elif what == "arrive":
            pull.arrived(number)
        elif what == "end":
            pull.end(f"r{number}", None if value is None else int(value))
        else:
            now += value or 0.0
        most = sum(messages for messages, ends in added if ends > now)
        assert 0 <= pull.requested(now) <= most
    assert pull.requested(now + 21.0) == 0


class Bursts(Dispatcher):
    """A dispatcher without a pool, which counts how often messages have arrived."""

    def __init__(self) -> None:
        settings = Settings((), "sqlite:///x.db")
        self.status = WorkerStatus(["starts"], stalled_after=1, busy_timeout=1, is_observed=False)
        pool: Any = None  # nothing is dispatched
        manifests = ManifestSync(settings.bucket, ManifestCache())
        super().__init__(
            settings, pool, ResultQueue(), manifests, self.status.projections["starts"]
        )
        self.bursts = 0

    def messages_arrived(self) -> None:
        self.bursts += 1


async def receive(dispatcher: Bursts, messages: int) -> PullSubscription:
    """Return a pull that the library has given so many messages of one read."""
    connection = Connection(Settings((), "sqlite:///x.db"), Supervisor(), dispatcher.status)
    pull = PullSubscription(connection, "subject", "events.>", dispatcher, Deliveries())
    replies = [f"$JS.ACK.EVENTS.consumer.1.{n}.{n}.0.0" for n in range(1, messages + 1)]
    pull._receive([Delivered("events.a", reply, b"data", None) for reply in replies])
    return pull


def test_messages_of_one_read_are_announced_together() -> None:
    dispatcher = Bursts()
    asyncio.run(receive(dispatcher, 50))
    assert (dispatcher.bursts, len(dispatcher.outstanding)) == (1, 50)


def test_an_error_while_messages_are_taken_is_raised_by_the_pull() -> None:
    class Broken(Bursts):
        def messages_arrived(self) -> None:
            raise KeyError("a bug")

    async def fail() -> None:
        pull = await receive(Broken(), 1)
        with pytest.raises(KeyError, match="a bug"):
            pull._check()

    asyncio.run(fail())
