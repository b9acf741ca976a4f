"""`projector deadlines recompute` with real manifests and a real database."""

import threading
import time
from typing import Any

import pytest

from repo import open_database
from repo.deadlines import DeadlineChange
from repo.execution_results import START_WRITER
from repo.repository import Repository
from tests.integration.conftest import Projector
from tests.support.broker import Broker
from tests.support.rows import Rows
from worker.codec.timestamps import NANOSECONDS, format_instant

RECORDED_AT = "2999-01-01T00:00:00+00:00"
IN_20_MINUTES = "2999-01-01T00:20:00+00:00"
OLD = "2999-01-01T00:02:20+00:00"


def insert(rows: Rows, result_id: str, **columns: Any) -> None:
    run = {
        "result_id": result_id,
        "request_id": "r",
        "pc_id": "lyon-04",
        "job_id": "check-disk",
        "started_at": RECORDED_AT,
        "recorded_at": RECORDED_AT,
        "expires_at": None,
        **columns,
    }
    rows.insert("execution_results", [run])


def deadlines(rows: Rows) -> dict[str, str | None]:
    found = rows.query("SELECT result_id, expires_at FROM execution_results")
    return {row["result_id"]: row["expires_at"] for row in found}


@pytest.fixture
def manifests(stream: Broker) -> Broker:
    stream.make_bucket()
    stream.put_manifest("check-disk", {"execute": {"timeout": "800s"}})
    stream.put_manifest("broken", {"execute": {"timeout": "soon"}})
    return stream


@pytest.mark.every_engine
def test_deadlines_are_shown_first_and_written_only_with_yes(
    rows: Rows, manifests: Broker, projector: Projector
) -> None:
    insert(rows, "none")
    insert(rows, "other", expires_at=OLD)
    insert(rows, "same", expires_at=IN_20_MINUTES)
    insert(rows, "ended", finished_at=OLD)
    insert(rows, "broken", job_id="broken")
    insert(rows, "kept", job_id="unknown", expires_at=OLD)
    insert(rows, "odd", recorded_at="yesterday")
    before = deadlines(rows)
    shown = projector("deadlines", "recompute", "--json")
    assert (shown.code, deadlines(rows)) == (0, before)
    found = shown.document
    assert [(run["result_id"], run["before"], run["after"]) for run in found["runs"]] == [
        *(("none", None, IN_20_MINUTES), ("other", OLD, IN_20_MINUTES))
    ]
    counts = {"changed": 2, "unchanged": 2, "without_deadline": 2, "changed_meanwhile": 0}
    assert found.items() >= {**counts, "dry_run": True}.items()
    reasons = {(one["job_id"], one["reason"].split(":")[0]) for one in found["reasons"]}
    assert {job for job, _ in reasons} == {"broken", "unknown", "check-disk"}
    assert ("unknown", "manifest unknown") in reasons
    text = projector("deadlines", "recompute")
    assert "1 runs of unknown get no deadline: manifest unknown\n" in text.output
    assert "would be: 2 changed, 2 unchanged" in text.output
    assert "nothing is changed without --yes" in text.output

    written = projector("deadlines", "recompute", "--yes")
    changed = {"none": IN_20_MINUTES, "other": IN_20_MINUTES}
    assert (written.code, deadlines(rows)) == (0, {**before, **changed})
    assert '"deadlines.recomputed"' in written.errors
    again = projector("deadlines", "recompute", "--yes", "--json").document
    assert (again["changed"], again["unchanged"]) == (0, 4)


def test_only_the_runs_of_one_manifest_are_recomputed(
    rows: Rows, manifests: Broker, projector: Projector
) -> None:
    manifests.put_manifest("other", {"execute": {"timeout": "800s"}})
    insert(rows, "mine")
    insert(rows, "theirs", job_id="other")
    done = projector("deadlines", "recompute", "--manifest", "other", "--yes")
    assert done.code == 0
    assert deadlines(rows) == {"mine": None, "theirs": IN_20_MINUTES}


@pytest.mark.every_engine
def test_a_run_that_ends_or_changes_meanwhile_keeps_its_deadline(rows: Rows) -> None:
    insert(rows, "ended", finished_at=OLD)
    insert(rows, "changed", expires_at=OLD)
    insert(rows, "mine")
    changes = [DeadlineChange(name, None, IN_20_MINUTES) for name in ("ended", "changed", "mine")]
    place = open_database(rows.url), START_WRITER
    with Repository(*place, retry_for=1.0, give_up=threading.Event()) as repository:
        assert repository.change_deadlines(changes) == ["mine"]
    assert deadlines(rows) == {"ended": None, "changed": OLD, "mine": IN_20_MINUTES}


def test_a_deadline_that_is_over_is_shown_as_overdue(
    rows: Rows, manifests: Broker, projector: Projector
) -> None:
    stored = format_instant(time.time_ns() - 3600 * NANOSECONDS)
    insert(rows, "late", recorded_at=stored)
    done = projector("deadlines", "recompute")
    assert "late  check-disk  lyon-04: none -> overdue 40 min\n" in done.output


def test_without_the_bucket_nothing_is_recomputed(
    rows: Rows, stream: Broker, projector: Projector
) -> None:
    insert(rows, "none")
    done = projector("deadlines", "recompute", "--yes")
    assert (done.code, done.output) == (78, "")
    assert "bucket 'jobs' does not exist" in done.errors
