"""When something is overdue: not while it may stand behind other data on a slow link."""

import asyncio

import pytest

from worker.jetstream import link as module
from worker.jetstream.link import Link


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def test_what_a_link_without_a_ping_on_its_way_has_not_brought_in_time_is_overdue(
    clock: Clock,
) -> None:
    link = Link()
    for second in range(1, 8):
        clock.now = 1000.0 + second
        link.heard()
        assert link.is_overdue(1000.0, 5.0) == (second > 5)


def test_behind_an_answer_to_a_ping_nothing_is_overdue_as_long_as_something_arrives(
    clock: Clock,
) -> None:
    async def use() -> None:
        link = Link()
        clock.now = 1001.0
        first = link.ping(None)
        for second in range(2, 60):
            clock.now = 1000.0 + second
            link.heard()
            assert not link.is_overdue(1000.0, 5.0)
        second_ping = link.ping(None)
        first.set_result(True)
        await asyncio.sleep(0)
        assert link.is_overdue(1000.0, 5.0)
        assert not link.is_overdue(1055.0, 5.0)
        assert link.arrived_until == 1059.0
        second_ping.set_result(True)
        await asyncio.sleep(0)
        assert link.arrived_until == clock.now

    asyncio.run(use())


def test_on_a_link_on_which_nothing_arrives_everything_is_overdue(clock: Clock) -> None:
    async def use() -> None:
        link = Link()
        link.heard()
        link.ping(None)
        clock.now += 4.0
        assert not link.is_overdue(1000.0, 5.0)
        clock.now += 2.0
        assert link.is_overdue(1000.0, 5.0)

    asyncio.run(use())


def test_the_shortest_round_trip_counts_and_a_new_connection_begins_anew(clock: Clock) -> None:
    async def use() -> None:
        link = Link()
        for took in (0.3, 0.1, 0.2):
            answered = link.ping(None)
            clock.now += took
            answered.set_result(True)
            await asyncio.sleep(0)
        assert link.round_trip == pytest.approx(0.1)
        link.ping(None)
        link.reset()
        assert (link.round_trip, link.arrived_until) == (0.0, clock.now)

    asyncio.run(use())
