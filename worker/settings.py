"""The settings of one run of the worker, validated before the worker starts.

Each rule is a function of one value. It raises ValueError with the expected form; the command line
adds the option, the variable and the value. Nothing here shows a secret.
"""

import configparser
import re
import ssl
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

import nkeys
import yoyo.config

from repo import check_url
from worker.codec.durations import parse_duration
from worker.codec.timestamps import NANOSECONDS, parse_instant
from worker.errors import ConfigurationError, SettingError
from worker.projections.base import Projection
from worker.projections.results import RESULTS
from worker.projections.starts import STARTS

_DEFAULT_PORT = 4222
_LATEST = 2**63 - 1


@dataclass(frozen=True, slots=True, repr=False)
class Credentials:
    """How the worker authenticates to the broker. Its repr shows no field.

    `files` are the names of the secrets that come from files, and those files.
    """

    token: str | None = None
    user: str | None = None
    password: str | None = None
    creds: str | None = None
    nkey_seed: str | None = None
    files: tuple[tuple[str, Path], ...] = ()

    @property
    def is_fixed(self) -> bool:
        """Whether a secret came from a variable or a URL: only a restart can bring another."""
        return self != Credentials() and not self.files

    def renewed(self) -> "Credentials":
        """Return them with the secrets that the files hold now; raises SettingError."""
        secrets: dict[str, Any] = {name: read_secret(name, file) for name, file in self.files}
        return replace(self, **secrets)


@dataclass(frozen=True, slots=True)
class Tls:
    """The PEM files of a TLS connection, and whether the connection must be encrypted.

    `first` is whether it begins with the handshake, before the server says anything.
    """

    required: bool = False
    first: bool = False
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    def context(self) -> ssl.SSLContext | None:
        """Return the context for the connection, or None without TLS; raises SettingError."""
        if not self.required:
            return None
        option, file, expected = "--tls-ca-file", self.ca_file, "PEM certificates"
        try:
            context = ssl.create_default_context(cafile=file)
            if self.cert_file is not None:
                option, file = "--tls-cert-file", self.cert_file
                expected = "a PEM certificate with its unencrypted key in it or in --tls-key-file"
                # Without a password function, OpenSSL would prompt on the terminal.
                context.load_cert_chain(file, self.key_file, password=lambda: "")
        except (OSError, ValueError) as error:
            raise SettingError(option, f"{str(file)!r}: expected {expected}: {error}") from error
        return context


RETENTION = 90 * 86_400.0
# Less, and a stream that is read again would bring the rows back; the contract's streams.
LEAST_RETENTION = max(STARTS.stream.max_age, RESULTS.stream.max_age)


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings of one run of the worker, and their defaults. Times are in seconds."""

    nats_urls: tuple[str, ...]
    database: str
    stream: str = STARTS.stream.name
    consumer: str = STARTS.default_consumer
    projections: tuple[str, ...] = (STARTS.name, RESULTS.name)
    results_stream: str = RESULTS.stream.name
    results_consumer: str = RESULTS.default_consumer
    bucket: str = "jobs"
    output_bucket: str = "result_output"
    js_domain: str | None = None
    inbox_prefix: str = "_INBOX"
    create_stream: bool = False
    migrate: bool = False
    until_idle: bool = False
    batch: int = 2000
    threads: int = 2
    max_outstanding: int = 8000
    ack_wait: float = 30.0
    max_ack_pending: int = 10_000
    busy_timeout: float = 1.0
    retry_for: float = 10.0
    drain_timeout: float = 20.0
    upkeep_every: float = 60.0
    retention: float | None = RETENTION
    metrics_port: int | None = None
    metrics_host: str = "127.0.0.1"
    stalled_after: float = 60.0
    credentials: Credentials = Credentials()
    tls: Tls = Tls()

    @property
    def chosen(self) -> list[Projection[Any, Any]]:
        """The projections to work on, in the order in which they depend on each other."""
        return [one for one in (STARTS, RESULTS) if one.name in self.projections]

    def of(self, projection: Projection[Any, Any]) -> "Settings":
        """Return the settings of one projection: `stream` and `consumer` are its own."""
        if projection is RESULTS:
            return replace(self, stream=self.results_stream, consumer=self.results_consumer)
        return self

    def public(self) -> dict[str, Any]:
        """Return the settings by name, without secrets, for the log event `worker.started`."""
        shown = asdict(self)
        shown["credentials"].pop("files")
        given = [name for name, secret in shown["credentials"].items() if secret is not None]
        return {**shown, "credentials": given, "tls": self.tls.required}


@dataclass(frozen=True, slots=True)
class NatsUrl:
    """A broker's URL; its user information is kept apart and never shown."""

    url: str
    tls: bool
    credentials: Credentials


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
        user, password = unquote(parts.username or ""), unquote(parts.password)
        credentials = Credentials(user=user, password=password)
    elif parts.username:
        credentials = Credentials(token=unquote(parts.username))
    url = f"{parts.scheme}://{shown_host}:{port or _DEFAULT_PORT}"
    return NatsUrl(url, parts.scheme == "tls", credentials)


def showable(url: str) -> str:
    """Return a URL that may be wrong as it can be shown: without any part that may be a secret."""
    scheme, found, _ = url.partition("://")
    if found and scheme.startswith("postgres"):
        return f"{scheme}://***"  # a password may stand anywhere: ?password=, host:password
    return without_user_information(url)


def without_user_information(text: str) -> str:
    """Replace everything before the last @ in one or several URLs, so that they can be shown."""
    _, at, host = text.rpartition("@")
    scheme = re.match("(nats|tls)://", text)
    return f"{scheme[0] if scheme else ''}***@{host}" if at else text


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


def parse_retention(text: str) -> float | None:
    """Return the seconds of a duration such as `90d`; None for `off`."""
    if text == "off":
        return None
    days = LEAST_RETENTION / 86_400
    expected = f"expected off, or a duration of at least {days:g} days, such as 90d"
    try:
        seconds = parse_duration(text) / NANOSECONDS
    except ValueError as error:
        raise ValueError(f"{expected} ({error})") from error
    if seconds < LEAST_RETENTION:
        raise ValueError(f"{expected}: the streams bring rows back for that long")
    return seconds


class Since(NamedTuple):
    """A time: an instant in nanoseconds since 1970 or, where that is None, so long before now."""

    instant: int | None = None
    ago: int = 0

    def before(self, now: int | None) -> int:
        """Return the instant, at most `now` and at least 0, since the server counts in 64 bits.

        Raises ConfigurationError for a duration where the broker does not report its time.
        """
        if now is None and self.instant is None:
            text = "the broker does not report its time; pass an RFC 3339 time with --since"
            raise ConfigurationError(text)
        now = _LATEST if now is None else now
        return max(0, min(now - self.ago if self.instant is None else self.instant, now))


def parse_since(text: str) -> Since:
    """Read an RFC 3339 time, or a duration before now."""
    try:
        return Since(instant=parse_instant(text))
    except ValueError as error:
        try:
            return Since(ago=parse_duration(text))
        except ValueError:
            raise ValueError(
                f"expected an RFC 3339 time or a duration before now, such as 2h ({error})"
            ) from None


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


# Each has a variable and an option for a file, but no option of its own.
SECRETS: dict[str, Callable[[str], str]] = {
    "token": str,
    "password": str,
    "creds": parse_creds,
    "nkey_seed": parse_nkey_seed,
}


def file_option(name: str) -> str:
    """Return the option for the file of a secret."""
    return f"--{name.replace('_', '-')}-file"


def read_secret(name: str, file: Path) -> str:
    """Return what the file of a secret holds; raises SettingError without showing it."""
    source = f"{file_option(name)} {str(file)!r}"
    try:
        text = file.read_text("utf-8").rstrip("\r\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SettingError(source, "expected a readable text file") from error
    if not text:
        raise SettingError(source, "expected a secret, found an empty file")
    return parse_secret(name, text, source)


def parse_secret(name: str, text: str, source: str) -> str:
    """Return a secret from its text; raises SettingError with the source, never the secret."""
    try:
        return SECRETS[name](text)
    except ValueError as error:
        raise SettingError(source, str(error)) from None


def _matching(pattern: str, expected: str) -> Callable[[str], str]:
    """Return a function that returns a text which matches the pattern as a whole."""

    def parse(text: str) -> str:
        if not re.fullmatch(pattern, text):
            raise ValueError(f"expected {expected}")
        return text

    return parse


# A stream or consumer, a key-value bucket, and an interface to listen on.
parse_name = _matching(r"[^\s.*>/\\\x00-\x1f]+", "a name without spaces, dots, *, > or slashes")
parse_bucket = _matching("[A-Za-z0-9_-]+", "a name of letters, digits, - and _")
# The client library counts the prefix in bytes, and what it receives in characters.
_WORD = r"(?:(?![.*>])[!-~])+"
parse_domain = _matching(_WORD, "one ASCII word without dots, *, > or spaces, such as hub")
parse_inbox_prefix = _matching(
    rf"{_WORD}(?:\.{_WORD})*",
    "ASCII words separated by single dots, without *, > or spaces, such as _INBOX_projector",
)
parse_host = _matching("[A-Za-z0-9._:%-]+", "an IP address or a host name")


def default_database() -> str | None:
    """Return the `database` of `yoyo.ini`, or None if it sets none; raises SettingError.

    In a checkout this is the checkout's file; for an installed package, the one in the current
    folder.
    """
    for folder in (Path(__file__).parent.parent, Path.cwd()):
        path = folder / "yoyo.ini"
        if not path.is_file():
            continue
        try:
            url = yoyo.config.read_config(str(path)).get("DEFAULT", "database", fallback=None)
            return None if url is None else check_url(str(url))
        except (configparser.Error, OSError, ValueError) as error:
            raise SettingError("--database", f"from {path}: {error}") from error
    return None


def merge_credentials(given: Credentials, urls: list[NatsUrl]) -> Credentials:
    """Return the credentials from the options or the URLs.

    Raises SettingError if more than one kind is given, or half of one.
    """
    none = Credentials()
    in_url, *others = {url.credentials for url in urls} or {none}
    if others:
        raise SettingError("--nats", "all URLs must carry the same credentials")
    if none not in (in_url, given):
        problem = "the URL and an option both set credentials; remove one of them"
        raise SettingError("--nats", problem)
    merged = given if in_url == none else in_url
    if (merged.user is None) != (merged.password is None):
        raise SettingError("--user", "a user and a password must be given together")
    kinds = (merged.token, merged.user, merged.creds, merged.nkey_seed)
    if sum(kind is not None for kind in kinds) > 1:
        options = "--token-file, --user, --creds-file, --nkey-seed-file"
        raise SettingError(options, "only one of them may be given")
    return merged
