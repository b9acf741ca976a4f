"""Deadlines follow the manifests in the bucket, and a start never waits for the bucket."""

from typing import Any

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.deadlines import Deadlines, manifest, seconds_to_deadline
from tests.support.rows import Rows


def test_a_deadline_follows_its_manifest_through_change_delete_and_purge(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    stream.put_manifest("job", manifest("20s"))
    stream.put_manifest("deleted-before", manifest("20s"))
    stream.delete_manifest("deleted-before")
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    assert deadlines.of_a_start("job") == 140
    assert deadlines.of_a_start("deleted-before") is None
    stream.put_manifest("job", manifest("1h"))
    deadlines.wait_for("job", 5400, 5)
    stream.delete_manifest("job")
    deadlines.wait_for("job", None, 5)
    stream.put_manifest("job", manifest("0"))
    deadlines.wait_for("job", 120, 5)
    stream.purge_manifest("job")
    deadlines.wait_for("job", None, 5)
    assert worker.stop() == 0


def test_a_manifest_that_is_put_just_before_a_start_already_counts_for_it(
    stream: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    stream.make_bucket()
    stream.put_manifest("changed", manifest("0"))
    worker = start_worker(rows, pulling=True)
    for number in range(1, 101):
        stream.put_manifest(f"new-{number}", manifest("20s"))
        stream.publish(result_id=f"new-{number}", manifest_id=f"new-{number}")
        stream.put_manifest("changed", manifest(f"{number}h"))
        stream.publish(result_id=f"changed-{number}", manifest_id="changed")
    worker.until(lambda: rows.count() == 200)
    assert worker.stop() == 0
    assert rows.query("SELECT * FROM execution_results WHERE expires_at IS NULL") == []
    spans = rows.query(
        "SELECT result_id, round((julianday(expires_at) - julianday(recorded_at)) * 24, 2) AS hours"
        " FROM execution_results WHERE result_id LIKE 'changed-%'"
    )
    early = [row for row in spans if row["hours"] < int(row["result_id"].partition("-")[2]) * 1.5]
    assert early == []


def test_a_manifest_without_a_valid_timeout_means_no_deadline_and_is_logged_and_counted(
    stream: Broker, rows: Rows, run_until_idle: RunUntilIdle
) -> None:
    invalid = {
        "broken": (b"{ not JSON", "manifest_unreadable"),
        "empty": (b"", "manifest_unreadable"),
        "missing": ({"execute": {}}, "timeout_missing"),
        "bad": (manifest("30 parsecs"), "timeout_invalid"),
    }
    stream.make_bucket()
    for manifest_id, (value, _) in invalid.items():
        stream.put_manifest(manifest_id, value)
    stream.put_manifest("huge", manifest("500000000000y"))
    reasons = {manifest_id: reason for manifest_id, (_, reason) in invalid.items()}
    reasons["unknown"] = "manifest_unknown"
    for manifest_id in (*reasons, "huge"):
        stream.publish(result_id=f"1 {manifest_id}", manifest_id=manifest_id)
        stream.publish(result_id=f"2 {manifest_id}", manifest_id=manifest_id)
    worker = run_until_idle(rows, "--batch", "1")
    assert rows.count() == 2 * (len(reasons) + 1)
    with_deadline = rows.query("SELECT * FROM execution_results WHERE expires_at IS NOT NULL")
    assert [row["job_id"] for row in with_deadline] == ["huge", "huge"]
    assert seconds_to_deadline(with_deadline[0]) == 365 * 86_400
    logged = worker.logged("deadline.missing", level="warning")
    assert {line["manifest_id"]: line["reason"] for line in logged} == reasons
    assert sum(line["runs"] for line in logged) == 2 * len(reasons)
    for reason in set(reasons.values()):
        runs = 2 * sum(1 for other in reasons.values() if other == reason)
        assert worker.counters[f"deadline_missing_{reason}"] == runs


TRANSFORM = {"subject_transforms": [{"src": "$KV.other.>", "dest": "$KV.jobs.>"}]}
OWN = {"subjects": ["$KV.jobs.>"]}


@pytest.mark.parametrize(
    "config",
    [
        {"mirror": {"name": "KV_other"}},
        {"sources": [{"name": "KV_other"}]},
        {"sources": [{"name": "KV_other"}], **OWN},
        {"sources": [{"name": "KV_other", **TRANSFORM}], **OWN},
    ],
    ids=["mirror", "source", "source beside keys of its own", "source with a subject transform"],
)
def test_the_keys_of_a_bucket_that_mirrors_or_sources_another_one_count(
    stream: Broker,
    rows: Rows,
    start_worker: StartWorker,
    projector: Projector,
    config: dict[str, Any],
) -> None:
    stream.make_bucket_like("other", **config)
    worker = start_worker(rows, pulling=True)
    deadlines = Deadlines(stream, rows, worker)
    stream.put_into("$KV.other.job", manifest("20s"))
    deadlines.wait_for("job", 140, 5)
    if "subjects" in config:
        stream.put_manifest("own", manifest("1h"))
        assert deadlines.of_a_start("own") == 5400
    checked = projector("check", "--json").document["findings"]
    (found,) = [finding for finding in checked if finding["name"] == "manifests"]
    assert found["level"] == "ok"
    assert worker.stop() == 0


def test_a_bucket_that_has_messages_but_no_key_is_a_warning(
    stream: Broker, rows: Rows, projector: Projector, run_until_idle: RunUntilIdle
) -> None:
    stream.publish()
    stream.make_bucket_like("other", mirror={"name": "EVENTS"})
    worker = run_until_idle(rows)
    worker.wait_for("manifests.without_key", level="warning", messages=1)
    assert "none of its 1 messages is that of a key" in projector("check").output
