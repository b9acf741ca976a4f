"""What the figures of database and broker mean, case by case."""

from typing import Any

import pytest

from repo.checkpoint import Checkpoint, Committed, StoredCheckpoint
from worker.jetstream.consumer import ConsumerPosition
from worker.jetstream.reconcile import Case, Comparison, compare

CREATED = "2026-05-20T12:00:00+00:00"
RECREATED = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"


def broker(
    ack_floor: int = 0,
    created: str = CREATED,
    *,
    first: int = 1,
    acked: int | None = None,
    delivered: int = 0,
    has_delivered: bool = True,
) -> ConsumerPosition:
    acked = ack_floor if acked is None else acked
    return ConsumerPosition(created, first, has_delivered, ack_floor, acked, delivered)


def database(
    highest: int | None = None, caught_up_to: int = 0, *, has_rows: bool = False, committed: int = 0
) -> StoredCheckpoint:
    """Return a stored checkpoint, or none; `committed` is how far this process has committed."""
    checkpoint = None if highest is None else Checkpoint(CREATED, highest, caught_up_to, NOW)
    ours = Committed(CREATED, committed) if committed else Committed()
    return StoredCheckpoint(checkpoint, has_rows or checkpoint is not None, (1, 1), ours)


@pytest.mark.parametrize(
    ("stored", "position", "expected"),
    [
        # A new file, and a consumer that delivered nothing; it counts what it skips as acked.
        (database(), broker(has_delivered=False), (Case.NEW, 0, 0, 0)),
        (database(), broker(999, has_delivered=False), (Case.NEW, 0, 0, 0)),
        # A new file, and a consumer that acked messages, perhaps out of order.
        (database(), broker(100), (Case.WIPED, 0, 0, 100)),
        (database(), broker(0, acked=10), (Case.WIPED, 0, 0, 10)),
        # What was delivered and never acked is delivered again.
        (database(), broker(0, acked=0), (Case.WIPED, 0, 0, 0)),
        # A file without what this process has committed.
        (database(committed=50), broker(40), (Case.WIPED, 0, 0, 50)),
        (database(has_rows=True, committed=50), broker(40), (Case.WIPED, 0, 0, 50)),
        # Rows without a checkpoint.
        (database(has_rows=True), broker(100), (Case.ADOPTED, 0, 0, 0)),
        # An ack floor up to the checkpoint.
        (database(100, 40), broker(0), (Case.CAUGHT_UP, 100, 40, 0)),
        (database(100, 40), broker(100), (Case.CAUGHT_UP, 100, 40, 100)),
        (database(100, 200), broker(200), (Case.CAUGHT_UP, 200, 200, 200)),
        # An ack floor above it, or a checkpoint below what this process has committed.
        (database(100, 40), broker(200), (Case.BEHIND, 100, 40, 200)),
        (database(100, 40, committed=150), broker(90), (Case.BEHIND, 100, 40, 150)),
        # A recreated stream, projected to no file or to another one.
        (database(100, 40, committed=9), broker(0, RECREATED), (Case.CAUGHT_UP, 0, 0, 0, True)),
        (database(100, 40), broker(7, RECREATED), (Case.BEHIND, 0, 0, 7, True)),
    ],
)
def test_each_pair_of_database_and_broker_is_one_case(
    stored: StoredCheckpoint, position: ConsumerPosition, expected: tuple[Any, ...]
) -> None:
    assert compare(stored, position) == Comparison(*expected)


@pytest.mark.parametrize(
    ("stored", "position", "missing", "highest", "caught_up_to"),
    [
        (database(), broker(100), True, 0, 0),
        (database(), broker(999, has_delivered=False), False, 0, 999),
        (database(has_rows=True), broker(100), False, 100, 100),
        (database(100, 40), broker(0), False, 100, 40),
        (database(100, 40), broker(50), False, 100, 50),
        (database(100, 40), broker(200), True, 100, 40),
        # The ack floor has passed messages of other subjects only.
        (database(100, 40), broker(200), False, 100, 200),
        (database(100, 40), broker(0, RECREATED), False, 0, 0),
    ],
)
def test_the_worker_begins_with_a_checkpoint_that_claims_only_what_is_committed(
    stored: StoredCheckpoint,
    position: ConsumerPosition,
    missing: bool,
    highest: int,
    caught_up_to: int,
) -> None:
    checkpoint = compare(stored, position).checkpoint(position, NOW, missing=missing)
    assert checkpoint == (position.stream_created_at, highest, caught_up_to, NOW)


def test_a_message_is_missing_if_the_stream_holds_one_that_was_acked_above_the_checkpoint() -> None:
    found = compare(database(100, 40), broker(200))
    assert found.is_suspect
    sequences = (101, 200, 201, None)
    assert [found.is_missing(first) for first in sequences] == [True, True, False, False]


def test_nothing_is_missing_where_the_broker_has_acked_nothing_above_the_checkpoint() -> None:
    for stored in (database(), database(100, 40), database(has_rows=True)):
        assert not compare(stored, broker(0)).is_suspect


def test_messages_that_the_stream_has_dropped_are_counted_from_the_caught_up_sequence() -> None:
    found = compare(database(100, 40), broker(200))
    assert [found.gone(broker(200, first=first)) for first in (1, 41, 61)] == [0, 0, 20]


def test_only_messages_delivered_above_the_checkpoint_need_a_count() -> None:
    caught_up = compare(database(100, 40), broker(50))
    assert not caught_up.needs_a_count(broker(50, delivered=100))
    position = broker(50, delivered=130)
    assert caught_up.needs_a_count(position)
    behind = caught_up.found_behind(position)
    assert behind == Comparison(Case.BEHIND, 100, 40, 130)
    assert not behind.needs_a_count(position)
