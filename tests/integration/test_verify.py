"""`projector verify` and `rebuild`: compare the tables with the stream, and restore rows."""

import os
import pty
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done
from tests.support.faulty_worker import faulty
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import PROJECTOR

STARTS = ("--projection", "starts")


@pytest.fixture
def projected(deployment: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    """Runs r0 to r9, of which r0 has two events, and a rejected event."""
    deployment.publish_starts(events.start(result_id=f"r{number}") for number in range(10))
    deployment.publish(result_id="r0", pc_id="again")
    deployment.publish(b"not JSON \x1b")
    run_until_idle(rows)
    return rows


def counts(done: Done) -> dict[str, int]:
    """Return the counts that are not 0."""
    return {name: count for name, count in done.document.items() if name != "events" and count}


def outcomes(done: Done) -> dict[str, str]:
    return {event["result_id"]: event["outcome"] for event in done.document["events"]}


def test_verify_counts_matching_and_pending_events_and_changes_nothing(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    broker.publish()
    before, consumer = projected.path.read_bytes(), broker.consumer()
    done = projector("verify", "--json")
    assert done.code == 0, done
    assert counts(done) == {"equal": 10, "rejected": 1, "existing": 1, "pending": 1}
    assert projector("verify").output == "10 equal, 1 rejected, 1 pending, 1 existing\n"
    assert projected.path.read_bytes() == before
    now = broker.consumer()
    assert (now.created, now.num_pending) == (consumer.created, consumer.num_pending)
    eventually(lambda: broker.stream_info().state.consumer_count == 1, 5)


@pytest.mark.usefixtures("projected")
def test_a_duration_before_now_is_by_the_brokers_clock(projector: Projector) -> None:
    environment, command = faulty("wrong-clock", 3600)
    done = projector("verify", "--since", "30m", "--json", command=command, **environment)
    assert counts(done) == {"equal": 10, "rejected": 1, "existing": 1}


@pytest.mark.every_engine
def test_verify_lists_wrong_and_missing_rows_and_accepts_those_with_a_reason(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    projected.write("DELETE FROM execution_results WHERE result_id = 'r1'")
    for result_id, change in {
        "r2": "pc_id = 'x\x1b'",
        "r3": "expires_at = replace(expires_at, 'T', ' ')",
        "r4": "expires_at = NULL",
        "r5": "finished_at = 't', exit_code = 7",
        "r6": "expires_at = '2999-01-01T00:00:00+00:00'",  # no timeout of the manifest gives this
    }.items():
        projected.write(f"UPDATE execution_results SET {change} WHERE result_id = '{result_id}'")
    done = projector("verify", "--json")
    assert done.code == 1
    different = dict.fromkeys(["r2", "r3"], "different")
    assert outcomes(done) == {"r1": "missing", **different, "r6": "different"}
    assert (counts(done)["equal"], counts(done)["deadline_missing"]) == (5, 1)
    columns = {event["result_id"]: event["columns"] for event in done.document["events"]}
    assert columns["r2"] == {"pc_id": ["pc-1", "x\x1b"]}
    assert "pc_id: expected pc-1, found x\\x1b" in projector("verify").output

    # Now the manifest is newer than the rows, so it may have had another timeout before.
    broker.put_manifest("job-1", {"execute": {"timeout": "1h"}})
    changed = projector("verify", "--json")
    assert outcomes(changed) == {"r1": "missing", **different}
    assert counts(changed)["deadline_changed"] == 6
    assert counts(projector("verify", "--json", "--without-deadlines"))["equal"] == 8


def test_rebuild_restores_missing_rows_and_changes_nothing_else(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    everything = projected.query("SELECT * FROM execution_results ORDER BY result_id")
    projected.write("DELETE FROM execution_results WHERE result_id IN ('r1', 'r2')")
    projected.write("DELETE FROM rejected_events")
    before, created = projected.path.read_bytes(), broker.consumer().created
    expected = {"messages": 12, "runs_new": 2, "runs_duplicate": 9, "rejected_new": 1}
    zero = {"runs_ended", "runs_ended_unseen", "results_late", "results_duplicate"}
    zero |= {"rejected_duplicate", "markers", "objects_missing"}
    dry = projector("rebuild", "--dry-run", "--json")
    assert (dry.code, counts(dry)) == (0, {**expected, "dry_run": True})
    assert projected.path.read_bytes() == before
    done = projector("rebuild", "--json")
    assert (done.code, done.document) == (
        0,
        {**expected, **dict.fromkeys(zero, 0), "dry_run": False},
    )
    assert projected.query("SELECT * FROM execution_results ORDER BY result_id") == everything
    assert len(projected.rejected()) == 1
    assert broker.consumer().created == created
    assert projector("rebuild").output == "12 messages, 11 runs duplicate, 1 rejected duplicate\n"
    assert projector("rebuild", "--since", "1h", "--json").document["messages"] == 12
    late = projector("rebuild", "--since", "2999-01-01T00:00:00Z", "--json")
    assert (late.code, late.document["messages"]) == (0, 0)
    assert projector("rebuild", "--since", "yesterday").code == 64


@pytest.mark.parametrize("dry_run", [True, False])
def test_rebuild_counts_a_run_with_two_distant_events_as_new_once(
    stream: Broker, rows: Rows, projector: Projector, dry_run: bool
) -> None:
    starts = [events.start(result_id=f"r{number}") for number in range(301)]
    stream.publish_starts([*starts, starts[0]])
    option = ["--dry-run"] * dry_run
    done = projector("rebuild", "--without-deadlines", "--json", *option)
    found = counts(done)
    assert found.pop("dry_run", False) is dry_run
    assert found == {"messages": 302, "runs_new": 301, "runs_duplicate": 1}
    assert rows.count() == (0 if dry_run else 301)


def test_a_progress_bar_stays_out_of_the_results(projected: Rows, server: NatsServer) -> None:
    projected.write("DELETE FROM execution_results WHERE result_id = 'r1'")
    command = Path(sys.executable).with_name("projector")
    watching, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [command, "verify", *STARTS, "--database", projected.url, "--nats", server.url],
            stdout=subprocess.PIPE,
            stderr=terminal,
            env={**os.environ, "TERM": "xterm"},
            check=False,
        )
        shown = os.read(watching, 65_536)
    finally:
        os.close(watching)
        os.close(terminal)
    assert done.stdout.splitlines() == [
        b"missing    EVENTS sequence 2, result_id r1",
        b"9 equal, 1 rejected, 1 existing, 1 missing",
    ]
    assert b"verifying" in shown
    assert b"missing" not in shown


@pytest.mark.every_engine
def test_verify_and_rebuild_work_beside_a_busy_worker(
    broker: Broker, projected: Rows, projector: Projector, start_worker: StartWorker
) -> None:
    broker.publish_starts(events.start() for _ in range(5_000))
    worker = start_worker(projected)
    with ThreadPoolExecutor() as pool:
        both = [pool.submit(projector, *one) for one in (["rebuild"], ["verify", "--json"])]
        rebuilt, verified = (one.result() for one in both)
    assert rebuilt.code == 0, rebuilt
    assert verified.code == 0, verified.document
    assert sum(counts(verified).values()) == 5_012
    eventually(broker.is_acked, 20)
    assert projected.count() == 5_010
    assert worker.stop() == 0
    assert worker.logged("pull.lost") == worker.logged("batch.failed") == []


def test_verify_and_rebuild_exit_with_78_if_the_stream_the_bucket_or_the_database_is_missing(
    broker: Broker, projector: Projector, tmp_path: Path
) -> None:
    done = projector("verify")
    assert done.code == 78
    assert "stream EVENTS does not exist" in done.errors
    broker.make_stream()
    done = projector("rebuild")
    assert done.code == 78
    assert "--without-deadlines" in done.errors
    assert projector("rebuild", "--without-deadlines").output == "0 messages\n"
    assert projector("verify", "--database", f"sqlite:///{tmp_path}/none.db").code == 78


def test_a_work_queue_cannot_be_read_beside_its_consumer_which_is_exit_78(
    broker: Broker, rows: Rows, projector: Projector, run_until_idle: RunUntilIdle
) -> None:
    broker.make_stream(retention="workqueue")
    broker.publish(result_id="r1")
    reason = "stream EVENTS is a work queue, which only its own consumer can read"
    for _ in ("before a worker has run", "and after"):
        for name in ("verify", "rebuild"):
            done = projector(name, "--without-deadlines")
            assert (done.code, done.output) == (78, "")
            assert reason in done.errors
        explained = projector("explain", "r1", "--json")
        assert any(reason in problem for problem in explained.document["problems"])
        run_until_idle(rows)
    assert rows.result_ids() == ["r1"]


@pytest.mark.parametrize("number", ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT", "SIGKILL"])
def test_a_command_that_is_ended_while_it_reads_leaves_no_consumer(
    broker: Broker, rows: Rows, server: NatsServer, number: str, deployment: Broker
) -> None:
    broker.publish_starts(events.start() for _ in range(2000))
    places = ["--database", rows.url, "--nats", server.url]
    command = [PROJECTOR, "verify", *STARTS, "--json", *places]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    # It is held up by its output, which nobody reads yet.
    eventually(lambda: broker.readers("EVENTS"), 10)
    process.send_signal(signal.Signals[number])
    process.communicate(timeout=10)
    assert process.returncode in (-signal.Signals[number], 130)
    names = [*broker.readers("EVENTS"), *broker.readers()]
    if number == "SIGKILL":
        assert all(name.startswith("projector-") for name in names)
        eventually(lambda: not broker.readers("EVENTS") and not broker.readers(), 12)
    else:
        assert names == []
