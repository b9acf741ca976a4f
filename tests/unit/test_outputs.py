"""How often and how late output is fetched again from an object store that does not answer."""

import asyncio
from typing import Any

import pytest

from worker.errors import PullLost
from worker.jetstream import outputs as module
from worker.jetstream.outputs import Outputs
from worker.messages import Fetch, Message, Nak, Output
from worker.status.counters import Counters


def test_a_store_that_does_not_answer_delays_a_result_longer_each_time_for_20_minutes() -> None:
    counters = Counters()
    outputs = Outputs("bucket", counters)  # without a connection nothing answers
    message = Message("results.r", b"{}", 1, 1, 0)
    found = [
        asyncio.run(outputs.fetch(message._replace(delivery=delivery), Fetch("key", None)))
        for delivery in range(1, 11)
    ]
    assert found.pop() == Output()
    delays = [one.delay for one in found if isinstance(one, Nak)]
    assert len(delays) == 9
    assert delays[:6] == sorted(delays[:6])  # the longest ones differ by chance alone
    assert 15 * 60 < sum(delays) < 25 * 60
    assert (counters["objects_unavailable"], counters["objects_missing"]) == (10, 1)


class Store:
    """Stands for the object store: `broken` keys get no answer. Time passes only by `now`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broken: set[str] = set()
        self.now = 1000.0
        monkeypatch.setattr(module.time, "monotonic", lambda: self.now)  # type: ignore[attr-defined]
        monkeypatch.setattr(module, "read_object", self.read)
        self.outputs = Outputs("bucket", Counters())
        connection: Any = object()
        self.outputs.attach(connection)

    async def read(self, _connection: object, _bucket: str, key: str) -> bytes:
        if key in self.broken:
            raise TimeoutError
        return key.encode()

    def catch_up(self, key: str) -> Output | None:
        """Return the output of one object, or None where it is tried again later."""
        try:
            return asyncio.run(self.outputs.fetch_for_catch_up(Fetch(key, None)))
        except PullLost:
            return None


def test_the_catch_up_gives_up_after_20_minutes_whatever_live_results_get(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(monkeypatch)
    store.broken = {"broken"}
    for _ in range(20):
        assert store.catch_up("broken") is None
        store.now += 60
        live = store.outputs.fetch(Message("results.r", b"{}", 1, 1, 0), Fetch("sound", None))
        assert asyncio.run(live) == Output("sound")
    store.now += 1
    assert store.catch_up("broken") == Output()
    # Of the next outage, days later, nothing is known yet.
    store.now += 3 * 86_400
    assert store.catch_up("broken") is None


def test_at_the_last_delivery_only_what_gets_no_answer_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Store(monkeypatch)
    store.broken = {"broken"}
    message = Message("results.r", b"{}", 1, 10, 0)
    found = asyncio.run(store.outputs.fetch(message, Fetch("sound", "broken")))
    assert found == Output("sound", None)
