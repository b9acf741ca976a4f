"""Nkeys and signed identities (JWT), made without the vendor's tool."""

import base64
import json
import os
import time
from typing import Any

import nkeys

_UNLIMITED = dict.fromkeys(
    (
        *("subs", "data", "payload", "imports", "exports", "conn", "leaf"),
        *("mem_storage", "disk_storage", "streams", "consumer"),
    ),
    -1,
)


class Identity:
    """A key pair of an operator, an account or a user."""

    def __init__(self, prefix: int) -> None:
        self.seed: str = nkeys.encode_seed(os.urandom(32), prefix).decode()
        self._pair = nkeys.from_seed(bytearray(self.seed.encode()))
        self.public: str = self._pair.public_key.decode()

    def sign(self, subject: "Identity", claims: dict[str, Any]) -> str:
        """Return the JWT by which this identity vouches for another's claims."""
        head = _encoded({"typ": "JWT", "alg": "ed25519-nkey"})
        body = _encoded(
            {
                "jti": subject.public,
                "iat": int(time.time()),
                "iss": self.public,
                "name": "test",
                "sub": subject.public,
                "nats": {"version": 2, **claims},
            }
        )
        signature = self._pair.sign(f"{head}.{body}".encode())
        return f"{head}.{body}.{_text(signature)}"


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
        limits = {**_UNLIMITED, "wildcards": True}
        no_jetstream = {"mem_storage": 0, "disk_storage": 0, "streams": 0, "consumer": 0}
        accounts = {self._account: limits, self._system: {**limits, **no_jetstream}}
        preloaded = "\n".join(
            f"{account.public}: {self._operator.sign(account, _account(granted))}"
            for account, granted in accounts.items()
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


def _account(limits: dict[str, Any]) -> dict[str, Any]:
    return {"type": "account", "limits": limits}


def _encoded(value: dict[str, Any]) -> str:
    return _text(json.dumps(value).encode())


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")
