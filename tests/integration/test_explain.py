"""`projector explain`: runs that are there, that are not yet, and that will never be."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.conftest import StartWorker
from tests.support.broker import Broker
from tests.support.commands import Done, run_projector
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows

Explain = Callable[..., Done]


@pytest.fixture
def explain(rows: Rows, server: NatsServer, tmp_path: Path) -> Explain:
    def run(*arguments: object, **environment: str) -> Done:
        places = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}
        return run_projector("explain", *arguments, cwd=tmp_path, **{**places, **environment})

    return run


@pytest.fixture
def projected(broker: Broker, rows: Rows, start_worker: StartWorker) -> Rows:
    broker.make_stream()
    broker.make_bucket()
    broker.put_manifest("job-1", {"execute": {"timeout": "360s"}})
    broker.publish(result_id="before")
    broker.publish(result_id="r1", pc_id="pc \x1b", subject="events.started.e.pc")
    broker.publish(result_id="r2", manifest_id="nobody")
    broker.publish(b'{"result_id": "broken"}')
    broker.publish(result_id="lost")
    assert start_worker(rows, "--until-idle").exit_code() == 0
    rows.write("DELETE FROM execution_results WHERE result_id = 'lost'")
    return rows


def test_a_run_in_flight_shows_row_event_and_the_sum_of_its_deadline(
    projected: Rows, explain: Explain, broker: Broker
) -> None:
    done = explain("r1", "--json")
    assert done.code == 0, done
    found = done.document
    (event,) = found["events"]
    assert event["stream_sequence"] == 2
    assert event["recorded_at"] == found["row"]["recorded_at"]
    assert "timeout 360 s + slack 180 s" in found["deadline"]
    assert found["deadline"].endswith(f" = {found['row']['expires_at']}")
    assert found["calculation"] == {
        "recorded_at": found["row"]["recorded_at"],
        "timeout_seconds": 360.0,
        "slack_seconds": 180.0,
        "expires_at": found["row"]["expires_at"],
        "problem": None,
    }
    assert found["stored_deadline"] == "matches the current manifest"
    assert "may be reaped in 5" in found["next"]
    text = explain("r1").output
    assert "pc \\x1b" in text
    assert "\x1b" not in text

    broker.put_manifest("job-1", {"execute": {"timeout": "1h"}})
    assert "has changed since" in explain("r1", "--json").document["stored_deadline"]
    none = explain("r2", "--json").document
    assert none["deadline"] == "cannot be computed: manifest unknown"
    assert none["calculation"] == {
        "recorded_at": none["row"]["recorded_at"],
        **dict.fromkeys(["timeout_seconds", "slack_seconds", "expires_at"]),
        "problem": "manifest unknown",
    }
    assert none["next"] == "the run has no deadline: only its result ends it"


def test_a_run_that_ended_tells_how(projected: Rows, explain: Explain) -> None:
    projected.write("UPDATE execution_results SET finished_at = 'T', reaped = 1")
    assert explain("r1", "--json").document["next"] == (
        "nothing: the run was reaped after its deadline, at T"
    )


def test_a_run_that_is_not_there_tells_why(
    projected: Rows, explain: Explain, broker: Broker
) -> None:
    def following(result_id: str) -> str:
        done = explain(result_id, "--json")
        assert done.code == 1
        assert done.document["row"] is None
        return str(done.document["next"])

    assert "holds no event of this run" in following("nothing")
    assert following("broken").endswith("rejected event: projector rejected show 1")
    assert "projector rebuild restores it" in following("lost")
    broker.publish(result_id="new")
    assert following("new") == (
        "the event is not acked yet: a worker projects it when it is delivered"
    )
    projected.write("DELETE FROM rejected_events")
    assert "was discarded" in following("broken")


def test_the_row_is_explained_without_manifests(
    projected: Rows, explain: Explain, broker: Broker
) -> None:
    broker.delete_bucket()
    without = explain("r1", "--json").document
    assert "no such bucket" in without["problems"][0]
    assert without["calculation"]["timeout_seconds"] is None
    assert len(without["events"]) == 1
