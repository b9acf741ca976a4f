"""Settings: what one run of the worker was told, validated before anything is started.

Every rule is a function of one value that raises ValueError with what the value should be; the
command line adds which option, variable and value it was. Nothing here shows a secret.
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

from repo.sqlite.database import database_path
from worker.codec.durations import parse_duration
from worker.codec.timestamps import NANOSECONDS, parse_instant
from worker.errors import SettingError

DEFAULT_PORT = 4222
_NAME = re.compile(r"[^\s.*>/\\\x00-\x1f]+")
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")
_BUCKET = re.compile(r"[A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True)
class Credentials:
    """How the worker shows the broker who it is. No field ever appears in a repr."""

    token: str | None = field(default=None, repr=False)
    user: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    creds: str | None = field(default=None, repr=False)
    nkey_seed: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """The files of a TLS connection, in PEM form, and whether the connection must be encrypted."""

    required: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context for the connection, or None where TLS was not asked for."""
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
                # A password of None would ask for one on the terminal, where nobody sits.
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
    """Everything that one run of the worker depends on. Times are in seconds."""

    nats_urls: tuple[str, ...]
    database: str
    stream: str = "EVENTS"
    consumer: str = "backend_events_projector"
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
        """Return all settings that are no secret, by name, for the log's start line."""
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
    """A broker's URL without its user information, which is kept apart and never shown."""

    url: str
    tls: bool
    credentials: Credentials = field(default=Credentials(), repr=False)


def parse_nats_url(text: str) -> NatsUrl:
    """Return a URL's parts; raises ValueError, whose text does not repeat the value."""
    expected = "expected nats://HOST[:PORT] or tls://HOST[:PORT]"
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, parts.port
        (host or "").encode("idna")  # as the look-up of the name will
    except ValueError as error:
        raise ValueError(f"{expected}, with a port from 1 to 65535") from error
    if parts.scheme not in ("nats", "tls") or not host or parts.path.strip("/"):
        raise ValueError(expected)
    if "?" in text or "#" in text:
        # They would cut the URL, and make a host of what is meant as a secret.
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
        url=f"{parts.scheme}://{shown_host}:{port or DEFAULT_PORT}",
        tls=parts.scheme == "tls",
        credentials=credentials,
    )


def without_user_information(text: str) -> str:
    """Return a URL, or several, as they may be shown: all that stands before an @ is left out."""
    before, at, host = text.rpartition("@")
    if not at:
        return text
    scheme, there, _ = before.partition("://")
    return f"{scheme}://***@{host}" if there and scheme in ("nats", "tls") else f"***@{host}"


def parse_seconds(text: str) -> float:
    """Return the seconds of a plain number or of a duration such as `30s` or `1m 30s`; above 0."""
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
    """Return the instant, in nanoseconds, of an RFC 3339 text or of a duration before now."""
    try:
        return parse_instant(text)
    except ValueError as no_instant:
        try:
            ago = parse_duration(text)
        except ValueError:
            raise ValueError(
                f"expected an RFC 3339 time or how long ago, such as 2h ({no_instant})"
            ) from None
    return max(0, time.time_ns() - ago)


def parse_creds(text: str) -> str:
    """Return the text of a `.creds` file that holds a JWT and a usable seed."""
    lines = text.splitlines()
    for mark in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        # The client library would look for a missing mark for ever.
        places = [number for number, line in enumerate(lines) if mark in line]
        if not places or places[0] + 1 >= len(lines):
            raise ValueError("expected a .creds file with a user JWT and a user nkey seed")
    parse_nkey_seed(lines[places[0] + 1])
    return text


def parse_nkey_seed(text: str) -> str:
    """Return an nkey seed without the white space around it."""
    try:
        nkeys.from_seed(bytearray(text.strip().encode())).wipe()
    except Exception:  # noqa: BLE001 (the library raises whatever its decoders do, seed included)
        raise ValueError("expected an nkey seed, which begins with S") from None
    return text.strip()


def parse_name(text: str) -> str:
    """Return the name of a stream or consumer."""
    if not _NAME.fullmatch(text):
        raise ValueError("expected a name without spaces, dots, *, > or slashes")
    return text


def parse_bucket(text: str) -> str:
    """Return the name of a key-value bucket."""
    if not _BUCKET.fullmatch(text):
        raise ValueError("expected a name of letters, digits, - and _")
    return text


def parse_host(text: str) -> str:
    """Return the name or address of an interface to listen on."""
    if not _HOST.fullmatch(text):
        raise ValueError("expected an IP address or the name of a host")
    return text


def parse_database(text: str) -> str:
    """Return a database URL as it is, if it is one that yoyo and the worker both take."""
    database_path(text)
    return text


def default_database() -> str | None:
    """Return the `database` of `yoyo.ini`, or None if there is none; may raise SettingError.

    The file of the checkout that this package lies in counts; for an installed package, the one in
    the current folder.
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
        problem = f"the database of {path} cannot be used: {error}"
        raise SettingError("--database", problem) from error


def merge_credentials(given: Credentials, urls: list[NatsUrl]) -> Credentials:
    """Return the one set of credentials that options and URLs name together.

    Raises SettingError where two ways are given, or one is given by halves.
    """
    from_urls = {url.credentials for url in urls}
    if len(from_urls) > 1:
        raise SettingError("--nats", "all URLs must carry the same credentials")
    in_url = from_urls.pop() if from_urls else Credentials()
    if in_url != Credentials() and given != Credentials():
        raise SettingError("--nats", "credentials are given in the URL and by an option: keep one")
    merged = given if in_url == Credentials() else in_url
    if (merged.user is None) != (merged.password is None):
        raise SettingError("--user", "a user and a password are given together or not at all")
    ways = [
        way
        for way in (merged.token, merged.user, merged.creds, merged.nkey_seed)
        if way is not None
    ]
    if len(ways) > 1:
        raise SettingError(
            "--token-file, --user, --creds-file, --nkey-seed-file", "only one of them may be given"
        )
    return merged
