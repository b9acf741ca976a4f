"""What the figures of database and broker mean, case by case."""

from repo.checkpoint import Checkpoint, StoredCheckpoint
from worker.jetstream.reconciliation import Case, Comparison, Footing, compare

CREATED = "2026-05-20T12:00:00+00:00"
CREATED_ANEW = "2026-05-21T12:00:00+00:00"
NOW = "2026-05-22T12:00:00+00:00"


def footing(
    floor: int = 0,
    *,
    first: int = 1,
    settled: int | None = None,
    has: bool = True,
    created: str = CREATED,
) -> Footing:
    settled = floor if settled is None else settled
    return Footing(created, first, has_delivered=has, floor=floor, settled=settled)


def recalled(
    highest: int | None = None, low: int = 0, *, rows: bool = False, created: str = CREATED
) -> StoredCheckpoint:
    checkpoint = None if highest is None else Checkpoint(created, highest, low, NOW)
    return StoredCheckpoint(checkpoint, rows or checkpoint is not None, (1, 1))


def begun(comparison: Comparison, at: Footing, *, missing: bool = False) -> tuple[int, int]:
    checkpoint = comparison.checkpoint(at, NOW, missing=missing)
    assert (checkpoint.stream_created_at, checkpoint.committed_at) == (at.stream_created_at, NOW)
    return checkpoint.highest_sequence, checkpoint.caught_up_to


def test_a_new_file_and_a_durable_that_delivered_nothing_are_new() -> None:
    at = footing(has=False)
    found = compare(recalled(), at)
    assert (found.case, found.is_suspect, begun(found, at)) == (Case.NEW, False, (0, 0))


def test_a_durable_that_was_made_to_begin_later_has_delivered_nothing() -> None:
    at = footing(999, has=False)
    found = compare(recalled(), at)
    assert (found.case, found.is_suspect) == (Case.NEW, False)


def test_a_new_file_and_a_durable_that_settled_something_is_a_wiped_file() -> None:
    at = footing(100)
    found = compare(recalled(), at)
    assert found.case is Case.WIPED
    assert found.is_suspect
    assert found.is_missing(1)
    assert found.is_missing(100)
    assert not found.is_missing(101)
    assert not found.is_missing(None)
    assert begun(found, at, missing=True) == (0, 0)


def test_what_was_settled_out_of_order_counts_for_a_wiped_file() -> None:
    found = compare(recalled(), footing(0, settled=10))
    assert found.is_missing(2)


def test_what_was_delivered_and_never_settled_comes_again_by_itself() -> None:
    assert not compare(recalled(), footing(0, settled=0)).is_suspect


def test_rows_without_a_checkpoint_are_adopted_as_they_are() -> None:
    at = footing(100)
    found = compare(recalled(rows=True), at)
    assert (found.case, found.is_suspect, begun(found, at)) == (Case.ADOPTED, False, (100, 100))


def test_a_floor_at_or_below_the_checkpoint_is_in_step() -> None:
    for floor in (0, 50, 100):
        at = footing(floor)
        found = compare(recalled(100, 40), at)
        assert (found.case, found.is_suspect) == (Case.IN_STEP, False)
        assert begun(found, at) == (100, max(40, floor))


def test_a_floor_above_the_checkpoint_with_a_start_in_between_is_an_older_file() -> None:
    at = footing(200)
    found = compare(recalled(100, 40), at)
    assert (found.case, found.known, found.caught_up_to) == (Case.OLDER, 100, 40)
    assert found.is_missing(150)
    assert begun(found, at, missing=True) == (100, 40)


def test_a_floor_that_moved_without_a_start_of_ours_is_in_step_after_all() -> None:
    at = footing(200, first=180)
    found = compare(recalled(100, 40), at)
    assert not found.is_missing(201)
    assert begun(found, at) == (100, 200)


def test_a_low_water_mark_above_the_highest_sequence_counts() -> None:
    assert not compare(recalled(100, 200), footing(200)).is_suspect


def test_a_checkpoint_of_another_stream_starts_anew() -> None:
    at = footing(0, created=CREATED_ANEW)
    found = compare(recalled(100, 40), at)
    assert (found.case, found.stream_recreated, found.is_suspect) == (Case.IN_STEP, True, False)
    assert begun(found, at) == (0, 0)


def test_a_new_stream_whose_starts_went_into_another_file_is_replayed_whole() -> None:
    found = compare(recalled(100, 40), footing(7, created=CREATED_ANEW))
    assert (found.case, found.stream_recreated, found.known) == (Case.OLDER, True, 0)
    assert found.is_missing(3)


def test_what_the_stream_holds_no_more_is_counted_from_the_low_water_mark() -> None:
    found = compare(recalled(100, 40), footing(200))
    assert found.gone(footing(200, first=41)) == 0
    assert found.gone(footing(200, first=61)) == 20
