"""Connections with TLS and a password, which comes from files or a variable and is never shown."""

import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from repo import open_database
from repo.errors import RepositoryError, UnreachableError
from tests.support.commands import run_projector
from tests.support.credentials import Certificates, make_certificates
from tests.support.postgresql import Cluster

SECRET = "s3cret-pass"
HBA = "local all tester trust\nhostssl all guarded 127.0.0.1/32 scram-sha-256\n"


class Guarded(NamedTuple):
    """A server that takes a password over TLS only, on a port of 127.0.0.1."""

    port: int
    name: str
    certificates: Certificates

    def url(self, **parameters: object) -> str:
        pairs = "&".join(f"{name}={value}" for name, value in parameters.items())
        return f"postgresql://guarded@127.0.0.1:{self.port}/{self.name}?{pairs}"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    certificates = make_certificates(tmp_path_factory.mktemp("certificates"))
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    cluster = Cluster({"listen_addresses": "'127.0.0.1'"})
    name = cluster.create_database()
    cluster.ask(f"CREATE ROLE guarded LOGIN PASSWORD '{SECRET}'")
    cluster.ask("GRANT SELECT ON ALL TABLES IN SCHEMA public TO guarded", name)
    cluster.write("server.crt", certificates.server.read_text())
    cluster.write("server.key", certificates.server_key.read_text())
    cluster.write("pg_hba.conf", HBA)
    with (cluster.data / "postgresql.conf").open("a") as file:
        file.write(f"ssl = on\nport = {port}\n")
    cluster.stop("fast")
    cluster.start()
    yield Guarded(port, name, certificates)
    cluster.remove()


@pytest.fixture
def passfile(guarded: Guarded, tmp_path: Path) -> Path:
    file = tmp_path / "passfile"
    file.write_text(f"127.0.0.1:{guarded.port}:*:guarded:{SECRET}\n")
    file.chmod(0o600)
    return file


def test_a_password_comes_from_a_passfile(guarded: Guarded, passfile: Path) -> None:
    assert open_database(guarded.url(passfile=passfile)).pending_migrations() == []


def test_a_password_comes_from_a_variable_or_a_service_file(
    guarded: Guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    services = tmp_path / "services"
    services.write_text(
        f"[fleet]\nhost=127.0.0.1\nport={guarded.port}\ndbname={guarded.name}\nuser=guarded\n"
        f"password={SECRET}\n"
    )
    monkeypatch.setenv("PGSERVICEFILE", str(services))
    assert open_database("postgresql://?service=fleet").pending_migrations() == []
    monkeypatch.setenv("PGPASSWORD", SECRET)
    assert open_database(guarded.url()).pending_migrations() == []


@pytest.mark.parametrize(
    ("authority", "host", "said"),
    [
        ("ca", "127.0.0.1", None),
        ("other_ca", "127.0.0.1", "certificate verify failed"),
        ("ca", "localhost", "does not match host name"),
        ("missing", "127.0.0.1", "does not exist"),
    ],
)
def test_verify_full_takes_the_right_authority_and_the_right_name_only(
    guarded: Guarded, passfile: Path, authority: str, host: str, said: str | None
) -> None:
    file = getattr(guarded.certificates, authority, Path("/nowhere/ca.pem"))
    passfile.write_text(f"*:{guarded.port}:*:guarded:{SECRET}\n")
    url = guarded.url(passfile=passfile, sslmode="verify-full", sslrootcert=file)
    database = open_database(url.replace("@127.0.0.1", f"@{host}"))
    if said is None:
        assert database.pending_migrations() == []
        return
    with pytest.raises(UnreachableError, match=said):
        database.pending_migrations()


def test_a_wrong_password_is_named_and_not_shown(guarded: Guarded, passfile: Path) -> None:
    passfile.write_text(f"*:*:*:guarded:wrong-{SECRET}\n")
    database = open_database(guarded.url(passfile=passfile))
    with pytest.raises(RepositoryError, match="authentication failed") as refused:
        database.pending_migrations()
    assert SECRET not in repr(refused.value) + repr(refused.value.__cause__)


@pytest.mark.parametrize("command", ["check", "status", "config", "runs"])
def test_no_command_shows_the_password(guarded: Guarded, passfile: Path, command: str) -> None:
    url = guarded.url(passfile=passfile)
    nats = () if command == "runs" else ("--nats", "nats://127.0.0.1:1")
    done = run_projector(
        *(command, "--database", url, *nats), cwd=Path(__file__).parent, PGPASSWORD=SECRET
    )
    assert done.output + done.errors
    assert SECRET not in done.output + done.errors
