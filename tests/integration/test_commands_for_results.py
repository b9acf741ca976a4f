"""`rejected retry`, `rebuild`, `verify` and `explain` for results, on real streams and files."""

import json
import subprocess
from typing import Any

import pytest

from tests.conftest import MakeServer, RunUntilIdle
from tests.integration.conftest import Projector
from tests.support import events
from tests.support.broker import RESULTS, Broker
from tests.support.commands import Done
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from tests.support.worker_process import PROJECTOR, clean_environment

EVERYTHING = "SELECT * FROM execution_results ORDER BY result_id"
BOTH: dict[str, Any] = {"results": True}
REFUSE = """
CREATE TRIGGER refuse BEFORE UPDATE ON execution_results WHEN NEW.result_id = 'refused' BEGIN
    SELECT RAISE(ABORT, 'refused');
END
"""


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    """Both streams, manifests and a bucket for output, and an execution of twelve PCs."""
    deployment.make_results_stream()
    deployment.make_output_bucket()
    return deployment


@pytest.fixture
def projected(fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    """Runs r0 to r3, the last one in flight, of an execution with twelve targets; all is acked."""
    rows.insert_execution("execution-1", 12)
    fleet.publish_starts(events.start(result_id=f"r{number}") for number in range(4))
    fleet.publish_results(events.result(result_id=f"r{number}") for number in range(3))
    run_until_idle(rows, **BOTH)
    assert rows.execution("execution-1") == "3/0 running"
    return rows


def counts(done: Done) -> dict[str, int]:
    """Return the counts that are not 0."""
    hidden = ("events", "dry_run")
    return {name: count for name, count in done.document.items() if name not in hidden and count}


def outcomes(done: Done) -> dict[str, str]:
    return {event["result_id"]: event["outcome"] for event in done.document["events"]}


# --- rejected retry -------------------------------------------------------------------------------


def test_a_rejected_result_ends_its_run_and_is_counted_although_the_checkpoint_has_passed_it(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle, projector: Projector
) -> None:
    rows.insert_execution("execution-1", 3)
    fleet.put_output("q/stdout", b"big")
    for name in ("refused", "other"):
        fleet.publish(result_id=name)
    rows.write(REFUSE)
    kept = {"stdout": "", "stdout_object": "q/stdout", "stderr_object": "never"}
    fleet.publish_results(
        [events.result(result_id="refused", stderr="own", **kept), events.result(result_id="other")]
    )
    run_until_idle(rows, **BOTH)
    (rejected,) = projector("rejected", "list", "--json").document["events"]
    assert (rejected["stream"], rejected["stream_sequence"]) == ("RESULTS", 1)
    assert rows.execution("execution-1") == "1/0 running"
    assert projector("rejected", "retry", "--all").code == 1
    explained = projector("explain", "refused", "--json", **BOTH).document
    assert explained["next"].endswith("projector rejected show 1")

    rows.write("DROP TRIGGER refuse")
    done = projector("rejected", "retry", "--all", "--json")
    assert (done.code, counts(done)) == (0, {"written": 1, "objects_missing": 1}), done
    row = rows.run("refused") or {}
    assert (row["stdout"], row["stderr"], row["exit_code"]) == ("big", "own", 0)
    assert rows.execution("execution-1") == "2/0 running"
    assert rows.rejected() == []


def test_a_result_of_a_run_that_has_ended_is_removed_without_a_broker_and_counted_once(
    projected: Rows, projector: Projector
) -> None:
    before = projected.query(EVERYTHING)
    projected.write(
        "INSERT INTO rejected_events (stream, stream_sequence, recorded_at, subject, reason,"
        " rejected_at, payload) VALUES ('RESULTS', 99, '2026-05-20T12:00:00+00:00', 's', 'r', 't',"
        " json_object('result_id', 'r0', 'request_id', 'q', 'pc_id', 'p', 'exit_code', 9,"
        " 'stdout', '', 'stderr', '', 'stdout_object', 'gone',"
        " 'started_at', '2026-05-20T12:00:00Z', 'finished_at', '2026-05-20T12:00:00Z'))"
    )
    done = projector(
        "rejected", "retry", "--all", "--json", PROJECTOR_NATS_URL="nats://127.0.0.1:1"
    )
    assert (done.code, counts(done)) == (0, {"written": 1, "runs_duplicate": 1})
    assert projected.query(EVERYTHING) == before
    assert projected.execution("execution-1") == "3/0 running"


def test_nothing_is_written_without_its_output_while_the_object_store_does_not_answer(
    make_server: MakeServer, rows: Rows, projector: Projector
) -> None:
    without = 'publish: { deny: "$JS.API.STREAM.MSG.GET.OBJ_result_output" }'
    users = (
        f"{{ user: all, password: x }}\n{{ user: b, password: x, permissions: {{ {without} }} }}"
    )
    server = make_server(f"authorization {{ users: [ {users} ] }}").start()
    with Broker(server.login("all")) as broker:
        broker.make_results_stream()
        broker.make_output_bucket()
        broker.put_output("q/stdout", b"big")
        kept = events.result(result_id="away", stdout="", stdout_object="q/stdout")
        broker.publish_results([events.result(result_id="own"), kept])
    rows.write(
        "INSERT INTO rejected_events (stream, stream_sequence, recorded_at, subject, reason,"
        " rejected_at, payload) VALUES ('RESULTS', 2, '2026-05-20T12:00:00+00:00', 's', 'r', 't',"
        " CAST(? AS BLOB))",
        json.dumps(kept),
    )
    for command in (("rejected", "retry", "--all"), ("rebuild", "--projection", "results")):
        done = projector(*command, PROJECTOR_NATS_URL=server.login("b"), **BOTH)
        assert done.code == 75, done
        assert "object store does not answer" in done.output + done.errors
        assert "away" not in rows.result_ids()
        assert len(rows.rejected()) == 1
    done = projector("rejected", "retry", "--all", PROJECTOR_NATS_URL=server.login("all"))
    assert (done.code, (rows.run("away") or {})["stdout"]) == (0, "big")


# --- rebuild --------------------------------------------------------------------------------------


def test_rebuild_counts_a_result_that_was_rejected_and_retry_then_does_not(
    fleet: Broker, rows: Rows, run_until_idle: RunUntilIdle, projector: Projector
) -> None:
    rows.insert_execution("execution-1", 3)
    fleet.publish(result_id="refused")
    rows.write(REFUSE)
    fleet.publish_results(events.result(result_id=name) for name in ("refused", "other"))
    run_until_idle(rows, **BOTH)
    rows.write("DROP TRIGGER refuse")
    rebuilt = projector("rebuild", "--json", **BOTH)
    assert counts(rebuilt)["runs_ended"] == 1
    assert rows.execution("execution-1") == "2/0 running"
    retried = projector("rejected", "retry", "--all", "--json")
    assert counts(retried) == {"written": 1, "runs_duplicate": 1}
    assert (rows.execution("execution-1"), rows.rejected()) == ("2/0 running", [])


def test_rebuild_brings_deleted_rows_back_and_counts_none_of_them_twice(
    projected: Rows, projector: Projector, fleet: Broker
) -> None:
    before = projected.query(EVERYTHING)
    projected.write("DELETE FROM execution_results WHERE result_id IN ('r1', 'r3')")
    expected = {"messages": 7, "runs_new": 2, "runs_duplicate": 2}
    expected |= {"runs_ended": 1, "results_duplicate": 2}
    dry = projector("rebuild", "--dry-run", "--json", **BOTH)
    assert (dry.code, counts(dry)) == (0, expected), dry
    assert len(projected.query(EVERYTHING)) == 2
    done = projector("rebuild", "--json", **BOTH)
    assert (done.code, counts(done)) == (0, expected), done
    assert projected.query(EVERYTHING) == before
    assert projected.execution("execution-1") == "3/0 running"
    assert fleet.has_acked_results()


@pytest.mark.every_engine
def test_rebuild_counts_results_that_no_worker_has_projected_and_fetches_their_output(
    fleet: Broker, rows: Rows, projector: Projector
) -> None:
    rows.insert_execution("execution-1", 3)
    fleet.put_output("q/stdout", b"big")
    fleet.publish(result_id="r0")
    fleet.publish_results(
        [
            events.result(result_id="r0", stdout="", stdout_object="q/stdout"),
            events.result(result_id="unseen", exit_code=1, stderr_object="never"),
        ]
    )
    expected = {"messages": 3, "runs_new": 1, "runs_ended": 1, "runs_ended_unseen": 1}
    assert counts(projector("rebuild", "--dry-run", "--json", **BOTH)) == expected
    done = projector("rebuild", "--json", **BOTH)
    assert counts(done) == {**expected, "objects_missing": 1}
    assert (rows.run("r0") or {})["stdout"] == "big"
    assert rows.execution("execution-1") == "1/1 running"
    again = projector("rebuild", "--json", **BOTH)
    assert counts(again) == {"messages": 3, "runs_duplicate": 1, "results_duplicate": 2}
    assert rows.execution("execution-1") == "1/1 running"


def test_rebuild_counts_the_results_of_a_stream_that_was_recreated(
    projected: Rows, projector: Projector, fleet: Broker
) -> None:
    fleet.delete_stream(RESULTS)
    fleet.make_results_stream()
    fleet.publish_results([events.result(result_id="r3"), events.result(result_id="late")])
    projected.write("UPDATE execution_results SET finished_at = NULL WHERE result_id = 'late'")
    done = projector("rebuild", "--json", **BOTH)
    assert (counts(done)["runs_ended"], counts(done)["runs_ended_unseen"]) == (1, 1)
    assert projected.execution("execution-1") == "5/0 running"


def test_rebuild_and_verify_can_be_narrowed_and_need_each_stream_that_they_read(
    deployment: Broker, projector: Projector
) -> None:
    for command in ("rebuild", "verify"):
        done = projector(command, **BOTH)
        assert (done.code, done.output) == (78, "")
        assert "stream RESULTS does not exist" in done.errors
        assert projector(command, "--projection", "starts", **BOTH).code == 0


# --- verify ---------------------------------------------------------------------------------------


def test_verify_compares_results_and_distinguishes_a_second_one_from_a_row_that_nothing_explains(
    projected: Rows, projector: Projector, fleet: Broker, run_until_idle: RunUntilIdle
) -> None:
    for name in ("differs", "no-job"):
        fleet.publish(result_id=name)
    fleet.publish_results(
        [
            events.result(result_id="r0", exit_code=7, stdout="second"),
            events.result(result_id="away", stdout="", stdout_object="never"),
            events.result(result_id="no-job", manifest_id=None, request_id="q2"),
            events.result(result_id="differs", manifest_id="job-2", request_id="q2"),
        ]
    )
    run_until_idle(projected, **BOTH)
    projected.write("UPDATE execution_results SET stdout = 'fetched' WHERE result_id = 'away'")
    done = projector("verify", "--json", **BOTH)
    assert (done.code, counts(done)) == (0, {"equal": 12, "existing": 1}), done

    for column, value in {
        "exit_code": 3,
        "stdout": "x" * 100,
        "stderr": "x",
        "finished_at": "2026-05-20T12:00:06+00:00",
        "request_id": "x",
    }.items():
        before = (projected.run("r1") or {})[column]
        change = f"UPDATE execution_results SET {column} = ? WHERE result_id = 'r1'"
        projected.write(change, value)
        done = projector("verify", "--json", **BOTH)
        assert (done.code, outcomes(done)) == (1, {"r1": "different"}), column
        (event,) = done.document["events"]
        assert (event["stream"], list(event["columns"])) == ("RESULTS", [column])
        projected.write(change, before)
    text = projector("verify", **BOTH)
    assert (text.code, text.output) == (0, "12 equal, 1 existing\n")


def test_verify_finds_results_that_are_acked_and_in_no_row(
    projected: Rows, projector: Projector, fleet: Broker
) -> None:
    undone = "UPDATE execution_results SET finished_at = NULL, exit_code = NULL WHERE result_id = ?"
    projected.write("DELETE FROM execution_results WHERE result_id = 'r0'")
    projected.write(undone, "r1")
    projected.write("UPDATE execution_results SET reaped = 1 WHERE result_id = 'r2'")
    fleet.publish_results([events.result(result_id="r3"), events.result(result_id="new")])
    done = projector("verify", "--json", "--projection", "results", **BOTH)
    assert (done.code, outcomes(done)) == (1, dict.fromkeys(["r0", "r1", "r2"], "missing"))
    assert counts(done) == {"missing": 3, "pending": 2}


def test_verify_reports_a_run_that_ended_without_a_result_where_it_can(
    projected: Rows, projector: Projector, fleet: Broker, run_until_idle: RunUntilIdle
) -> None:
    end = "UPDATE execution_results SET finished_at = ?, exit_code = 0 WHERE result_id = 'r3'"
    projected.write(end, "2026-05-20T12:00:05+00:00")
    done = projector("verify", "--json", **BOTH)
    assert (done.code, outcomes(done)) == (1, {"r3": "different"})
    (event,) = done.document["events"]
    assert (event["stream"], list(event["columns"])) == ("EVENTS", ["finished_at"])
    for narrower in (("--since", "1h"), ("--projection", "starts")):
        assert projector("verify", *narrower, **BOTH).code == 0
    fleet.delete_message(RESULTS, 2)
    assert projector("verify", **BOTH).code == 0
    # Runs that started before the stream was created may have had their results in its predecessor.
    fleet.delete_stream(RESULTS)
    fleet.make_results_stream()
    assert projector("verify", **BOTH).code == 0


def test_verify_accepts_runs_that_end_after_it_has_read_the_results(
    projected: Rows, server: NatsServer, fleet: Broker, run_until_idle: RunUntilIdle
) -> None:
    fleet.publish_results(events.result(result_id=f"gone-{number}") for number in range(2_000))
    run_until_idle(projected, **BOTH)
    projected.write("DELETE FROM execution_results WHERE result_id LIKE 'gone-%'")
    places = ("--database", projected.url, "--nats", server.url)
    command = [PROJECTOR, "verify", "--json", *places]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=clean_environment()) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        # The results that are missing fill the pipe, so it still has to read the starts.
        fleet.publish_results([events.result(result_id="r3")])
        run_until_idle(projected, **BOTH)
        document = json.loads(line + process.stdout.read())
    assert (projected.run("r3") or {})["exit_code"] == 0
    assert (document["missing"], document["different"]) == (2_000, 0)


def test_verify_accepts_an_older_run_where_it_does_not_read_the_whole_stream(
    projected: Rows, projector: Projector
) -> None:
    projected.write("UPDATE execution_results SET exit_code = 3 WHERE result_id = 'r1'")
    projected.write("UPDATE execution_results SET recorded_at = '2020-01-01T00:00:00+00:00'")
    narrowed = ("verify", "--json", "--projection", "results")
    assert outcomes(projector(*narrowed, **BOTH)) == {"r1": "different"}
    since = projector(*narrowed, "--since", "1h", **BOTH)
    assert (since.code, counts(since)) == (0, {"equal": 2, "existing": 1})


# --- explain --------------------------------------------------------------------------------------


@pytest.mark.every_engine
def test_explain_shows_a_run_through_its_whole_life(
    projected: Rows, projector: Projector, fleet: Broker
) -> None:
    def explain(result_id: str) -> dict[str, Any]:
        return projector("explain", result_id, "--json", **BOTH).document

    fleet.publish_results([events.result(result_id="r0", exit_code=7, stdout="x" * 1000)])
    found = explain("r0")
    assert found["problems"] == []
    assert found["row"]["exit_code"] == 0
    (start,) = found["events"]
    first, second = found["results"]
    assert (start["stream_sequence"], start["version"]) == (1, "1.0.0")
    assert (first["stream_sequence"], first["exit_code"], first["stdout"]) == (1, 0, "output")
    assert (second["exit_code"], len(second["stdout"])) == (7, 200)
    assert found["next"].startswith("nothing: the run ended at 2026-05-20T12:00:05+00:00")
    assert found["counted"] == (
        "as a success in execution execution-1, which is running with 3 successes and 0 failures "
        "of 12 targets"
    )
    assert explain("r3")["counted"] == "not yet: the run has not ended"
    text = projector("explain", "r0", **BOTH).output
    assert "result at stream sequence 4\n" in text
    assert "counted: as a success in execution execution-1" in text

    projected.write("UPDATE executions SET status = 'expired'")
    assert explain("r0")["counted"].startswith("not yet: execution execution-1 is expired")
    projected.write("DELETE FROM executions")
    assert explain("r0")["counted"] == "in no execution: execution-1 has no row"


def test_explain_shows_late_reaped_unprojected_and_rejected_results(
    projected: Rows,
    projector: Projector,
    fleet: Broker,
    run_until_idle: RunUntilIdle,
) -> None:
    def explain(result_id: str) -> dict[str, Any]:
        return projector("explain", result_id, "--json", **BOTH).document

    projected.write("UPDATE execution_results SET expires_at = '2026-01-01T00:00:00+00:00'")
    assert "after the deadline" in explain("r0")["late"]
    reap = "UPDATE execution_results SET reaped = 1, exit_code = -1, finished_at = 'T'"
    projected.write(f"{reap} WHERE result_id IN ('r0', 'r3')")
    reaped = explain("r3")
    assert reaped["next"] == "nothing: the run was reaped after its deadline, at T"
    assert reaped["counted"].startswith("as a failure in execution execution-1")
    assert explain("r0")["next"].endswith("is in no row; projector rebuild writes it")
    fleet.publish_results([events.result(result_id="r3"), events.result(result_id="unseen")])
    for name in ("r3", "unseen"):
        assert explain(name)["next"].startswith("the result is not acked yet")
    fleet.publish_results([events.result(result_id="broken", exit_code=1.5, exec_id=None)])
    run_until_idle(projected, **BOTH)
    broken = explain("broken")
    assert broken["next"].endswith("projector rejected show 1")
    assert broken["results"][0]["problem"].startswith("exit_code")
    fleet.publish_results([events.result(result_id="adhoc", exec_id=None)])
    run_until_idle(projected, **BOTH)
    adhoc = explain("adhoc")
    assert (adhoc["events"], adhoc["counted"]) == ([], "in no execution: the run names none")


def test_explain_finds_a_start_before_the_row_of_its_result_and_a_result_of_any_request(
    fleet: Broker, rows: Rows, projector: Projector
) -> None:
    fleet.publish(result_id="first")
    odd = events.result(result_id="first", request_id="a * b")
    fleet.publish(json.dumps(odd).encode(), subject="results.x")
    for projection in ("results", "starts"):
        assert projector("rebuild", "--projection", projection, **BOTH).code == 0
    assert (rows.run("first") or {})["version"] is None
    found = projector("explain", "first", "--json", **BOTH).document
    assert (len(found["events"]), len(found["results"])) == (1, 1)
    narrowed = projector("explain", "first", "--json", "--projection", "starts", **BOTH).document
    assert (len(narrowed["events"]), narrowed["results"]) == (1, [])
