"""Certificates made by openssl, and the nkeys and credentials of users."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

import nkeys

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificates:
    """Paths of PEM files."""

    ca: Path
    other_ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def server_config(self, more: str = "", *, verify: bool = False) -> str:
        """Return a server configuration with TLS; `verify` requires a client certificate."""
        return (
            f'tls {{ cert_file: "{self.server}", key_file: "{self.server_key}", '
            f'ca_file: "{self.ca}", verify: {str(verify).lower()}{more} }}\n'
        )


def make_certificates(folder: Path) -> Certificates:
    # Python 3.13 rejects an authority without this extension.
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    ca, ca_key = _make_certificate(folder, "authority", *authority)
    other_ca, _ = _make_certificate(folder, "untrusted", *authority)
    signed = ("-CA", str(ca), "-CAkey", str(ca_key), "-addext", "basicConstraints=CA:FALSE")
    server, server_key = _make_certificate(
        folder, "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1"
    )
    client, client_key = _make_certificate(folder, "client", *signed)
    return Certificates(ca, other_ca, server, server_key, client, client_key)


def _make_certificate(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    command = ("openssl", "req", "-x509", *_KEY, "-subj", f"/CN={name}", *options)
    paths = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run([*command, *paths], check=True, capture_output=True, timeout=20)
    return certificate, key


class User:
    """The nkey pair of a user; the same number gives the same pair."""

    def __init__(self, number: int) -> None:
        self.seed: str = nkeys.encode_seed(bytes([number] * 32), nkeys.PREFIX_BYTE_USER).decode()
        self.public: str = nkeys.from_seed(bytearray(self.seed.encode())).public_key.decode()

    def creds(self, jwt: str) -> str:
        """Return the text of a `.creds` file."""
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{self.seed}\n------END USER NKEY SEED------\n"
        )
