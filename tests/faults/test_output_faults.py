"""The object store is slow, away or broken: only the results that need it wait, none is lost."""

import json

import pytest

from tests.conftest import MakeServer, StartWorker
from tests.support import events
from tests.support.broker import Broker
from tests.support.objects import (
    accept_readers,
    describe,
    make_bucket_that_refuses_readers,
    replace_chunks,
    replace_description,
)
from tests.support.proxy import Proxy
from tests.support.rows import Rows
from tests.support.runs import (
    BOTH,
    ended,
    has_ended,
    move_deadlines,
    names_of,
    publish_results,
    publish_starts,
    reaped,
    stored_now,
)
from tests.support.scale import short_and_long

MEBIBYTE = 1024 * 1024
OFTEN = ("--upkeep-every", "0.2s")
USERS = """
authorization {{ users: [
    {{ user: all, password: x }}
    {{ user: fleet, password: x, permissions: {{ publish: {{ deny: [{denied}] }} }} }}
] }}
"""
DENIED = USERS.format(denied='"$JS.API.STREAM.MSG.GET.OBJ_result_output"')
PERMITTED = USERS.format(denied='"none"')


@pytest.fixture
def fleet(deployment: Broker) -> Broker:
    """Both streams and the manifest; the test makes the bucket of the output."""
    deployment.make_results_stream()
    return deployment


def offloaded(result_id: str, key: str, **members: str) -> dict[str, object]:
    return events.result(result_id=result_id, stdout="own", stdout_object=key, **members)


def output_of(rows: Rows, result_id: str) -> str | None:
    """Return the output of a run that has ended."""
    return str((rows.run(result_id) or {})["stdout"]) if has_ended(rows, result_id) else None


# --- slow ---


# The long form takes longer than the worker waits for any part of an object.
@short_and_long("size", short=400_000, long=14 * MEBIBYTE, timeout=300)
def test_nothing_waits_for_output_that_a_slow_link_brings_and_it_is_complete(
    fleet: Broker, rows: Rows, start_worker: StartWorker, size: int
) -> None:
    fleet.make_output_bucket()
    fleet.put_output("large", b"x" * size)
    rows.insert_execution("execution-1", 22)
    with Proxy(int(fleet.url.rpartition(":")[2]), rate=200_000) as proxy:
        worker = start_worker(rows, nats=proxy.url, pulling=True, **BOTH)
        names = names_of(20)
        publish_starts(fleet, ["large", *names])
        fleet.publish_results([offloaded("large", "large")])
        publish_results(fleet, names)
        worker.until(lambda: ended(rows) == len(names))
        assert not has_ended(rows, "large")
        publish_starts(fleet, ["later"])
        worker.until(lambda: rows.count() == len(names) + 2)
        assert not has_ended(rows, "large")
        output = worker.until(lambda: output_of(rows, "large"), size / 100_000 + 10)
        assert output == "x" * size
        worker.until(fleet.has_acked_results)
        assert worker.stop() == 0
    assert rows.execution("execution-1") == "16/5 running"
    assert worker.counters["objects_unavailable"] == worker.counters["redelivered"] == 0


# --- away ---


def test_a_store_that_fails_delays_its_results_alone_which_are_not_given_up(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    make_bucket_that_refuses_readers(fleet)
    fleet.put_output("q/stdout", b"big")
    publish_starts(fleet, ["away", "other", "overdue", "later"])
    worker = start_worker(rows, *OFTEN, fault=("short-delays", 0.2), **BOTH)
    worker.until(lambda: rows.count() == 4)
    before = stored_now()
    fleet.publish_results([offloaded("away", "q/stdout"), events.result(result_id="other")])
    move_deadlines(rows, ["away", "later"], stored_now())
    # Overdue just before the result that waits was stored, so W has come as far as it may.
    move_deadlines(rows, ["overdue"], before)
    worker.until(lambda: has_ended(rows, "other") and reaped(rows) == ["overdue"])
    worker.wait_for_error("output.unavailable", "maximum consumers limit")
    assert not has_ended(rows, "away")
    assert fleet.results_consumer().num_ack_pending == 1
    accept_readers(fleet)
    worker.until(lambda: output_of(rows, "away") == "big", 20)
    worker.until(lambda: reaped(rows) == ["later", "overdue"])
    assert worker.stop() == 0
    counters = worker.counters
    assert counters["naks"] == counters["objects_unavailable"] >= 1
    assert (counters["results_late"], counters["objects_missing"]) == (0, 0)


def test_a_consumer_that_is_deleted_while_the_store_does_not_answer_costs_no_output(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(DENIED).start()
    with Broker(server.login("all")) as fleet:
        fleet.make_stream()
        fleet.make_results_stream()
        fleet.make_output_bucket()
        fleet.put_output("q/stdout", b"big")
        rows.insert_execution("execution-1", 2)
        options = {"nats": server.login("fleet"), "fault": ("short-delays", 0.2), **BOTH}
        worker = start_worker(rows, **options)
        worker.wait_for("worker.ready")
        fleet.publish_results([offloaded("away", "q/stdout")])
        worker.until(lambda: fleet.results_consumer().num_ack_pending == 1)
        fleet.delete_results_consumer()
        worker.wait_for("consumer.recreated")
        # The first delivery cannot be nak'd any more.
        worker.wait_for("output.unavailable")
        server.configure(PERMITTED)
        assert worker.until(lambda: output_of(rows, "away"), 20) == "big"
        worker.until(fleet.has_acked_results)
        assert rows.execution("execution-1") == "1/0 running"
        assert worker.stop() == 0


def test_after_ten_deliveries_without_an_answer_the_output_counts_as_missing(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    make_bucket_that_refuses_readers(fleet)
    fleet.put_output("q/stdout", b"big")
    rows.insert_execution("execution-1", 1)
    fleet.publish_results([offloaded("away", "q/stdout", stderr="errors")])
    worker = start_worker(rows, fault=("short-delays", 0.002), **BOTH)
    worker.wait_for_error("output.missing", "did not answer for too long")
    worker.until(lambda: output_of(rows, "away") == "own" and fleet.has_acked_results())
    assert (rows.run("away") or {})["stderr"] == "errors"
    assert rows.execution("execution-1") == "1/0 completed"
    delivered = fleet.results_consumer().delivered
    assert delivered is not None
    assert delivered.consumer_seq == 10
    assert worker.stop() == 0
    counters = worker.counters
    assert (counters["objects_unavailable"], counters["objects_missing"]) == (10, 1)


# --- not there, or not what it says ---

DESCRIPTIONS = {
    "no JSON": b"not JSON",
    "no size": b'{"nuid": "x", "size": null}',
    "no such size": b'{"nuid": "x", "size": 1e999}',
    "half a byte": b'{"nuid": "x", "size": 0.5}',
    "a list": b"[]",
    "deep": b"[" * 100_000,
}
NUIDS = {
    "no nuid": "",
    "wildcard": "*",
    "spaces": "a b",
    "another line": "a\r\nPING",
    "dots": "a..b",
    "a surrogate": "\ud800",
    "a long nuid": "x" * 6000,
}


def test_output_that_is_not_what_its_description_says_is_replaced_by_the_results_own_text(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    fleet.make_output_bucket()
    keys = [
        "digest",
        "more",
        "less",
        "bytes",
        "chunks",
        "one chunk",
        *DESCRIPTIONS,
        *NUIDS,
        "sound",
    ]
    for key in keys:
        fleet.put_output(key, b"x" * 300_000)
    digest = "SHA-256=47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU="  # of nothing
    describe(fleet, "digest", digest=digest)
    describe(fleet, "more", size=300_001)
    describe(fleet, "less", size=299_999)
    replace_chunks(fleet, "bytes", b"x" * 299_999 + b"y")
    replace_chunks(fleet, "chunks")
    replace_chunks(fleet, "one chunk", b"x" * 131_072)
    for key, raw in DESCRIPTIONS.items():
        replace_description(fleet, key, raw)
    for key, nuid in NUIDS.items():
        describe(fleet, key, nuid=nuid)
    keys.append("k" * 300_000)
    worker = start_worker(rows, pulling=True, **BOTH)
    fleet.publish_results(offloaded(key, key, stderr_object="sound") for key in keys)
    worker.until(lambda: ended(rows) == len(keys))
    found = {key: rows.run(key) or {} for key in keys}
    sound = "x" * 300_000
    assert {key: row["stderr"] for key, row in found.items()} == dict.fromkeys(keys, sound)
    assert found.pop("sound")["stdout"] == sound
    assert {row["stdout"] for row in found.values()} == {"own"}
    worker.until(fleet.has_acked_results)
    assert worker.stop() == 0
    assert worker.counters["objects_missing"] == len(keys) - 1
    problems = json.dumps([line["error"] for line in worker.logged("output.missing")])
    for problem in ("another digest", "instead of 300001", "instead of 299999", "no description"):
        assert problem in problems


def test_output_that_is_overwritten_all_the_time_is_always_a_whole_object(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    fleet.make_output_bucket()
    fleet.put_output("q/stdout", b"0" * 300_000)
    worker = start_worker(rows, pulling=True, **BOTH)
    names = names_of(60)
    for number, name in enumerate(names):
        fleet.put_output("q/stdout", b"%d" % (number % 10) * 300_000)
        fleet.publish_results([offloaded(name, "q/stdout")])
    worker.until(lambda: ended(rows) == len(names), 20)
    outputs = [row["stdout"] for row in rows.query("SELECT stdout FROM execution_results")]
    assert {(len(output), len(set(output))) for output in outputs} == {(300_000, 1)}


# --- in the order of the stream ---


@pytest.mark.parametrize("has_start", [True, False])
@pytest.mark.parametrize("is_live", [True, False])
def test_the_first_result_of_a_run_is_written_also_where_only_its_output_is_fetched(
    fleet: Broker, rows: Rows, start_worker: StartWorker, *, has_start: bool, is_live: bool
) -> None:
    fleet.make_output_bucket()
    fleet.put_output("q/stdout", b"big" * 100_000)
    names = names_of(30)
    rows.insert_execution("execution-1", 1000)
    if has_start:
        publish_starts(fleet, names)
    worker = start_worker(rows, pulling=True, **BOTH) if is_live else None
    for name in names:
        second = events.result(result_id=name, exit_code=7, stdout="second")
        third = offloaded(name, "q/stdout", stderr="third")
        fleet.send(*(("results.q", one) for one in (offloaded(name, "q/stdout"), second, third)))
    worker = worker or start_worker(rows, pulling=True, **BOTH)
    worker.until(lambda: ended(rows) == len(names) and fleet.has_acked_results(), 20)
    found = rows.query(
        "SELECT DISTINCT exit_code, length(stdout) AS n, stderr FROM execution_results"
    )
    assert found == [{"exit_code": 0, "n": 300_000, "stderr": ""}]
    worker.until(lambda: rows.execution("execution-1") == f"{len(names)}/0 running")
    assert worker.stop() == 0
    # Nothing is fetched for a row that the result before has ended.
    assert worker.counters["objects_fetched"] == len(names)


def test_a_bucket_that_is_missing_or_deleted_costs_the_output_alone_until_it_is_made_again(
    fleet: Broker, rows: Rows, start_worker: StartWorker
) -> None:
    worker = start_worker(rows, pulling=True, **BOTH)
    for name, is_there in (("1", False), ("2", True), ("3", False), ("4", True)):
        if is_there:
            fleet.make_output_bucket()
            fleet.put_output("q/stdout", b"big")
        elif name != "1":
            fleet.delete_output_bucket()
        fleet.publish_results([offloaded(name, "q/stdout")])
        found = worker.until(lambda: output_of(rows, name))  # noqa: B023
        assert found == ("big" if is_there else "own")
    worker.until(fleet.has_acked_results)
    assert worker.stop() == 0
    counters = worker.counters
    assert (counters["objects_fetched"], counters["objects_missing"]) == (2, 2)
    assert counters["naks"] == counters["objects_unavailable"] == 0
