"""How often and how late output is fetched again from an object store that does not answer."""

import asyncio

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
