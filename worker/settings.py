"""The settings of one run of the worker, validated before the worker starts.

Each rule is a function of one value. It raises ValueError with the expected form; the command line
adds the option, the variable and the value. Nothing here shows a secret.
"""

import configparser
import re
import ssl
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import nkeys
import yoyo.config

from repo import check_url
from worker.codec.durations import parse_duration
from worker.codec.timestamps import NANOSECONDS, parse_instant
from worker.errors import SettingError
from worker.projections.starts import STARTS

_DEFAULT_PORT = 4222
_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f]+")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_BUCKET = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the worker authenticates to the broker. No field appears in a repr."""

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    creds: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """The PEM files of a TLS connection, and whether the connection must be encrypted."""

    required: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context for the connection, or None without TLS; raises SettingError."""
        if not self.required:
            return None
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise SettingError(
                "--tls-ca-file", f"{str(self.ca_file)!r}: expected PEM certificates: {error}"
            ) from error
        if self.cert_file is not None:
            try:
                # Without a password function, OpenSSL would prompt on the terminal.
                context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
            except (OSError, ValueError) as error:
                raise SettingError(
                    "--tls-cert-file",
                    f"{str(self.cert_file)!r}: expected a PEM certificate with its unencrypted key"
                    f" in it or in --tls-key-file: {error}",
                ) from error
        return context


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run of the worker, and their defaults. Times are in seconds."""

    nats_urls: tuple[str, ...]
    database: str
    stream: str = STARTS.stream.name
    consumer: str = STARTS.default_consumer
    bucket: str = "jobs"
    create_stream: bool = False
    migrate: bool = False
    until_idle: bool = False
    no_replay: bool = False
    batch: int = 1000
    threads: int = 2
    max_outstanding: int = 4000
    ack_wait: float = 30.0
    busy_timeout: float = 1.0
    retry_for: float = 10.0
    drain_timeout: float = 20.0
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    stalled_after: float = 60.0
    credentials: Credentials = field(default=Credentials(), repr=False)
    tls: Tls = Tls()

    def public(self) -> dict[str, Any]:
        """Return the settings by name, without secrets, for the log event `worker.started`."""
        shown = {
            item.name: getattr(self, item.name)
            for item in fields(self)
            if item.name not in ("credentials", "tls")
        }
        given = [
            item.name
            for item in fields(self.credentials)
            if getattr(self.credentials, item.name) is not None
        ]
        return {**shown, "credentials": given, "tls": self.tls.required}


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """A broker's URL; its user information is kept apart and never shown."""

    url: str
    tls: bool
    credentials: Credentials = field(default=Credentials(), repr=False)


def parse_nats_url(text: str) -> NatsUrl:
    """Parse a URL; the text of the ValueError does not repeat the value."""
    expected = "expected nats://HOST[:PORT] or tls://HOST[:PORT]"
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # the name lookup does the same
    except ValueError as error:
        raise ValueError(f"{expected}, with a port from 1 to 65535") from error
    if parts.scheme not in ("nats", "tls") or not host or parts.path.strip("/"):
        raise ValueError(expected)
    if "?" in text or "#" in text:
        # They would cut the URL, and part of a password would become the host.
        raise ValueError(f"{expected}; write ? as %3F, # as %23 and a comma as %2C in a password")
    if port == 0 or any(character.isspace() for character in text):
        raise ValueError(f"{expected}, with a port from 1 to 65535 and no spaces")
    shown_host = f"[{host}]" if ":" in host else host
    credentials = Credentials()
    if parts.password is not None:
        credentials = Credentials(
            user=unquote(parts.username or ""), password=unquote(parts.password)
        )
    elif parts.username:
        credentials = Credentials(token=unquote(parts.username))
    return NatsUrl(
        url=f"{parts.scheme}://{shown_host}:{port or _DEFAULT_PORT}",
        tls=parts.scheme == "tls",
        credentials=credentials,
    )


def without_user_information(text: str) -> str:
    """Replace everything before the last @ in one or several URLs, so that they can be shown."""
    before, at, host = text.rpartition("@")
    if not at:
        return text
    scheme, separator, _ = before.partition("://")
    is_scheme = separator and scheme in ("nats", "tls")
    return f"{scheme}://***@{host}" if is_scheme else f"***@{host}"


def parse_seconds(text: str) -> float:
    """Return the seconds of a plain number or a duration such as `30s` or `1m 30s`; above 0."""
    expected = "expected seconds above 0, such as 30, or a duration, such as 30s or 1m 30s"
    try:
        seconds = float(text) if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text) else None
        seconds = parse_duration(text) / NANOSECONDS if seconds is None else seconds
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from error
    if not 0 < seconds <= 86_400:
        raise ValueError(f"{expected}, and at most one day")
    return seconds


def parse_since(text: str) -> int:
    """Return an RFC 3339 time, or a duration before now, in nanoseconds since 1970."""
    try:
        return parse_instant(text)
    except ValueError as error:
        try:
            ago = parse_duration(text)
        except ValueError:
            raise ValueError(
                f"expected an RFC 3339 time or a duration before now, such as 2h ({error})"
            ) from None
    return max(0, time.time_ns() - ago)


def parse_creds(text: str) -> str:
    """Check that the text of a `.creds` file holds a JWT and a valid seed, and return it."""
    lines = text.splitlines()
    for mark in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        # nats-py loops forever if a mark is missing.
        places = [number for number, line in enumerate(lines) if mark in line]
        if not places or places[0] + 1 >= len(lines):
            raise ValueError("expected a .creds file with a user JWT and a user nkey seed")
    parse_nkey_seed(lines[places[0] + 1])
    return text


def parse_nkey_seed(text: str) -> str:
    """Check an nkey seed and return it without surrounding white space."""
    try:
        nkeys.from_seed(bytearray(text.strip().encode())).wipe()
    except Exception:  # noqa: BLE001 (nkeys lets decoding errors through, which may hold the seed)
        raise ValueError("expected an nkey seed, which begins with S") from None
    return text.strip()


def parse_name(text: str) -> str:
    """Check the name of a stream or consumer."""
    if not _NAME.fullmatch(text):
        raise ValueError("expected a name without spaces, dots, *, > or slashes")
    return text


def parse_bucket(text: str) -> str:
    """Check the name of a key-value bucket."""
    if not _BUCKET.fullmatch(text):
        raise ValueError("expected a name of letters, digits, - and _")
    return text


def parse_host(text: str) -> str:
    """Check the name or address of an interface to listen on."""
    if not _HOST.fullmatch(text):
        raise ValueError("expected an IP address or a host name")
    return text


def parse_database(text: str) -> str:
    """Check that both yoyo and the worker accept a database URL."""
    return check_url(text)


def default_database() -> str | None:
    """Return the `database` of `yoyo.ini`, or None if it sets none; raises SettingError.

    In a checkout this is the checkout's file; for an installed package, the one in the current
    folder.
    """
    for folder in (Path(__file__).parent.parent, Path.cwd()):
        path = folder / "yoyo.ini"
        if path.is_file():
            return _read_database(path)
    return None


def _read_database(path: Path) -> str | None:
    try:
        url = yoyo.config.read_config(str(path)).get("DEFAULT", "database", fallback=None)
        return None if url is None else parse_database(str(url))
    except (configparser.Error, OSError, ValueError) as error:
        raise SettingError("--database", f"from {path}: {error}") from error


def merge_credentials(given: Credentials, urls: list[NatsUrl]) -> Credentials:
    """Return the credentials from the options or the URLs.

    Raises SettingError if more than one kind is given, or half of one.
    """
    from_urls = {url.credentials for url in urls}
    if len(from_urls) > 1:
        raise SettingError("--nats", "all URLs must carry the same credentials")
    in_url = from_urls.pop() if from_urls else Credentials()
    if in_url != Credentials() and given != Credentials():
        raise SettingError(
            "--nats", "the URL and an option both set credentials; remove one of them"
        )
    merged = given if in_url == Credentials() else in_url
    if (merged.user is None) != (merged.password is None):
        raise SettingError("--user", "a user and a password must be given together")
    kinds = (merged.token, merged.user, merged.creds, merged.nkey_seed)
    if sum(kind is not None for kind in kinds) > 1:
        raise SettingError(
            "--token-file, --user, --creds-file, --nkey-seed-file", "only one of them may be given"
        )
    return merged
