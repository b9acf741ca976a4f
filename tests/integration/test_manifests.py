"""Deadlines follow the manifests in the bucket, and no bucket ever holds a start back."""

import itertools
from collections.abc import Callable

from tests.integration.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.rows import Row, Rows
from tests.support.times import stored_text
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

_numbers = itertools.count(1)


def test_a_deadline_follows_its_manifest_through_change_delete_and_purge(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job", {"execute": {"timeout": "20s"}})
    broker.put_manifest("deleted-before", {"execute": {"timeout": "20s"}})
    broker.delete_manifest("deleted-before")
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    next_start = _starts(broker, rows, worker)

    assert next_start("job") == 140
    assert next_start("deleted-before") is None
    broker.put_manifest("job", {"execute": {"timeout": "1h"}})
    eventually(lambda: next_start("job") == 5400, 5, lambda: worker.text)
    broker.delete_manifest("job")
    eventually(lambda: next_start("job") is None, 5, lambda: worker.text)
    broker.put_manifest("job", {"execute": {"timeout": "0"}})
    eventually(lambda: next_start("job") == 120, 5, lambda: worker.text)
    broker.purge_manifest("job")
    eventually(lambda: next_start("job") is None, 5, lambda: worker.text)
    assert worker.stop() == 0


def test_a_manifest_that_is_put_just_before_a_start_counts_for_it(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("changed", {"execute": {"timeout": "0"}})
    worker = start_worker(rows)
    worker.wait_for("pull.started")
    for number in range(1, 101):
        broker.put_manifest(f"new-{number}", {"execute": {"timeout": "20s"}})
        broker.publish(result_id=f"new-{number}", manifest_id=f"new-{number}")
        broker.put_manifest("changed", {"execute": {"timeout": f"{number}h"}})
        broker.publish(result_id=f"changed-{number}", manifest_id="changed")
    eventually(lambda: rows.count() == 200, 10, lambda: worker.text)

    assert worker.stop() == 0
    assert rows.query("SELECT * FROM execution_results WHERE expires_at IS NULL") == []
    spans = rows.query(
        "SELECT result_id, round((julianday(expires_at) - julianday(recorded_at)) * 24, 2) AS hours"
        " FROM execution_results WHERE result_id LIKE 'changed-%'"
    )
    late = [row for row in spans if row["hours"] < int(row["result_id"].partition("-")[2]) * 1.5]
    assert late == []


def test_a_manifest_without_a_usable_timeout_gives_no_deadline_a_reason_and_a_count(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    unusable = {
        "broken": (b"{ no JSON", "manifest_unreadable"),
        "no-text": (b"\xff", "manifest_unreadable"),
        "empty": (b"", "manifest_unreadable"),
        "array": ([1], "timeout_missing"),
        "missing": ({"execute": {}}, "timeout_missing"),
        "number": ({"execute": {"timeout": 30}}, "timeout_invalid"),
        "bad": ({"execute": {"timeout": "30 parsecs"}}, "timeout_invalid"),
    }
    broker.make_stream()
    broker.make_bucket()
    for manifest_id, (value, _) in unusable.items():
        broker.put_manifest(manifest_id, value)
    broker.put_manifest("huge", {"execute": {"timeout": "500000000000y"}})
    reasons = {manifest_id: reason for manifest_id, (_, reason) in unusable.items()}
    reasons["unheard of"] = "manifest_unknown"
    for manifest_id in (*reasons, "huge"):
        broker.publish(result_id=f"1 {manifest_id}", manifest_id=manifest_id)
        broker.publish(result_id=f"2 {manifest_id}", manifest_id=manifest_id)
    worker = start_worker(rows, "--until-idle", "--batch", "1")

    assert worker.exit_code() == 0
    assert rows.count() == 2 * (len(reasons) + 1)
    with_deadline = rows.query("SELECT * FROM execution_results WHERE expires_at IS NOT NULL")
    assert [row["job_id"] for row in with_deadline] == ["huge", "huge"]
    assert _seconds(with_deadline[0]) == 365 * 86_400
    told = worker.logged("deadline.missing")
    assert sorted((line["manifest_id"], line["reason"]) for line in told) == sorted(reasons.items())
    assert {line["level"] for line in told} == {"warning"}
    for reason in set(reasons.values()):
        runs = 2 * sum(1 for other in reasons.values() if other == reason)
        assert worker.counters[f"deadline_missing_{reason}"] == runs


def test_a_bucket_that_comes_goes_and_comes_again_is_followed_while_starts_are_projected(
    broker: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    worker = start_worker(rows)
    worker.wait_for("manifests.unavailable", error="there is no such bucket")
    next_start = _starts(broker, rows, worker)
    assert next_start("job") is None

    broker.make_bucket()
    broker.put_manifest("job", {"execute": {"timeout": "20s"}})
    eventually(lambda: next_start("job") == 140, 8, lambda: worker.text)
    broker.delete_bucket()
    broker.make_bucket()
    broker.put_manifest("job", {"execute": {"timeout": "360s"}})
    eventually(lambda: next_start("job") == 540, 15, lambda: worker.text)
    assert worker.stop() == 0
    assert worker.counters["deadline_missing_manifests_unavailable"] >= 1


def _starts(broker: Broker, rows: Rows, worker: WorkerProcess) -> Callable[[str], int | None]:
    """Return a function that publishes a start and returns its deadline, in seconds from it."""

    def publish(manifest_id: str) -> int | None:
        result_id = f"run-{next(_numbers)}"
        broker.publish(result_id=result_id, manifest_id=manifest_id)
        row = eventually(lambda: rows.run(result_id), 5, lambda: worker.text)
        assert row is not None
        return _seconds(row)

    return publish


def _seconds(row: Row) -> int | None:
    """Return how many seconds a row's deadline is after its record, or None if there is none."""
    if row["expires_at"] is None:
        return None
    recorded = row["recorded_at"].removesuffix("+00:00")
    candidates = (120, 140, 540, 5400, 365 * 86_400)
    found = [s for s in candidates if stored_text(recorded, plus=s) == row["expires_at"]]
    assert found, row
    return found[0]
