"""What the figures of database and broker mean, case by case."""

from typing import Any

import pytest

from repo.checkpoint import Checkpoint, Committed, StoredCheckpoint
from worker.jetstream.consumer import ConsumerPosition
from worker.jetstream.reconcile import Case, Comparison, compare

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"


def broker(ack_floor: int = 0, *, acked: int | None = None, **more: Any) -> ConsumerPosition:
    known = {"stream_created_at": CREATED, "first_sequence": 1, "has_delivered": True, **more}
    acked = ack_floor if acked is None else acked
    return ConsumerPosition(ack_floor=ack_floor, acked=acked, **known)


def database(
    highest: int | None = None, caught_up_to: int = 0, *, has_rows: bool = False, committed: int = 0
) -> StoredCheckpoint:
    """Return a stored checkpoint, or none; `committed` is how far this process has committed."""
    checkpoint = None if highest is None else Checkpoint(CREATED, highest, caught_up_to, NOW)
    ours = Committed(CREATED, committed) if committed else Committed()
    return StoredCheckpoint(checkpoint, has_rows or checkpoint is not None, (1, 1), ours)


def begun(found: Comparison, at: ConsumerPosition, *, missing: bool = False) -> tuple[int, int]:
    """Return the highest sequence and the caught-up sequence that the worker begins with."""
    checkpoint = found.checkpoint(at, NOW, missing=missing)
    assert checkpoint.stream_created_at == at.stream_created_at
    assert checkpoint.committed_at == NOW
    return checkpoint.highest_sequence, checkpoint.caught_up_to


@pytest.mark.parametrize("ack_floor", [0, 999])
def test_a_new_file_and_a_consumer_that_delivered_nothing_are_new(ack_floor: int) -> None:
    # A consumer that was created to begin later counts what it skips as acked.
    position = broker(ack_floor, has_delivered=False)
    found = compare(database(), position)
    assert (found.case, found.is_suspect) == (Case.NEW, False)
    assert begun(found, position) == (0, ack_floor)


def test_a_new_file_and_a_consumer_that_acked_messages_are_a_wiped_file() -> None:
    position = broker(100)
    found = compare(database(), position)
    assert (found.case, found.is_suspect) == (Case.WIPED, True)
    sequences = (1, 100, 101, None)
    assert [found.is_missing(first) for first in sequences] == [True, True, False, False]
    assert begun(found, position, missing=True) == (0, 0)


def test_messages_acked_out_of_order_are_missing_from_a_wiped_file() -> None:
    assert compare(database(), broker(0, acked=10)).is_missing(2)


def test_messages_that_were_delivered_and_never_acked_are_not_missing() -> None:
    assert not compare(database(), broker(0, acked=0)).is_suspect


def test_a_file_without_what_this_process_committed_was_wiped() -> None:
    for has_rows in (False, True):
        found = compare(database(has_rows=has_rows, committed=50), broker(40))
        assert (found.case, found.until) == (Case.WIPED, 50)


def test_rows_without_a_checkpoint_are_adopted_unchanged() -> None:
    position = broker(100)
    found = compare(database(has_rows=True), position)
    assert (found.case, found.is_suspect) == (Case.ADOPTED, False)
    assert begun(found, position) == (100, 100)


@pytest.mark.parametrize("ack_floor", [0, 50, 100])
def test_an_ack_floor_up_to_the_checkpoint_is_caught_up(ack_floor: int) -> None:
    position = broker(ack_floor)
    found = compare(database(100, 40), position)
    assert (found.case, found.is_suspect) == (Case.CAUGHT_UP, False)
    assert begun(found, position) == (100, max(40, ack_floor))


def test_an_ack_floor_above_the_checkpoint_with_a_message_in_between_is_an_older_file() -> None:
    position = broker(200)
    found = compare(database(100, 40), position)
    assert (found.case, found.known, found.caught_up_to) == (Case.BEHIND, 100, 40)
    assert found.is_missing(150)
    assert begun(found, position, missing=True) == (100, 40)


def test_an_ack_floor_that_moved_without_a_message_of_the_filter_leaves_nothing_missing() -> None:
    position = broker(200, first_sequence=180)
    found = compare(database(100, 40), position)
    assert not found.is_missing(201)
    assert begun(found, position) == (100, 200)


def test_a_checkpoint_behind_what_this_process_committed_is_an_older_file() -> None:
    found = compare(database(100, 40, committed=150), broker(90))
    assert (found.case, found.until) == (Case.BEHIND, 150)


def test_a_caught_up_sequence_above_the_highest_one_counts() -> None:
    assert not compare(database(100, 200), broker(200)).is_suspect


def test_a_checkpoint_of_a_deleted_stream_is_reset() -> None:
    position = broker(0, stream_created_at=RECREATED)
    found = compare(database(100, 40, committed=100), position)
    assert (found.case, found.stream_recreated, found.is_suspect) == (Case.CAUGHT_UP, True, False)
    assert begun(found, position) == (0, 0)


def test_a_recreated_stream_that_was_projected_to_another_file_is_replayed_entirely() -> None:
    found = compare(database(100, 40), broker(7, stream_created_at=RECREATED))
    assert (found.case, found.stream_recreated, found.known) == (Case.BEHIND, True, 0)
    assert found.is_missing(3)


def test_messages_that_the_stream_has_dropped_are_counted_from_the_caught_up_sequence() -> None:
    found = compare(database(100, 40), broker(200))
    assert found.gone(broker(200, first_sequence=41)) == 0
    assert found.gone(broker(200, first_sequence=61)) == 20


def test_only_messages_delivered_above_the_checkpoint_need_a_count() -> None:
    caught_up = compare(database(100, 40), broker(50))
    assert not caught_up.needs_a_count(broker(50, delivered=100))
    position = broker(50, delivered=130)
    assert caught_up.needs_a_count(position)
    behind = caught_up.found_behind(position)
    assert (behind.case, behind.until, behind.caught_up_to) == (Case.BEHIND, 130, 40)
    assert not behind.needs_a_count(position)
