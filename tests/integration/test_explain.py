"""`projector explain` for runs with a row, without one yet, and without one for ever."""

from functools import partial
from typing import Any

import pytest

from tests.integration.conftest import Projector, RunUntilIdle
from tests.support import events
from tests.support.broker import Broker
from tests.support.faulty_worker import faulty
from tests.support.rows import Rows


@pytest.fixture
def projected(deployment: Broker, rows: Rows, run_until_idle: RunUntilIdle) -> Rows:
    deployment.publish(result_id="before")
    deployment.publish(result_id="r1", pc_id="pc \x1b", subject="events.started.e.pc")
    deployment.publish(result_id="r2", manifest_id="unknown")
    deployment.publish(b'{"result_id": "broken"}')
    deployment.publish(result_id="lost")
    run_until_idle(rows)
    rows.write("DELETE FROM execution_results WHERE result_id = 'lost'")
    return rows


@pytest.mark.usefixtures("projected")
def test_explain_shows_the_row_the_event_and_the_calculation_of_the_deadline(
    projector: Projector, broker: Broker
) -> None:
    done = projector("explain", "r1", "--json")
    assert done.code == 0, done
    found = done.document
    row, calculation = found["row"], found["calculation"]
    (event,) = found["events"]
    assert (event["stream_sequence"], event["recorded_at"]) == (2, row["recorded_at"])
    assert "timeout 360 s + slack 180 s" in found["deadline"]
    assert found["deadline"].endswith(f" = {row['expires_at']}")
    same = ("recorded_at", "expires_at")
    assert {name: calculation.pop(name) for name in same} == {name: row[name] for name in same}
    assert calculation == {"timeout_seconds": 360.0, "slack_seconds": 180.0, "problem": None}
    assert found["stored_deadline"] == "matches the current manifest"
    assert "may be reaped in 5" in found["next"]
    text = projector("explain", "r1").output
    assert "pc \\x1b" in text
    assert "\x1b" not in text

    broker.put_manifest("job-1", {"execute": {"timeout": "1h"}})
    assert (
        "differs from what the current manifest gives"
        in projector("explain", "r1", "--json").document["stored_deadline"]
    )
    none = projector("explain", "r2", "--json").document
    assert none["deadline"] == "cannot be computed: manifest unknown"
    assert none["calculation"] == {
        "recorded_at": none["row"]["recorded_at"],
        **dict.fromkeys(["timeout_seconds", "slack_seconds", "expires_at"]),
        "problem": "manifest unknown",
    }
    assert none["next"] == "the run has no deadline: it may be reaped a day after it was stored"


@pytest.mark.usefixtures("projected")
def test_a_deadline_passes_by_the_brokers_clock_or_the_text_says_otherwise(
    projector: Projector,
) -> None:
    environment, command = faulty("wrong-clock", 3600)
    ask = partial(projector, command=command, **environment)
    assert "may be reaped in 5" in ask("explain", "r1", "--json").document["next"]
    assert ask("status", "--json").document["database"]["overdue"] == 0
    alone = partial(ask, PROJECTOR_NATS_URL="nats://127.0.0.1:1")
    assert "ago by this machine's clock" in alone("explain", "r1", "--json").document["next"]
    assert alone("status", "--json").document["database"]["overdue"] > 0


def test_explain_shows_how_a_run_ended(projected: Rows, projector: Projector) -> None:
    projected.write("UPDATE execution_results SET finished_at = 'T', reaped = 1")
    assert projector("explain", "r1", "--json").document["next"] == (
        "nothing: the run was reaped after its deadline, at T"
    )
    projected.write("UPDATE execution_results SET finished_at = NULL, reaped = 0")
    projected.write("UPDATE execution_results SET expires_at = '2020-01-01T00:00:00+00:00'")
    assert "ago" in projector("explain", "r1", "--json").document["next"]


def test_explain_shows_why_a_run_has_no_row(
    projected: Rows, projector: Projector, broker: Broker
) -> None:
    def following(result_id: str) -> str:
        done = projector("explain", result_id, "--json")
        assert (done.code, done.document["row"]) == (1, None)
        return str(done.document["next"])

    assert "holds no event of this run" in following("nothing")
    assert following("broken").endswith("projector rejected show 1")
    assert "projector rebuild restores it" in following("lost")
    broker.publish(result_id="new")
    assert following("new").startswith("the event is not acked yet")
    projected.write("DELETE FROM rejected_events")
    assert "was discarded" in following("broken")


@pytest.mark.usefixtures("projected")
def test_explain_works_without_manifests(projector: Projector, broker: Broker) -> None:
    broker.delete_bucket()
    without = projector("explain", "r1", "--json").document
    assert "does not exist" in without["problems"][0]
    assert without["calculation"]["timeout_seconds"] is None
    assert len(without["events"]) == 1


def test_a_run_without_a_row_is_searched_for_among_the_starts_of_its_pc_or_execution(
    rows: Rows, deployment: Broker, projector: Projector
) -> None:
    deployment.make_results_stream()
    for number in range(6):
        name: dict[str, Any] = {"result_id": f"run-{number}", "request_id": f"q-{number % 2}"}
        deployment.publish(**name, exec_id=f"e-{number % 2}", pc_id=f"pc-{number}")
        deployment.publish_results([events.result(**name, exec_id=f"e-{number % 2}")])

    def searched(*arguments: str, messages: int = 1) -> list[str]:
        done = projector("explain", *arguments, "--json", results=True)
        assert done.code == 1
        assert len(done.document["events"]) == len(done.document["results"]) == messages
        return [place.partition(" since")[0] for place in done.document["searched"]]

    rejected = "the newest 10000 rejected events at most"
    assert searched("run-3") == [
        *("EVENTS, events.started.>: 6 messages", "RESULTS, results.q-1: 3 messages", rejected)
    ]
    assert searched("run-3", "--pc", "pc-3")[0] == "EVENTS, events.started.*.pc-3: 1 messages"
    assert searched("run-3", "--execution", "e-1")[0] == "EVENTS, events.started.e-1.>: 3 messages"
    both = searched("run-3", "--execution", "e-1", "--pc", "pc-3")
    assert both[0] == "EVENTS, events.started.e-1.pc-3: 1 messages"
    # An unknown run of a known execution: its result would be among those of its requests.
    assert searched("unknown", "--execution", "e-1", messages=0) == [
        *("EVENTS, events.started.e-1.>: 3 messages", "RESULTS, results.q-1: 3 messages", rejected)
    ]
    assert searched("unknown", "--pc", "none", messages=0)[1] == (
        "no results: the starts that were read name 0 requests"
    )
    text = projector("explain", "run-3", "--pc", "pc-3", results=True).output
    assert "searched: EVENTS, events.started.*.pc-3: 1 messages since 20" in text
    assert projector("explain", "run-3", "--pc", "a b").code == 64


@pytest.mark.usefixtures("projected")
def test_explain_takes_the_short_id_of_a_run_with_a_row(rows: Rows, projector: Projector) -> None:
    rows.write("UPDATE execution_results SET result_id = '0d9c6e6e-7e0f' WHERE result_id = 'r1'")
    done = projector("explain", "0d9c6e6e", "--json")
    assert (done.code, done.document["result_id"]) == (0, "0d9c6e6e-7e0f")
    rows.write("UPDATE execution_results SET result_id = '0d9c6e6e-7f' WHERE result_id = 'r2'")
    ambiguous = projector("explain", "0d9c6e6e")
    assert ambiguous.code == 64
    assert "0d9c6e6e-7e0f, 0d9c6e6e-7f" in ambiguous.errors
