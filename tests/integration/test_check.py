"""`projector check` on files and brokers that are as they should be, or are not."""

from collections.abc import Callable
from pathlib import Path

import pytest

from repo.sqlite.schema import known_migrations
from tests.support.broker import Broker
from tests.support.commands import Done, run_here, run_projector
from tests.support.forbidden import forbid
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from worker.cli import context as opening

Check = Callable[..., Done]


@pytest.fixture
def check(rows: Rows, server: NatsServer, tmp_path: Path) -> Check:
    def run(*arguments: object, **environment: str) -> Done:
        places = {"PROJECTOR_DATABASE": rows.url, "PROJECTOR_NATS_URL": server.url}
        return run_projector("check", *arguments, cwd=tmp_path, **{**places, **environment})

    return run


def levels(done: Done) -> dict[str, str]:
    return {finding["name"]: finding["level"] for finding in done.document["findings"]}


def test_what_is_set_up_is_ok_before_a_worker_has_ever_run_and_nothing_is_made(
    broker: Broker, check: Check
) -> None:
    broker.make_stream()
    broker.make_bucket()
    done = check("--thorough", "--json")
    assert done.code == 0, done
    found = levels(done)
    found.pop("disk")  # the one of the tests may be volatile, or nearly full
    assert found == dict.fromkeys(
        ["schema", "database", "pages", "broker", "rights", "stream", "consumer", "manifests"], "ok"
    )
    assert not broker.has_consumer()
    assert done.errors == ""


def test_each_thing_amiss_is_told_with_what_to_do(broker: Broker, check: Check) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=7.0)
    done = check("--nagios")
    assert done.code == 1
    first, *others = done.output.splitlines()
    assert first.startswith("PROJECTOR WARNING: ")
    assert "ack_wait is 7.0, expected 30.0" in first
    assert "there is no such bucket" in first
    assert any(line.startswith("ok       rights") for line in others)
    assert check().code == 0

    broker.delete_consumer()
    broker.make_consumer(filter_subject="events.other.>")
    done = check("--json")
    assert (done.code, levels(done)["consumer"]) == (1, "problem")
    assert check("--nagios").output.startswith("PROJECTOR CRITICAL: consumer: ")

    broker.delete_stream()
    done = check("--json")
    assert (done.code, levels(done)["stream"]) == (1, "problem")
    assert levels(check("--json", "--create-stream"))["stream"] == "ok"


def test_a_database_that_is_missing_damaged_or_locked_is_a_problem(
    broker: Broker, check: Check, rows: Rows, tmp_path: Path
) -> None:
    broker.make_stream()
    missing = {"PROJECTOR_DATABASE": f"sqlite:///{tmp_path}/none.db"}
    done = check(**missing)
    assert done.code == 1
    assert f"problem  schema     {len(known_migrations())} migrations are not" in done.output
    assert "projector migrate" in done.output
    assert levels(check("--json", "--migrate", **missing))["schema"] == "ok"
    assert not (tmp_path / "none.db").exists()

    with rows.locked():
        done = check("--json", "--busy-timeout", "50ms", "--retry-for", "100ms")
        assert levels(done)["database"] == "problem"

    rows.path.write_bytes(rows.path.read_bytes()[:8192] + b"x" * 20_000)
    done = check("--thorough", "--json")
    assert done.code == 1
    assert "problem" in (levels(done)["pages"], levels(done)["schema"])


def test_a_folder_that_may_not_be_looked_into_is_a_problem_told_plainly(
    broker: Broker, rows: Rows, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.make_stream()
    monkeypatch.setattr(opening, "set_up_logging", lambda *_: None)
    forbid(rows.path.parent, monkeypatch)
    done = run_here("check", "--json", "--database", rows.url, "--nats", server.url)
    assert done.code == 1
    found = {finding["name"]: finding for finding in done.document["findings"]}
    for name in ("schema", "disk", "database"):
        assert found[name]["level"] == "problem"
        assert f"Permission denied: '{rows.path}'" in found[name]["text"]
        assert found[name]["text"].startswith("the database ")
    assert found["stream"]["level"] == "ok"


def test_wrong_options_are_unknown_to_a_monitoring_system(rows: Rows, check: Check) -> None:
    wrong = check("--nagios", "--token-file", rows.path, PROJECTOR_TOKEN="s3cret")
    assert (wrong.code, wrong.output.split(":")[0]) == (3, "PROJECTOR UNKNOWN")
    assert "s3cret" not in wrong.output + wrong.errors
