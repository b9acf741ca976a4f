"""Secrets and certificates that are replaced while the worker runs."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, StartWorker
from tests.support.credentials import User, make_certificates
from tests.support.endpoints import OBSERVED, Port
from tests.support.rows import Rows
from tests.support.worker_process import UNCLOSED, WorkerProcess

SUPPORT = Path(__file__).parents[1] / "support"
OLD, NEW = "0ld-s3cret", "n3w-s3cret"
OPTIONS = ("--create-stream", *OBSERVED)

StartPulling = Callable[..., WorkerProcess]


@pytest.fixture
def start_pulling(rows: Rows, start_worker: StartWorker) -> StartPulling:
    def start(url: str, *options: str, **variables: str) -> WorkerProcess:
        environment = {**UNCLOSED, **variables}
        return start_worker(
            rows, *OPTIONS, *options, nats=url, environment=environment, pulling=True
        )

    return start


def assert_heals(worker: WorkerProcess, port: Port, secrets: Sequence[str] = ()) -> None:
    """Assert that the worker becomes ready and has logged no secret."""
    worker.until(lambda: port.readyz().status == 200)
    for secret in secrets:
        assert secret not in worker.text
    assert worker.stop() == 0


@pytest.mark.parametrize("by", ["reload", "restart"])
@pytest.mark.parametrize(
    ("option", "config", "old", "new"),
    [
        ("--token-file", "token: {}", OLD, NEW),
        ("--password-file", "user: me, password: {}", OLD, NEW),
        ("--nkey-seed-file", "users: [ {{ nkey: {} }} ]", User(1), User(2)),
    ],
    ids=["token", "password", "nkey"],
)
def test_a_rotated_secret_is_read_from_its_file(
    make_server: MakeServer,
    tmp_path: Path,
    start_pulling: StartPulling,
    *,
    by: str,
    option: str,
    config: str,
    old: str | User,
    new: str | User,
) -> None:
    def write(secret: str | User) -> None:
        file.write_text(secret.seed if isinstance(secret, User) else secret)

    def authorization(secret: str | User) -> str:
        known = secret.public if isinstance(secret, User) else secret
        return f"authorization {{ {config.format(known)} }}"

    file = tmp_path / "secret"
    write(old)
    server = make_server(authorization(old)).start()
    user = ("--user", "me") if option == "--password-file" else ()
    worker = start_pulling(server.url, option, str(file), *user)
    port = Port(worker)
    if by == "restart":  # else the server reloads, and the client library may not reconnect
        server.stop()
    server.configure(authorization(new))
    if by == "restart":
        server.start()
    worker.wait_for_error("broker.error", "authorization violation")
    denied = port.wait_for("permission_denied", 200).document
    assert denied["restart_helps"] is False
    write(new)
    if by == "restart":  # the client library itself reads the secret again
        worker.wait_for("broker.reconnected")
        assert len(worker.logged("broker.connected")) == 1
    assert_heals(worker, port, [OLD, NEW, User(1).seed, User(2).seed])


def test_a_creds_file_that_is_being_replaced_is_read_again(
    make_server: MakeServer, tmp_path: Path, start_pulling: StartPulling
) -> None:
    creds = User(7).creds((SUPPORT / "user.jwt").read_text().strip())
    file = tmp_path / "worker.creds"
    file.write_text(creds)
    server = make_server((SUPPORT / "operator.conf").read_text()).start()
    worker = start_pulling(server.url, "--creds-file", str(file))
    server.stop()
    file.write_text(creds[:100])
    server.start()
    worker.wait_for_error("broker.error", f"--creds-file '{file}'", "expected a .creds file")
    file.write_text(creds)
    worker.wait_for("broker.reconnected")
    assert_heals(worker, Port(worker), [User(7).seed])


def test_rotated_certificates_are_read_from_their_files(
    make_server: MakeServer, tmp_path: Path, start_pulling: StartPulling
) -> None:
    old, new = (make_certificates(tmp_path) for tmp_path in folders(tmp_path, "old", "new"))
    used = folders(tmp_path, "used")[0]
    files = {"--tls-ca-file": "ca", "--tls-cert-file": "client", "--tls-key-file": "client_key"}
    for name in files.values():
        shutil.copy(getattr(old, name), used / name)
    server = make_server(old.server_config(verify=True)).start()
    options = [text for option, name in files.items() for text in (option, str(used / name))]
    worker = start_pulling(f"tls://127.0.0.1:{server.port}", *options)
    server.stop()
    server.configure(new.server_config(verify=True))
    server.start()
    worker.wait_for_error("broker.error", "certificate verify failed")
    for name in files.values():
        shutil.copy(getattr(new, name), used / name)
    worker.wait_for("broker.reconnected")
    assert_heals(worker, Port(worker))


def folders(parent: Path, *names: str) -> list[Path]:
    for name in names:
        (parent / name).mkdir()
    return [parent / name for name in names]


def test_a_restart_helps_where_a_secret_in_a_variable_was_rotated_and_not_where_it_is_wrong(
    make_server: MakeServer, start_pulling: StartPulling, rows: Rows, start_worker: StartWorker
) -> None:
    server = make_server(f"authorization {{ token: {OLD} }}").start()
    worker = start_pulling(server.url, PROJECTOR_TOKEN=OLD)
    server.configure(f"authorization {{ token: {NEW} }}")
    assert Port(worker).wait_for("permission_denied", 200).document["restart_helps"] is True
    wrong = start_worker(rows, *OPTIONS, nats=server.url, environment={"PROJECTOR_TOKEN": OLD})
    assert Port(wrong).wait_for("permission_denied", 200).document["restart_helps"] is False
