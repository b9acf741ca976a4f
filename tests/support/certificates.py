"""Certificates for tests, made by openssl: an authority, a server of 127.0.0.1, a client."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")


@dataclass(frozen=True, slots=True)
class Certificates:
    """PEM files; each certificate has its key beside it in another file."""

    ca: Path
    other_ca: Path
    server: Path
    server_key: Path
    client: Path
    client_key: Path

    def server_config(self, *, verify: bool = False) -> str:
        """Return the server's configuration that offers TLS and asks for no, or a, certificate."""
        return (
            f'tls {{ cert_file: "{self.server}", key_file: "{self.server_key}", '
            f'ca_file: "{self.ca}", verify: {str(verify).lower()} }}\n'
        )


def make_certificates(folder: Path) -> Certificates:
    """Make all of them in `folder`."""
    # Python 3.13 takes no authority that does not say so.
    authority = ("-addext", "keyUsage=critical,keyCertSign,cRLSign")
    ca, ca_key = _make(folder, "authority", *authority)
    other_ca, _ = _make(folder, "stranger", *authority)
    signed = ("-CA", str(ca), "-CAkey", str(ca_key), "-addext", "basicConstraints=CA:FALSE")
    server, server_key = _make(folder, "server", *signed, "-addext", "subjectAltName=IP:127.0.0.1")
    client, client_key = _make(folder, "client", *signed)
    return Certificates(ca, other_ca, server, server_key, client, client_key)


def _make(folder: Path, name: str, *options: str) -> tuple[Path, Path]:
    certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
    subprocess.run(
        [
            *("openssl", "req", "-x509", *_KEY, "-subj", f"/CN={name}"),
            *("-keyout", str(key), "-out", str(certificate), *options),
        ],
        check=True,
        capture_output=True,
        timeout=20,
    )
    return certificate, key
