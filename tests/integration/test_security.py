"""TLS and credentials: who the worker trusts, who it says it is, and that it tells nobody else."""

import json
import signal
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support.broker import Broker
from tests.support.certificates import Certificates, make_certificates
from tests.support.identities import Operator, user_identity
from tests.support.plain_server import PlainServer
from tests.support.rows import Rows
from tests.support.waiting import eventually
from tests.support.worker_process import WorkerProcess

PASSWORD = "s3cret @:/?#% ☃"
QUOTED = json.dumps(PASSWORD, ensure_ascii=False)
READY = ("--create-stream", "--until-idle")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def test_tls_with_a_trusted_authority_works_and_an_untrusted_one_is_told_of(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(certificates.server_config()).start()
    url = f"tls://127.0.0.1:{server.port}"
    trusting = start_worker(rows, *READY, "--tls-ca-file", str(certificates.ca), nats=url)
    # Files of certificates ask for TLS by themselves, whatever the URL says.
    implied = start_worker(rows, *READY, "--tls-ca-file", str(certificates.ca), nats=server.url)
    strangers = [
        start_worker(rows, *READY, "--tls-ca-file", str(certificates.other_ca), nats=url),
        start_worker(rows, *READY, nats=url),
    ]

    for worker in (trusting, implied):
        assert worker.exit_code() == 0
        assert worker.logged("broker.connected")[0]["tls"] is True
    for worker in strangers:
        told = worker.wait_for("broker.error")
        assert told["level"] == "warning"
        assert "certificate verify failed" in told["error"]
        # It tries again with a connection of its own after the first was given up.
        worker.wait_for("broker.unavailable")
        assert worker.is_running()
    for worker in strangers:
        assert worker.stop(within=6) == 0
        assert worker.logged("worker.started") == []


def test_a_server_that_asks_for_a_client_certificate_gets_it(
    make_server: MakeServer,
    certificates: Certificates,
    tmp_path: Path,
    rows: Rows,
    start_worker: StartWorker,
) -> None:
    server = make_server(certificates.server_config(verify=True)).start()
    url = f"tls://127.0.0.1:{server.port}"
    trust = (*READY, "--tls-ca-file", str(certificates.ca))
    both = tmp_path / "both.pem"
    both.write_text(certificates.client.read_text() + certificates.client_key.read_text())
    files = ("--tls-cert-file", str(certificates.client))
    with_key = start_worker(
        rows, *trust, *files, "--tls-key-file", str(certificates.client_key), nats=url
    )
    in_one = start_worker(rows, *trust, "--tls-cert-file", str(both), nats=url)
    without = start_worker(rows, *trust, nats=url)

    assert with_key.exit_code() == 0
    assert in_one.exit_code() == 0
    assert without.wait_for("broker.error")["level"] == "warning"
    assert without.stop(within=6) == 0


@pytest.mark.parametrize("more", [b"", b',"tls_available":true'], ids=["none", "optional"])
def test_a_server_that_does_not_insist_on_tls_is_refused_and_told_no_secret(
    rows: Rows, start_worker: StartWorker, more: bytes
) -> None:
    with PlainServer(more=more) as plain:
        host = f"127.0.0.1:{plain.port}"
        seed = user_identity().seed
        workers = [
            start_worker(rows, nats=f"tls://me:{quote(PASSWORD, safe='')}@{host}"),
            start_worker(rows, nats=f"tls://{host}", environment={"PROJECTOR_TOKEN": PASSWORD}),
            start_worker(rows, nats=f"tls://{host}", environment={"PROJECTOR_NKEY_SEED": seed}),
        ]
        for worker in workers:
            assert worker.exit_code() == 78
            (failed,) = worker.logged("worker.failed")
            assert "TLS was asked for and the server does not offer it" in failed["error"]
            assert_keeps_secret(worker, PASSWORD, seed)
        assert plain.clients >= len(workers)
        assert b"CONNECT" not in plain.received
        assert b"s3cret" not in plain.received


def test_a_server_that_stops_offering_tls_is_told_no_secret_at_a_reconnect(
    make_server: MakeServer, certificates: Certificates, rows: Rows, start_worker: StartWorker
) -> None:
    users = f"authorization {{ user: me, password: {QUOTED} }}\n"
    server = make_server(certificates.server_config() + users).start()
    worker = start_worker(
        rows,
        *("--create-stream", "--user", "me", "--tls-ca-file", str(certificates.ca)),
        nats=f"tls://127.0.0.1:{server.port}",
        environment={"PROJECTOR_PASSWORD": PASSWORD},
    )
    worker.wait_for("pull.started")
    server.stop()
    worker.wait_for("broker.disconnected")
    with PlainServer(port=server.port or 0) as plain:
        eventually(lambda: plain.clients > 0, 10, lambda: worker.text)
        worker.wait_for(
            "broker.error",
            error="TlsNotOffered: TLS was asked for and the server does not offer it",
        )
        assert worker.stop(within=6) == 0
        assert b"CONNECT" not in plain.received
    assert_keeps_secret(worker, PASSWORD)


def test_every_way_to_give_credentials_works_and_none_is_logged(
    make_server: MakeServer, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    user = user_identity()
    accounts = (
        "accounts { FLEET { jetstream: enabled, users: [\n"
        f"{{ user: me, password: {QUOTED} }}\n"
        f"{{ nkey: {user.public} }}\n] }} }}\n"
    )
    operator = Operator()
    other = user_identity()
    creds = operator.creds(other)
    by_account = make_server(accounts).start()
    by_token = make_server(f"authorization {{ token: {QUOTED} }}").start()
    by_operator = make_server(operator.server_config()).start()
    files = {"secret": PASSWORD, "seed": user.seed, "creds": creds}
    for name, text in files.items():
        (tmp_path / name).write_text(text + "\n")
    escaped = quote(PASSWORD, safe="")

    def start(nats: str, *options: str, **variables: str) -> WorkerProcess:
        environment = {f"PROJECTOR_{name.upper()}": value for name, value in variables.items()}
        return start_worker(
            rows, *READY, *options, "--log-level", "debug", nats=nats, environment=environment
        )

    seed_file, creds_file = str(tmp_path / "seed"), str(tmp_path / "creds")
    secret_file = str(tmp_path / "secret")
    account = f"127.0.0.1:{by_account.port}"
    ways = {
        "password file": start(account, "--user", "me", "--password-file", secret_file),
        "password variable": start(account, user="me", password=PASSWORD),
        "password in URL": start(f"nats://me:{escaped}@{account}"),
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
        assert_keeps_secret(worker, PASSWORD, escaped, user.seed, other.seed, creds.split()[4])


def test_wrong_credentials_are_told_of_and_tried_again_until_stopped(
    make_server: MakeServer, tmp_path: Path, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server('authorization { user: me, password: "right" }').start()
    wrong_seed = user_identity().seed
    workers = [
        start_worker(rows, nats=server.url),
        start_worker(rows, nats=f"nats://me:wr0ng@127.0.0.1:{server.port}"),
        start_worker(rows, nats=server.url, environment={"PROJECTOR_TOKEN": "wr0ng"}),
        start_worker(rows, nats=server.url, environment={"PROJECTOR_NKEY_SEED": wrong_seed}),
    ]
    for worker in workers:
        told = worker.wait_for("broker.error")
        assert told["level"] == "warning"
        assert "authorization violation" in told["error"].lower()
    eventually(
        lambda: server.log.count("authentication error") >= 2 * len(workers),
        8,
        lambda: server.log,
    )
    for worker in workers:
        worker.send(signal.SIGTERM)
    for worker in workers:
        assert worker.exit_code(within=6) == 0
        assert worker.logged("worker.started") == []
        assert_keeps_secret(worker, "wr0ng", wrong_seed)


def test_a_user_without_the_rights_it_needs_is_told_which(
    make_server: MakeServer, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(
        "authorization { users: [ { user: all, password: x },\n"
        '{ user: few, password: y, permissions: { publish: ["$JS.API.STREAM.INFO.>"], '
        'subscribe: ["_INBOX.>"] } } ] }'
    ).start()
    with Broker(f"nats://all:x@127.0.0.1:{server.port}") as broker:
        broker.make_stream()
    worker = start_worker(rows, nats=f"nats://few:y@127.0.0.1:{server.port}")

    told = worker.wait_for("broker.error")
    assert "permissions violation for publish" in told["error"].lower()
    assert "$js.api" in told["error"].lower()
    assert worker.stop(within=10) == 0


def assert_keeps_secret(worker: WorkerProcess, *secrets: str) -> None:
    """Fail if a secret stands in the log, as it is or as JSON would write it."""
    for secret in secrets:
        assert secret not in worker.text
        assert json.dumps(secret)[1:-1] not in worker.text
