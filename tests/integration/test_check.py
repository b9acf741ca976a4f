"""`projector check` on databases and brokers that are as they should be, or are not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import Projector, RunUntilIdle
from tests.support.broker import Broker
from tests.support.commands import Done, run_here
from tests.support.forbidden import forbid
from tests.support.nats_server import NatsServer
from tests.support.rows import Rows
from worker.cli import context as opening

Check = Callable[..., Done]


@pytest.fixture
def check(projector: Projector) -> Check:
    return partial(projector, "check")


def levels(done: Done) -> dict[str, str]:
    return {finding["name"]: finding["level"] for finding in done.document["findings"]}


def test_everything_is_ok_before_the_first_worker_has_run_and_nothing_is_created(
    broker: Broker, check: Check
) -> None:
    broker.make_stream()
    broker.make_bucket()
    done = check("--thorough", "--json")
    assert done.code == 0, done
    found = levels(done)
    found.pop("disk")  # the one of the tests may be volatile, or nearly full
    names = ["schema", "database", "pages"]
    names += ["broker", "permissions", "stream", "consumer", "workers", "manifests"]
    assert found == dict.fromkeys(names, "ok")
    assert not broker.has_consumer()
    assert done.errors == ""


def test_each_problem_on_the_broker_is_reported_with_its_fix(broker: Broker, check: Check) -> None:
    broker.make_stream()
    broker.make_consumer(ack_wait=7.0)
    done = check("--nagios")
    assert done.code == 1
    first, *others = done.output.splitlines()
    assert first.startswith("PROJECTOR WARNING: ")
    assert "ack_wait is 7.0, expected 30.0" in first
    assert "manifests: runs will have no deadlines: " in first
    assert any(line.startswith("ok       permissions") for line in others)
    assert check().code == 0

    broker.delete_consumer()
    broker.make_consumer(filter_subject="events.other.>")
    done = check("--json")
    assert (done.code, levels(done)["consumer"]) == (1, "error")
    assert check("--nagios").output.startswith("PROJECTOR CRITICAL: consumer: ")

    broker.delete_stream()
    done = check("--json")
    assert (done.code, levels(done)["stream"]) == (1, "error")
    assert levels(check("--json", "--create-stream"))["stream"] == "ok"


def test_a_database_that_is_missing_locked_or_corrupt_is_an_error(
    broker: Broker, check: Check, rows: Rows, tmp_path: Path
) -> None:
    broker.make_stream()
    missing = {"PROJECTOR_DATABASE": f"sqlite:///{tmp_path}/none.db"}
    done = check(**missing)
    assert done.code == 1
    assert "error    schema      2 migrations are not applied" in done.output
    assert "projector migrate" in done.output
    assert levels(check("--json", "--migrate", **missing))["schema"] == "ok"
    assert not (tmp_path / "none.db").exists()

    with rows.locked():
        done = check("--json", "--busy-timeout", "50ms", "--retry-for", "100ms")
        assert levels(done)["database"] == "error"

    rows.path.write_bytes(rows.path.read_bytes()[:8192] + b"x" * 20_000)
    done = check("--thorough", "--json")
    assert done.code == 1
    assert "error" in (levels(done)["pages"], levels(done)["schema"])


def test_a_database_that_a_newer_version_migrated_is_a_warning_with_the_migrations(
    broker: Broker, check: Check, rows: Rows, projector: Projector, run_until_idle: RunUntilIdle
) -> None:
    broker.make_stream()
    newer = ["20990101_01_later", "20990101_02_latest"]
    for name in newer:
        rows.write(
            "INSERT INTO _yoyo_migration (migration_hash, migration_id) VALUES (?, ?)", name, name
        )
    done = check("--json")
    (finding,) = [one for one in done.document["findings"] if one["name"] == "schema"]
    assert (done.code, finding["level"]) == (0, "warning")
    assert f"a newer version applied {', '.join(newer)}" in finding["text"]
    assert f"unknown  {newer[1]}\n" in projector("migrate", "--list").output
    (warned,) = run_until_idle(rows).logged("database.newer")
    assert (warned["level"], warned["migrations"]) == ("warning", newer)


def test_a_folder_without_permission_is_an_error_that_names_the_file(
    broker: Broker, rows: Rows, server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.make_stream()
    monkeypatch.setattr(opening, "set_up_logging", lambda *_: None)
    forbid(rows.path.parent, monkeypatch)
    done = run_here("check", "--json", "--database", rows.url, "--nats", server.url)
    assert done.code == 1
    found = {finding["name"]: finding for finding in done.document["findings"]}
    for name in ("schema", "disk", "database"):
        assert found[name]["level"] == "error"
        assert f"Permission denied: '{rows.path}'" in found[name]["text"]
        assert found[name]["text"].startswith("the database ")
    assert found["stream"]["level"] == "ok"
