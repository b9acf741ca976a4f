"""Certificates made by openssl, and nkeys and signed identities (JWT) made without the nsc tool."""

import base64
import json
import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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

    def server_config(self, *, verify: bool = False) -> str:
        """Return a server configuration with TLS; `verify` requires a client certificate."""
        return (
            f'tls {{ cert_file: "{self.server}", key_file: "{self.server_key}", '
            f'ca_file: "{self.ca}", verify: {str(verify).lower()} }}\n'
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


_LIMITS = ("subs", "data", "payload", "imports", "exports", "conn", "leaf")
_JETSTREAM_LIMITS = ("mem_storage", "disk_storage", "streams", "consumer")


class Identity:
    """The nkey pair of an operator, an account or a user."""

    def __init__(self, prefix: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def sign(self, subject: "Identity", claims: dict[str, Any]) -> str:
        """Return a JWT in which this identity signs another one's claims."""
        head = {"typ": "JWT", "alg": "ed25519-nkey"}
        body = {
            "jti": subject.public,
            "iat": int(time.time()),
            "iss": self.public,
            "name": "test",
            "sub": subject.public,
            "nats": {"version": 2, **claims},
        }
        signed = ".".join(_base64(json.dumps(part).encode()) for part in (head, body))
        return f"{signed}.{_base64(self._pair.sign(signed.encode()))}"

    def sign_account(self, account: "Identity", *, jetstream: bool) -> str:
        """Return an account's JWT, with JetStream or without, and no limit otherwise."""
        limits = {**dict.fromkeys(_LIMITS, -1), "wildcards": True}
        limits.update(dict.fromkeys(_JETSTREAM_LIMITS, -1 if jetstream else 0))
        return self.sign(account, {"type": "account", "limits": limits})


def user_identity() -> Identity:
    return Identity(nkeys.PREFIX_BYTE_USER)


class Operator:
    """An operator with a system account and one account with JetStream."""

    def __init__(self) -> None:
        self._operator = Identity(nkeys.PREFIX_BYTE_OPERATOR)
        self._system = Identity(nkeys.PREFIX_BYTE_ACCOUNT)
        self._account = Identity(nkeys.PREFIX_BYTE_ACCOUNT)

    def server_config(self) -> str:
        """Return the configuration of a server that trusts this operator."""
        preloaded = "\n".join(
            f"{account.public}: {self._operator.sign_account(account, jetstream=jetstream)}"
            for account, jetstream in ((self._account, True), (self._system, False))
        )
        operator = self._operator.sign(self._operator, {"type": "operator"})
        return (
            f"operator: {operator}\nsystem_account: {self._system.public}\n"
            f"resolver: MEMORY\nresolver_preload: {{\n{preloaded}\n}}\n"
        )

    def creds(self, user: Identity) -> str:
        """Return the text of a `.creds` file for a new user of the account."""
        claims = {"type": "user", "subs": -1, "data": -1, "payload": -1}
        jwt = self._account.sign(user, claims)
        return (
            f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
            f"-----BEGIN USER NKEY SEED-----\n{user.seed}\n------END USER NKEY SEED------\n"
        )


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
