"""`projector verify` and `rebuild`: the table compared with the stream, and filled from it."""

import os
import pty
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.waiting import eventually

Projector = Callable[..., Done]


@pytest.fixture
def projector(rows: Rows, server: NatsServer, tmp_path: Path) -> Projector:
    def run(*arguments: object, **environment: str) -> Done:
        places = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}
        return run_projector(*arguments, cwd=tmp_path, **{**places, **environment})

    return run


@pytest.fixture
def projected(broker: Broker, rows: Rows, start_worker: StartWorker) -> Rows:
    """Runs r0 to r9, one of them with two events, and a rejected event."""
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "20s"}})
    broker.publish_starts(events.start(result_id=f"r{number}") for number in range(10))
    broker.publish(result_id="r0", pc_id="again")
    broker.publish(b"no start \x1b")
    assert start_worker(rows, "--until-idle").exit_code() == 0
    return rows


def counts(done: Done) -> dict[str, int]:
    """Return what is not 0."""
    return {name: count for name, count in done.document.items() if name != "events" and count}


def outcomes(done: Done) -> dict[str, str]:
    return {event["result_id"]: event["outcome"] for event in done.document["events"]}


def test_a_table_that_agrees_is_told_so_beside_what_is_not_settled_yet(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    broker.publish()
    before, consumer = projected.path.read_bytes(), broker.consumer()
    done = projector("verify", "--json")
    assert done.code == 0, done
    assert counts(done) == {"equal": 10, "rejected": 1, "existing": 1, "ack_pending": 1}
    assert projector("verify").output == "10 equal, 1 rejected, 1 ack pending, 1 existing\n"
    assert projected.path.read_bytes() == before
    now = broker.consumer()
    assert (now.created, now.num_pending) == (consumer.created, consumer.num_pending)
    eventually(lambda: broker.stream_info().state.consumer_count == 1, 5)


def test_what_is_wrong_is_told_apart_from_what_has_changed_since(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    projected.write("DELETE FROM execution_results WHERE result_id = 'r1'")
    projected.write("UPDATE execution_results SET pc_id = 'x\x1b' WHERE result_id = 'r2'")
    projected.write(
        "UPDATE execution_results SET expires_at = replace(expires_at, 'T', ' ')"
        " WHERE result_id = 'r3'"
    )
    projected.write("UPDATE execution_results SET expires_at = NULL WHERE result_id = 'r4'")
    projected.write(
        "UPDATE execution_results SET finished_at = 't', exit_code = 7 WHERE result_id = 'r5'"
    )
    done = projector("verify", "--json")
    assert done.code == 1
    assert outcomes(done) == {"r1": "missing", "r2": "different", "r3": "different"}
    assert counts(done)["equal"] == 6
    assert counts(done)["deadline_missing"] == 1
    columns = {event["result_id"]: event["columns"] for event in done.document["events"]}
    assert columns["r2"] == {"pc_id": ["pc-1", "x\x1b"]}
    text = projector("verify").output
    assert "pc_id: expected pc-1, found x\\x1b" in text

    # A deadline of a timeout that is no more is no fault of the row's.
    broker.put_manifest("job-1", {"execute": {"timeout": "1h"}})
    assert counts(projector("verify", "--json"))["deadline_changed"] == 6
    assert outcomes(projector("verify", "--json")) == outcomes(done)
    assert counts(projector("verify", "--json", "--without-deadlines"))["equal"] == 8


def test_a_deadline_that_the_manifest_in_force_cannot_have_made_is_wrong(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    projected.write(
        "UPDATE execution_results SET expires_at = '2999-01-01T00:00:00+00:00'"
        " WHERE result_id = 'r1'"
    )
    assert outcomes(projector("verify", "--json")) == {"r1": "different"}


def test_rebuild_brings_back_what_is_missing_and_changes_nothing_else(
    broker: Broker, projected: Rows, projector: Projector
) -> None:
    everything = projected.query("SELECT * FROM execution_results ORDER BY result_id")
    projected.write("DELETE FROM execution_results WHERE result_id IN ('r1', 'r2')")
    projected.write("DELETE FROM rejected_events")
    consumer = broker.consumer()
    before = projected.path.read_bytes()
    told = {"messages": 12, "runs_new": 2, "runs_there": 9, "rejected_new": 1, "rejected_there": 0}
    dry = projector("rebuild", "--dry-run", "--json")
    assert (dry.code, dry.document) == (0, {**told, "dry_run": True})
    assert projected.path.read_bytes() == before
    done = projector("rebuild", "--json")
    assert (done.code, done.document) == (0, {**told, "dry_run": False})
    assert projected.query("SELECT * FROM execution_results ORDER BY result_id") == everything
    assert len(projected.rejected()) == 1
    assert broker.consumer().created == consumer.created
    assert projector("rebuild").output == "12 messages, 11 runs there, 1 rejected there\n"
    assert projector("rebuild", "--since", "1h", "--json").document["messages"] == 12
    late = projector("rebuild", "--since", "2999-01-01T00:00:00Z", "--json")
    assert (late.code, late.document["messages"]) == (0, 0)
    assert projector("rebuild", "--since", "yesterday").code == 64


def test_a_run_that_comes_twice_far_apart_is_new_once(
    broker: Broker, rows: Rows, projector: Projector
) -> None:
    broker.make_stream()
    starts = [events.start(result_id=f"r{number}") for number in range(301)]
    broker.publish_starts([*starts, starts[0]])
    told = {"messages": 302, "runs_new": 301, "runs_there": 1}
    for arguments in (["--dry-run"], []):
        done = projector("rebuild", "--without-deadlines", "--json", *arguments)
        assert counts(done) == {**told, **({"dry_run": True} if arguments else {})}
    assert rows.count() == 301


def test_a_progress_bar_on_a_terminal_stays_out_of_the_answer(
    projected: Rows, server: NatsServer
) -> None:
    projected.write("DELETE FROM execution_results WHERE result_id = 'r1'")
    command = Path(sys.executable).with_name("projector")
    watching, terminal = pty.openpty()
    try:
        done = subprocess.run(
            [command, "verify", "--database", projected.url, "--nats", server.url],
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
        b"missing    sequence 2, result_id r1",
        b"9 equal, 1 rejected, 1 existing, 1 missing",
    ]
    assert b"verifying" in shown
    assert b"missing" not in shown


def test_both_work_beside_a_worker_that_is_busy(
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


def test_what_is_not_there_ends_it_with_a_telling_code(
    broker: Broker, rows: Rows, projector: Projector, tmp_path: Path
) -> None:
    done = projector("verify")
    assert done.code == 78
    assert "there is no stream EVENTS" in done.errors
    broker.make_stream()
    done = projector("rebuild")
    assert done.code == 78
    assert "--without-deadlines" in done.errors
    assert projector("rebuild", "--without-deadlines").output == "0 messages\n"
    assert projector("verify", "--database", f"sqlite:///{tmp_path}/none.db").code == 78
