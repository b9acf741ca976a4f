"""Deliveries that went to others, by the consumer's own sequences."""

import pytest

from worker.jetstream.deliveries import Deliveries


@pytest.fixture
def deliveries() -> Deliveries:
    """Deliveries of a consumer that had made ten before."""
    deliveries = Deliveries()
    deliveries.reset(10)
    return deliveries


@pytest.mark.parametrize(
    ("bursts", "foreign"),
    [
        ([(11, 20, 10), (21, 21, 1)], 0),
        ([(12, 20, 9)], 1),
        ([(11, 20, 9)], 1),
        ([(11, 15, 5), (17, 17, 1)], 1),
        ([(11, 15, 5), (20, 25, 4)], 6),
        ([(5, 10, 6), (11, 11, 1)], 0),  # late ones, that were made before
        ([(9, 12, 4)], 0),
        ([(9, 13, 4)], 1),
    ],
)
def test_a_gap_is_what_went_to_others(
    deliveries: Deliveries, bursts: list[tuple[int, int, int]], foreign: int
) -> None:
    for first, last, count in bursts:
        deliveries.arrived(first, last, count)
    assert bool(deliveries.foreign) == bool(foreign)
    assert deliveries.foreign >= foreign
    assert deliveries.are_ours(bursts[-1][1]) == (foreign == 0)


def test_an_ack_floor_proves_nothing_above_what_has_arrived(deliveries: Deliveries) -> None:
    deliveries.arrived(11, 15, 5)
    assert deliveries.are_ours(15)
    assert not deliveries.are_ours(16)


def test_what_was_delivered_before_the_last_look_and_has_not_arrived_went_to_others(
    deliveries: Deliveries,
) -> None:
    deliveries.looked(delivered=12, ack_floor=10)
    assert deliveries.foreign == 0  # it may be on its way
    deliveries.arrived(11, 12, 2)
    deliveries.looked(delivered=13, ack_floor=12)
    assert deliveries.foreign == 0
    deliveries.looked(delivered=13, ack_floor=12)
    assert deliveries.foreign == 1


def test_what_is_acked_and_has_not_arrived_went_to_others(deliveries: Deliveries) -> None:
    deliveries.looked(delivered=12, ack_floor=12)
    assert deliveries.foreign == 2


def test_a_gap_stays_until_it_is_accounted_for_up_to_its_end(deliveries: Deliveries) -> None:
    deliveries.arrived(15, 15, 1)
    deliveries.account_for(14)
    assert deliveries.foreign == 5
    deliveries.account_for(15)
    assert deliveries.foreign == 0
    assert deliveries.are_ours(15)


def test_gaps_end_with_the_connection(deliveries: Deliveries) -> None:
    deliveries.arrived(15, 15, 1)
    deliveries.reset(3)
    deliveries.arrived(4, 4, 1)
    assert deliveries.are_ours(4)


def test_the_highest_and_the_lowest_new_sequence_of_the_stream_are_kept(
    deliveries: Deliveries,
) -> None:
    for sequence, is_new in ((20, True), (18, True), (100, True), (3, False)):
        deliveries.reached(sequence, is_new=is_new)
    assert (deliveries.highest, deliveries.lowest_new) == (100, 18)
    deliveries.lowest_new = None
    deliveries.reached(50, is_new=False)
    assert (deliveries.highest, deliveries.lowest_new) == (100, None)
