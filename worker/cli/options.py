"""The command line's options, how their values are read, and how they become `Settings`.

A group of options is a decorator, so a command names what it needs and every option has one help
text. Defaults are those of `Settings`.
"""

import os
from collections.abc import Callable
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

import click

from repo import check_url
from worker import settings
from worker.errors import SettingError
from worker.logs import JSON, TEXT

PREFIX = "PROJECTOR_"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_DEFAULTS: dict[str, Any] = {
    one.name: one.default for one in fields(settings.Settings) if one.default is not MISSING
}


class _Parsed(click.ParamType[Any]):
    """A value that one of the functions of `settings` parses."""

    # A separator that never occurs: --nats splits its variable itself, because click would split
    # at spaces, and the pieces of a password would no longer be recognized as secret.
    envvar_list_splitter = "\0"

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            shown = settings.showable(value) if self.name == "url" else value
            self.fail(f"{shown!r}: {error}", param, ctx)


class Whole(click.IntRange):
    """A whole number in a range; the error names the range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r}: expected a whole number, {self._describe_range()}", param, ctx)


def _split_urls(text: str) -> list[settings.NatsUrl]:
    return [settings.parse_nats_url(url.strip()) for url in text.split(",")]


_URLS = _Parsed("url", _split_urls)
DATABASE = _Parsed("url", check_url)
_BUCKET = _Parsed("name", settings.parse_bucket)
_DOMAIN = _Parsed("name", settings.parse_domain)
_INBOX_PREFIX = _Parsed("prefix", settings.parse_inbox_prefix)
_HOST = _Parsed("host", settings.parse_host)
_NAME = _Parsed("name", settings.parse_name)
SINCE = _Parsed("time", settings.parse_since)
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
SECONDS = _Parsed("seconds", settings.parse_seconds)
RETENTION = _Parsed("duration", settings.parse_retention)


def option(name: str, kind: click.ParamType[Any] | None, text: str, **more: Any) -> Decorator:
    """Declare an option, with the variable PROJECTOR_<NAME> and the default of its setting."""
    setting = name.removeprefix("--").replace("-", "_")
    more.setdefault("envvar", PREFIX + setting.upper())
    default = more.pop("default", _DEFAULTS.get(setting))
    if kind is SECONDS:
        default = f"{default:g}s"
    if kind is RETENTION:
        default = f"{default / 86_400:g}d"
    more.update(default=default, show_default=default not in (None, False), show_envvar=True)
    return click.option(name, type=kind, help=text, **more)


def flag(name: str, text: str) -> Decorator:
    """Declare an option without a value; its variable takes a boolean."""
    return option(name, None, text, is_flag=True)


def together(*options: Decorator) -> Decorator:
    """Return one decorator for several options, which the help shows in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for declared in reversed(options):
            function = declared(function)
        return function

    return decorate


servers = together(
    option(
        *("--nats", _URLS),
        "Connect to this NATS server, nats://HOST[:PORT] or tls://HOST[:PORT]. Repeat the option "
        "or separate the URLs by commas for several servers of one cluster.",
        envvar=PREFIX + "NATS_URL",
        multiple=True,
        metavar="URL",
        default=["nats://127.0.0.1:4222"],
    ),
    option(
        *("--js-domain", _DOMAIN),
        "Use stream, consumer and bucket of this JetStream domain, such as the hub's behind a leaf "
        "node.  [default: the server's own]",
    ),
    option(
        *("--inbox-prefix", _INBOX_PREFIX),
        "Receive answers and messages on subjects below this prefix.",
    ),
)
database = option(
    *("--database", DATABASE),
    "Use this database: sqlite:///relative.db, sqlite:////absolute.db, or "
    "postgresql://USER@HOST/DATABASE for workers on several machines.  [default: the database in "
    "yoyo.ini]",
    metavar="URL",
)
stream = option("--stream", _NAME, "Read starts from this stream.")
consumer = option(
    "--consumer", _NAME, "Use this durable pull consumer of starts; `run` creates it."
)
results_stream = option("--results-stream", _NAME, "Read results from this stream.")
results_consumer = option(
    "--results-consumer", _NAME, "Use this durable pull consumer of results; `run` creates it."
)
retention = option(
    *("--retention", RETENTION),
    "Delete executions and ended runs that are older than this, or nothing (off). Never less than "
    "the streams keep, which is 30 days.",
)
output_bucket = option(
    *("--output-bucket", _BUCKET),
    "Fetch output that agents have moved there from this bucket of the object store.",
)
projections = option(
    *("--projection", click.Choice(_DEFAULTS["projections"])),
    "Work on these only, starts or results; without it, on both. `run` needs starts. Repeatable.",
    multiple=True,
)
bucket = option("--bucket", _BUCKET, "Read manifests from this key-value bucket.")

credentials = together(
    option("--token-file", _FILE, "Read a token from this file, or set PROJECTOR_TOKEN."),
    option("--user", None, "Log in as this user, with the password of the next option."),
    option("--password-file", _FILE, "Read a password from this file, or set PROJECTOR_PASSWORD."),
    option(
        "--creds-file", _FILE, "Log in with this .creds file, or set PROJECTOR_CREDS to its text."
    ),
    option(
        "--nkey-seed-file", _FILE, "Read an nkey seed from this file, or set PROJECTOR_NKEY_SEED."
    ),
    option("--tls-ca-file", _FILE, "Trust the PEM certificates in this file. Requires TLS."),
    option("--tls-cert-file", _FILE, "Present this PEM client certificate. Requires TLS."),
    option(
        *("--tls-key-file", _FILE),
        "Read the client certificate's PEM key from this file.  [default: the certificate's file]",
    ),
    option(
        *("--tls-first", None),
        "Begin with the TLS handshake, as a server with handshake_first expects. Requires TLS.",
        is_flag=True,
        default=False,
    ),
)

patience = together(
    option("--busy-timeout", SECONDS, "Wait this long for a lock on the database, per attempt."),
    option(
        *("--retry-for", SECONDS),
        "Retry for this long while the database is locked; keep it well below the ack wait.",
    ),
)

observability = together(
    option(
        *("--metrics-port", Whole(0, 65_535)),
        "Serve a page for the browser, /metrics, /livez and /readyz on this port; 0 picks one.",
    ),
    option("--metrics-host", _HOST, "Serve them on this address. Clients are not authenticated."),
    option("--stalled-after", SECONDS, "Fail /livez if work waits this long without progress."),
)


def logs(level: str) -> Decorator:
    """Return the options of the log; `level` is the default level."""
    levels = click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False)
    return together(
        option("--log-level", levels, "Log events of this level and above.", default=level),
        option(
            *("--log-format", click.Choice([JSON, TEXT], case_sensitive=False)),
            "Log in this format.  [default: text on a terminal, else json]",
        ),
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document instead of text."
)

# For a command that needs the database only; with --json for one that reports, and with the broker.
database_options = together(database, patience, logs("warning"))
database_command = together(json_option, database_options)
broker_options = together(
    *(json_option, servers, database, stream, consumer, results_stream, results_consumer),
    *(bucket, credentials, patience),
)
broker_command = together(broker_options, logs("error"))

# It has no variable: one left in a shell would select events for a later command.
since_option = click.option(
    "--since",
    type=SINCE,
    metavar="TIME",
    help="Read from TIME on: an RFC 3339 time, or a duration before now, such as 2h.",
)

without_deadlines_option = click.option(
    "--without-deadlines", is_flag=True, help="Read no manifests: compare and write no deadlines."
)


def chosen_database(url: str | None) -> str:
    """Return the given database URL, or that of yoyo.ini; raises SettingError without either."""
    chosen = url or settings.default_database()
    if chosen is None:
        raise SettingError(
            "--database",
            "expected a URL such as sqlite:///runs.db, because no yoyo.ini here sets one",
        )
    return chosen


def build_settings(options: dict[str, Any]) -> settings.Settings:
    """Return the settings; raises SettingError, which never holds a secret."""
    urls = [url for group in options.pop("nats") for url in group]
    database = chosen_database(options.pop("database"))
    if projections := options.pop("projection", None):
        options["projections"] = tuple(dict.fromkeys(projections))
    files = {name: options.pop(f"{name}_file") for name in settings.SECRETS}
    given = settings.Credentials(
        user=options.pop("user"),
        files=tuple((name, file) for name, file in files.items() if file is not None),
        **{name: _secret(name, file) for name, file in files.items()},
    )
    return settings.Settings(
        nats_urls=tuple(dict.fromkeys(url.url for url in urls)),
        database=database,
        credentials=settings.merge_credentials(given, urls),
        tls=_pop_tls(options, required=any(url.tls for url in urls)),
        **options,
    )


def _pop_tls(options: dict[str, Any], *, required: bool) -> settings.Tls:
    files = {name: options.pop(f"tls_{name}") for name in ("ca_file", "cert_file", "key_file")}
    if files["key_file"] and not files["cert_file"]:
        raise SettingError("--tls-key-file", "expected together with --tls-cert-file")
    first = options.pop("tls_first")
    tls = settings.Tls(required=required or first or any(files.values()), first=first, **files)
    tls.context()  # raises for a file that cannot be used
    return tls


def _secret(name: str, file: Path | None) -> str | None:
    """Return a secret from its file or its variable; raises SettingError without showing it."""
    variable = PREFIX + name.upper()
    text = os.environ.get(variable) or None
    if file is None:
        return None if text is None else settings.parse_secret(name, text, variable)
    if text is not None:
        problem = f"expected either the file or {variable}, not both"
        raise SettingError(settings.file_option(name), problem)
    return settings.read_secret(name, file)
