"""What cannot become a run is kept as it came, once."""

from pathlib import Path

import pytest

from repo.rejected import insert_all
from repo.repository import Repository
from repo.sqlite.database import Connection
from tests.repo.rows import ask, count, refusal_of, rejected_event, runs


def test_a_rejected_event_is_stored_with_every_column_as_bound(
    repository: Repository, path: Path
) -> None:
    event = rejected_event(7)
    assert repository.write([], [event], refusal_of([])).rejected == [event]
    columns = ", ".join(event._fields)
    assert ask(path, f"SELECT {columns} FROM rejected_events") == [tuple(event)]


def test_a_replayed_rejected_event_makes_no_second_row_and_is_not_new(
    repository: Repository, path: Path
) -> None:
    first = rejected_event(7)
    repository.write([], [first], refusal_of([]))
    replayed = first._replace(reason="said otherwise", rejected_at="2026-06-01T00:00:00+00:00")
    other = rejected_event(8)
    written = repository.write([], [replayed, other], refusal_of([]))
    assert written.rejected == [other]
    assert ask(path, "SELECT stream_sequence, reason, rejected_at FROM rejected_events") == [
        (7, first.reason, first.rejected_at),
        (8, other.reason, other.rejected_at),
    ]


def test_the_same_rejected_event_twice_in_a_batch_makes_one_row(
    repository: Repository, path: Path
) -> None:
    event = rejected_event(7)
    assert repository.write([], [event, event], refusal_of([])).rejected == [event]
    assert count(path, "rejected_events") == 1


@pytest.mark.parametrize(
    "difference",
    [
        {"recorded_at": "2026-05-27T12:00:01.500+00:00"},
        {"recorded_at": "2026-05-20T12:00:01.500000001+00:00"},
        {"stream": "EVENTS2"},
        {"stream_sequence": 8},
    ],
)
def test_an_event_of_a_stream_made_anew_or_of_another_is_a_second_row(
    repository: Repository, path: Path, difference: dict[str, object]
) -> None:
    first = rejected_event(7)
    second = first._replace(**difference)  # type: ignore[arg-type]
    repository.write([], [first], refusal_of([]))
    assert repository.write([], [second], refusal_of([])).rejected == [second]
    assert count(path, "rejected_events") == 2


@pytest.mark.parametrize(
    "payload",
    [b"", b"\x00", bytes(range(256)), b"\xff\xfe\xfd", "☃".encode(), b"x" * 2_000_000],
    ids=["empty", "nul", "all bytes", "no utf-8", "unicode", "long"],
)
def test_the_payload_comes_back_byte_for_byte(
    connection: Connection, path: Path, payload: bytes
) -> None:
    insert_all(connection, [rejected_event(payload=payload)])
    assert ask(path, "SELECT payload, typeof(payload) FROM rejected_events") == [(payload, "blob")]


@pytest.mark.parametrize("text", ["", "with\x00nul", "☃ \U0001f600", "x" * 100_000])
def test_subject_and_reason_come_back_as_they_went_in(
    connection: Connection, path: Path, text: str
) -> None:
    insert_all(connection, [rejected_event(subject=text, reason=text)])
    assert ask(path, "SELECT subject, reason FROM rejected_events") == [(text, text)]


def test_the_largest_sequence_that_sqlite_knows_is_stored(
    connection: Connection, path: Path
) -> None:
    insert_all(connection, [rejected_event(2**63 - 1)])
    assert ask(path, "SELECT stream_sequence FROM rejected_events") == [(2**63 - 1,)]


def test_runs_and_rejected_events_of_a_batch_are_committed_together(
    repository: Repository, path: Path
) -> None:
    batch = runs(3)
    written = repository.write(batch, [rejected_event(4)], refusal_of(batch))
    assert (written.inserted, written.refused, len(written.rejected)) == (3, 0, 1)
    assert (count(path, "execution_results"), count(path, "rejected_events")) == (3, 1)
