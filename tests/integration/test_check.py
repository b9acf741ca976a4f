"""`projector check` on databases and brokers that are as they should be, or are not."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import Projector, RunUntilIdle, StartWorker
from tests.support.broker import Broker
from tests.support.commands import Done, run_here
from tests.support.credentials import User, make_certificates
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
    names = ["settings", "schema", "database", "pages"]
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


def test_messages_that_wait_while_no_program_pulls_them_are_a_warning(
    broker: Broker, check: Check, rows: Rows, start_worker: StartWorker
) -> None:
    broker.make_stream()
    broker.make_consumer()
    broker.publish()
    done = check("--json")
    assert (done.code, levels(done)["workers"]) == (0, "warning")
    worker = start_worker(rows)
    worker.until(lambda: rows.count() == 1 and broker.is_acked())
    assert levels(check("--json"))["workers"] == "ok"
    # What check sends to try a permission must not reach the worker as a request.
    assert worker.logged("broker.error") == []


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


@pytest.mark.parametrize(
    "option", ["--token-file", "--password-file", "--creds-file", "--nkey-seed-file"]
)
def test_a_secret_file_that_others_can_read_is_one_warning(
    broker: Broker, rows: Rows, tmp_path: Path, projector: Projector, option: str
) -> None:
    user = User(1)
    texts = {"--creds-file": user.creds("jwt"), "--nkey-seed-file": user.seed}
    secret = tmp_path / "secret"
    secret.write_text(texts.get(option, "s3cret"))
    arguments = (option, secret, *(("--user", "me") if option == "--password-file" else ()))
    text = f"other users may read or change the secret in {secret}\n"
    for mode, warned in [(0o666, True), (0o604, True), (0o602, True), (0o640, False)]:
        secret.chmod(mode)
        check, config = (projector(name, *arguments) for name in ("check", "config"))
        assert (f"warning  settings    {text}" in check.output) is warned
        assert config.errors == (f"Warning: {text}" if warned else "")


def test_the_key_of_a_client_certificate_is_a_secret(tmp_path: Path, projector: Projector) -> None:
    certificates = make_certificates(tmp_path)
    certificate, key = certificates.client, certificates.client_key
    both = tmp_path / "both.pem"
    both.write_text(certificate.read_text() + key.read_text())
    both.chmod(0o644)
    certificate.chmod(0o644)
    key.chmod(0o600)
    separate = projector("config", "--tls-cert-file", certificate, "--tls-key-file", key)
    assert separate.errors == ""
    assert str(both) in projector("config", "--tls-cert-file", both).errors
    key.chmod(0o644)
    separate = projector("config", "--tls-cert-file", certificate, "--tls-key-file", key)
    assert str(key) in separate.errors
    assert str(certificate) not in separate.errors


def test_a_worker_and_the_commands_warn_of_a_variable_that_does_not_exist(
    broker: Broker, rows: Rows, check: Check, projector: Projector, run_until_idle: RunUntilIdle
) -> None:
    broker.make_stream()
    wrong = {"PROJECTOR_BATHC": "s3cret", "PROJECTOR_XYZZY": "s3cret", "PROJECTOR_TOKEN": ""}
    doubts = [
        "the variable PROJECTOR_BATHC does not exist; perhaps PROJECTOR_BATCH was meant",
        "the variable PROJECTOR_XYZZY does not exist",
    ]
    config = projector("config", "--json", **wrong)
    assert (config.code, config.document["doubts"]) == (0, doubts)
    done = check("--json", **wrong)
    assert (done.code, done.document["findings"][0]) == (
        0,
        {"name": "settings", "level": "warning", "text": "; ".join(doubts)},
    )
    worker = run_until_idle(rows, environment=wrong)
    assert [line["doubt"] for line in worker.logged("settings.doubtful", level="warning")] == doubts
    for text in (config.output, done.output, worker.text):
        assert "s3cret" not in text


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
    options = ("--json", "--projection", "starts", "--nats", server.url)
    done = run_here("check", *options, "--database", rows.url)
    assert done.code == 1
    found = {finding["name"]: finding for finding in done.document["findings"]}
    for name in ("schema", "disk", "database"):
        assert found[name]["level"] == "error"
        assert f"Permission denied: '{rows.path}'" in found[name]["text"]
        assert found[name]["text"].startswith("the database ")
    assert found["stream"]["level"] == "ok"
