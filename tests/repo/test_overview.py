"""The queries of the page for the browser."""

import pytest

from repo import Connection
from repo.overview import JobCount, ReasonCount, count_by_job, count_by_reason
from tests.repo.rows import Db, rejected_event, run

pytestmark = pytest.mark.every_engine

NOW = "2026-05-20T12:05:00+00:00"
PAST, FUTURE = "2026-05-20T12:04:59.999+00:00", "2026-05-20T12:05:00.001+00:00"


def recorded(second: int) -> str:
    return f"2026-05-20T12:00:{second:02}+00:00"


def test_runs_in_flight_are_counted_by_job_the_most_overdue_first(
    db: Db, connection: Connection
) -> None:
    given = [
        ("calm", FUTURE),
        ("calm", FUTURE),
        ("calm", None),
        ("late", PAST),
        ("late", FUTURE),
        (None, None),
    ]
    db.write(
        [
            run(f"r{n}", job_id=job, expires_at=expires_at, recorded_at=recorded(n))
            for n, (job, expires_at) in enumerate(given)
        ]
    )
    db.ask("UPDATE execution_results SET finished_at = recorded_at WHERE result_id = 'r1'")
    assert count_by_job(connection, NOW, 100, 10) == [
        JobCount("late", 2, 1, 0, recorded(3)),
        JobCount("calm", 2, 0, 1, recorded(0)),
        JobCount(None, 1, 0, 1, recorded(5)),
    ]
    assert len(count_by_job(connection, NOW, 100, 2)) == 2


def test_only_the_runs_that_were_started_first_are_counted_by_job(
    db: Db, connection: Connection
) -> None:
    db.write([run(f"r{n}", job_id=f"job {n}", started_at=recorded(59 - n)) for n in range(5)])
    counted = count_by_job(connection, NOW, 2, 10)
    assert [count.job_id for count in counted] == ["job 3", "job 4"]


def test_the_newest_rejected_events_are_counted_by_reason_the_most_frequent_first(
    db: Db, connection: Connection
) -> None:
    assert count_by_reason(connection) == []
    reasons = ["rare", "often", "often", "x" * 10_000]
    db.write(
        [],
        [
            rejected_event(n, reason=reason, rejected_at=recorded(n))
            for n, reason in enumerate(reasons, 1)
        ],
    )
    assert count_by_reason(connection) == [
        ReasonCount("often", 2, recorded(3)),
        ReasonCount("rare", 1, recorded(1)),
        ReasonCount("x" * 500, 1, recorded(4)),
    ]


def test_a_job_with_a_long_name_is_counted_by_its_beginning(db: Db, connection: Connection) -> None:
    db.write([run(f"r{n}", job_id="j" * 1000 + str(n), expires_at=None) for n in range(2)])
    assert count_by_job(connection, NOW, 10, 10)[0][:2] == ("j" * 500, 2)
