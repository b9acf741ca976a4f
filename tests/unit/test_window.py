"""How much is asked for at a time, on links of any rate."""

import pytest

from worker.jetstream.consumer_info import least_bytes, usual_bytes
from worker.jetstream.window import BYTES_USED_UP, Window

MAX_PAYLOAD = 1024 * 1024
SMALL, LARGE = 300, 200_000
MOST = 500


class Link:
    """A link of some bytes a second. `now` is the time by which all has arrived."""

    def __init__(self, rate: float, round_trip: float = 0.0) -> None:
        self.rate, self.round_trip, self.now = rate, round_trip, 0.0
        self.longest = 0.0

    def bring(self, window: Window, size: int) -> int:
        """Bring what the window allows; returns how many messages that was."""
        messages = min(window.messages, MOST)
        window.asked(messages, self.now)
        took = messages * (size + 200) / self.rate
        self.longest = max(self.longest, took)
        self.now += self.round_trip + took
        window.arrived(messages, messages * size, self.now, self.round_trip)
        return messages


def used(link: Link, size: int, times: int) -> Window:
    window = Window(MAX_PAYLOAD)
    for _ in range(times):
        link.bring(window, size)
    return window


def test_the_first_request_is_for_one_message_of_any_size() -> None:
    window = Window(MAX_PAYLOAD)
    assert (window.messages, window.max_bytes) == (1, least_bytes(MAX_PAYLOAD))


@pytest.mark.parametrize("round_trip", [0.0, 0.7])
def test_on_a_fast_link_the_most_is_asked_for_after_a_few_requests(round_trip: float) -> None:
    assert used(Link(1e9, round_trip), SMALL, 6).messages >= MOST
    assert used(Link(1e9, round_trip), LARGE, 8).max_bytes == usual_bytes(MAX_PAYLOAD)


@pytest.mark.parametrize("round_trip", [0.0, 0.7])
@pytest.mark.parametrize("rate", [20_000, 100_000, 1_000_000])
def test_on_a_slow_link_no_more_is_on_its_way_than_it_brings_within_a_second(
    rate: int, round_trip: float
) -> None:
    link = Link(rate, round_trip)
    window = used(link, SMALL, 50)
    assert link.longest <= 1.0
    assert window.messages * (SMALL + 200) >= rate * 0.2


def test_a_message_that_takes_longer_than_that_is_asked_for_alone() -> None:
    window = used(Link(100_000), LARGE, 10)
    assert (window.messages, window.max_bytes) == (1, least_bytes(MAX_PAYLOAD))


def test_once_the_link_becomes_slow_less_is_asked_for_after_one_request() -> None:
    link = Link(1e9)
    window = used(link, SMALL, 10)
    link.rate = 20_000
    link.bring(window, SMALL)
    assert window.messages * (SMALL + 200) <= 16 * 1024


def test_a_quiet_stream_says_nothing_about_the_link_but_how_large_messages_are() -> None:
    window = used(Link(1e9), SMALL, 10)
    before = window.max_bytes
    window.asked(MOST, 100.0)
    window.arrived(1, LARGE, 109.0, 0.0)
    window.ended()
    assert window.max_bytes == before
    assert window.messages == before // 2 // (LARGE + 200)


def test_bytes_that_are_used_up_count_as_all_that_was_asked_for() -> None:
    window = used(Link(1e9), SMALL, 10)
    window.asked(MOST, 100.0)
    window.arrived(5, 5 * LARGE, 110.0, 0.0)
    window.filled(110.0, 0.0)
    assert window.messages == 1
    assert BYTES_USED_UP in "Message Size Exceeds MaxBytes".lower()


def test_requests_that_overlap_are_timed_one_after_the_other() -> None:
    window = Window(MAX_PAYLOAD)
    window.asked(10, 0.0)
    window.arrived(5, 5 * SMALL, 0.01, 0.0)
    window.asked(10, 5.0)
    window.arrived(5, 5 * SMALL, 0.02, 0.0)
    assert window.messages > 10  # from the first request to the tenth message
