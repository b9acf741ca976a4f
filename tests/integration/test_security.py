"""TLS and credentials: the worker verifies the server, logs in, and keeps its secrets."""

import json
import signal
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support.commands import run_here
from tests.support.credentials import Certificates, User, make_certificates
from tests.support.nats_server import server_version
from tests.support.proxy import PlainServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import UNCLOSED, WorkerProcess

SUPPORT = Path(__file__).parents[1] / "support"
PASSWORD = "s3cret @:/?#% ☃"
QUOTED = json.dumps(PASSWORD, ensure_ascii=False)
READY = ("--create-stream", "--until-idle")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def assert_keeps_secret(worker: WorkerProcess, *secrets: str) -> None:
    """Assert that the log holds no secret, neither as it is nor as JSON writes it."""
    for secret in secrets:
        assert secret not in worker.text
        assert json.dumps(secret)[1:-1] not in worker.text


def test_the_worker_connects_only_to_a_server_whose_authority_it_trusts(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(certificates.server_config()).start()
    url = f"tls://127.0.0.1:{server.port}"
    trusting = ("--tls-ca-file", str(certificates.ca))
    trusted = [
        start_worker(rows, *READY, *trusting, nats=url),
        # A certificate file requires TLS, whatever the URL says.
        start_worker(rows, *READY, *trusting, nats=server.url),
    ]
    untrusted = [
        start_worker(rows, *READY, "--tls-ca-file", str(certificates.other_ca), nats=url),
        start_worker(rows, *READY, nats=url),
    ]
    for worker in trusted:
        assert worker.exit_code() == 0
        assert worker.logged("broker.connected")[0]["tls"] is True
        assert worker.logged("worker.started")[0]["settings"]["tls"] is True
    for worker in untrusted:
        error = worker.wait_for("broker.error")
        assert error["level"] == "warning"
        assert "certificate verify failed" in error["error"]
        # The worker tries again, with a new connection.
        worker.wait_for("broker.unavailable")
        assert worker.is_running()
    for worker in untrusted:
        assert worker.stop(within=6) == 0
        assert worker.logged("worker.started") == []


@pytest.mark.skipif(server_version() < (2, 10, 4), reason="needs a server from 2.10.4 on")
def test_a_server_that_begins_with_the_handshake_is_used_with_the_option_that_is_named_without_it(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    users = f"authorization {{ user: me, password: {QUOTED} }}\n"
    server = make_server(certificates.server_config(", handshake_first: true") + users).start()
    password = {"PROJECTOR_PASSWORD": PASSWORD}
    trusting = (*READY, "--user", "me", "--tls-ca-file", str(certificates.ca))
    first = start_worker(rows, *trusting, "--tls-first", nats=server.url, environment=password)
    without = start_worker(rows, *trusting, nats=server.url, environment=password)
    untrusted = start_worker(
        rows, *READY, "--user", "me", "--tls-first", nats=server.url, environment=password
    )
    assert first.exit_code() == 0
    assert first.logged("broker.connected")[0]["tls"] is True
    without.wait_for_error("broker.unavailable", "does not greet", "needs --tls-first")
    untrusted.wait_for_error("broker.unavailable", "certificate verify failed")
    assert without.stop(within=6) == untrusted.stop(within=6) == 0
    lasting = start_worker(
        rows,
        *("--user", "me", "--tls-ca-file", str(certificates.ca), "--tls-first"),
        nats=server.url,
        environment={**password, **UNCLOSED},
        pulling=True,
    )
    server.stop()
    lasting.wait_for("broker.disconnected")
    with PlainServer(port=server.port or 0) as plain:
        lasting.until(lambda: plain.received.startswith(b"\x16\x03"))  # a TLS handshake
        assert b"CONNECT" not in plain.received
    server.start()
    lasting.wait_for("broker.reconnected")
    assert lasting.stop() == 0


@pytest.mark.parametrize("tls", [True, False])
def test_a_server_that_does_not_begin_with_the_handshake_is_reported_with_the_option(
    make_server: MakeServer, certificates: Certificates, rows: Rows, tls: bool
) -> None:
    server = make_server(certificates.server_config() if tls else "").start()
    places = ("--database", rows.url, "--nats", server.url, "--tls-ca-file", certificates.ca)
    done = run_here("status", "--json", *places, PROJECTOR_TLS_FIRST="1")
    assert done.code == 75
    assert "the TLS handshake that --tls-first begins with failed" in done.document["problems"][0]


def test_a_server_that_requires_a_client_certificate_gets_it(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(certificates.server_config(verify=True)).start()
    certificate, key = certificates.client, certificates.client_key
    both = rows.path.with_name("both.pem")
    both.write_text(certificate.read_text() + key.read_text())
    separate = ("--tls-cert-file", str(certificate), "--tls-key-file", str(key))
    options = [separate, ("--tls-cert-file", str(both)), ()]
    trusting = (*READY, "--tls-ca-file", str(certificates.ca))
    url = f"tls://127.0.0.1:{server.port}"
    *accepted, refused = [start_worker(rows, *trusting, *files, nats=url) for files in options]
    assert [worker.exit_code() for worker in accepted] == [0, 0]
    assert refused.wait_for("broker.error")["level"] == "warning"
    assert refused.stop(within=6) == 0
    without_key = start_worker(rows, *trusting, *separate[:2], nats=url)
    assert without_key.exit_code() == 64
    assert "with its unencrypted key in it or in --tls-key-file" in without_key.text


@pytest.mark.parametrize("more", [b"", b',"tls_available":true'], ids=["none", "optional"])
def test_a_server_that_does_not_require_tls_gets_no_credentials_and_is_exit_78(
    rows: Rows, start_worker: StartWorker, more: bytes
) -> None:
    with PlainServer(more=more) as plain:
        host = f"127.0.0.1:{plain.port}"
        seed = User(1).seed
        workers = [
            start_worker(rows, nats=f"tls://me:{quote(PASSWORD, safe='')}@{host}"),
            start_worker(rows, nats=f"tls://{host}", environment={"PROJECTOR_TOKEN": PASSWORD}),
            start_worker(rows, nats=f"tls://{host}", environment={"PROJECTOR_NKEY_SEED": seed}),
        ]
        for worker in workers:
            assert worker.exit_code() == 78
            (failed,) = worker.logged("worker.failed")
            assert "TLS is required, but the server does not offer it" in failed["error"]
            assert_keeps_secret(worker, PASSWORD, seed)
        assert plain.clients >= len(workers)
        assert b"CONNECT" not in plain.received
        assert b"s3cret" not in plain.received


def test_a_server_that_stops_offering_tls_gets_no_credentials_at_a_reconnect(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    users = f"authorization {{ user: me, password: {QUOTED} }}\n"
    server = make_server(certificates.server_config() + users).start()
    worker = start_worker(
        rows,
        *("--create-stream", "--user", "me", "--tls-ca-file", str(certificates.ca)),
        nats=f"tls://127.0.0.1:{server.port}",
        environment={"PROJECTOR_PASSWORD": PASSWORD, **UNCLOSED},
        pulling=True,
    )
    server.stop()
    worker.wait_for("broker.disconnected")
    with PlainServer(port=server.port or 0) as plain:
        worker.until(lambda: plain.clients > 0)
        worker.wait_for_error(
            "broker.error", "TlsNotOffered: TLS is required, but the server does not offer it"
        )
        assert worker.stop(within=6) == 0
        assert b"CONNECT" not in plain.received
    assert_keeps_secret(worker, PASSWORD)
    assert worker.logged("broker.disconnected")
    assert all(line["logger"] != "asyncio" for line in worker.lines), worker.text


def test_every_way_to_pass_credentials_works_and_no_secret_is_logged(
    make_server: MakeServer, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    user, operated = User(1), User(7)
    accounts = (
        "accounts { FLEET { jetstream: enabled, users: [\n"
        f"{{ user: me, password: {QUOTED} }}\n"
        f"{{ nkey: {user.public} }}\n] }} }}\n"
    )
    jwt = (SUPPORT / "user.jwt").read_text().strip()
    creds = operated.creds(jwt)
    by_account = make_server(accounts).start()
    by_token = make_server(f"authorization {{ token: {QUOTED} }}").start()
    by_operator = make_server((SUPPORT / "operator.conf").read_text()).start()
    secrets = {"secret": PASSWORD, "seed": user.seed, "creds": creds}
    for name, text in secrets.items():
        (tmp_path / name).write_text(text + "\n")
    secret_file, seed_file, creds_file = (str(tmp_path / name) for name in secrets)
    escaped = quote(PASSWORD, safe="")

    def start(nats: str, *options: str, **variables: str) -> WorkerProcess:
        environment = {f"PROJECTOR_{name.upper()}": value for name, value in variables.items()}
        return start_worker(
            rows, *READY, *options, "--log-level", "debug", nats=nats, environment=environment
        )

    account = f"127.0.0.1:{by_account.port}"
    ways = {
        "password file": start(account, "--user", "me", "--password-file", secret_file),
        "password variable": start(account, user="me", password=PASSWORD),
        "password in URL": start(by_account.login("me", escaped)),
        "nkey file": start(account, "--nkey-seed-file", seed_file),
        "nkey variable": start(account, nkey_seed=user.seed),
        "token file": start(by_token.url, "--token-file", secret_file),
        "token variable": start(by_token.url, token=PASSWORD),
        "token in URL": start(f"nats://{escaped}@127.0.0.1:{by_token.port}"),
        "creds file": start(by_operator.url, "--creds-file", creds_file),
        "creds variable": start(by_operator.url, creds=creds),
    }
    for way, worker in ways.items():
        assert worker.exit_code() == 0, (way, worker.text)
        assert worker.logged("worker.started"), way
        assert_keeps_secret(worker, PASSWORD, escaped, user.seed, operated.seed, jwt)


def test_wrong_credentials_are_logged_and_tried_again_until_the_worker_is_stopped(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server('authorization { user: me, password: "right" }').start()
    wrong_seed = User(1).seed
    workers = [
        start_worker(rows, nats=server.url),
        start_worker(rows, nats=server.login("me", "wr0ng")),
        start_worker(rows, nats=server.url, environment={"PROJECTOR_TOKEN": "wr0ng"}),
        start_worker(rows, nats=server.url, environment={"PROJECTOR_NKEY_SEED": wrong_seed}),
    ]
    for worker in workers:
        error = worker.wait_for_error("broker.error", "authorization violation")
        assert error["level"] == "warning"
    attempts = 2 * len(workers)
    eventually(lambda: server.log.count("authentication error") >= attempts, 8, lambda: server.log)
    for worker in workers:
        worker.send(signal.SIGTERM)
    for worker in workers:
        assert worker.exit_code(within=6) == 0
        assert worker.logged("worker.started") == []
        assert_keeps_secret(worker, "wr0ng", wrong_seed)
