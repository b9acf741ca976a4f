"""What the commands share of their options: how a value is read, and options that go together.

Each group is a decorator, so that a command names what it needs and every option has one help text.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from worker import settings
from worker.logs import JSON, TEXT

PREFIX = "PROJECTOR_"

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


class _Parsed(click.ParamType[Any]):
    """An option's value, read by one of the functions of `settings`."""

    # Never found: the one option that may be repeated splits its variable by itself, since the
    # library's split would tear a secret from the @ that marks it.
    envvar_list_splitter = "\0"

    def __init__(self, name: str, parse: Callable[[str], Any], shown: Callable[[str], str]) -> None:
        self.name = name
        self._parse = parse
        self._shown = shown

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except ValueError as error:
            self.fail(f"{self._shown(value)!r}: {error}", param, ctx)


def _split_urls(text: str) -> list[settings.NatsUrl]:
    return [settings.parse_nats_url(url.strip()) for url in text.split(",")]


class Whole(click.IntRange):
    """A whole number in a range, told in full where it is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Return the number; fails with the range that was expected."""
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r}: expected a whole number, {self._describe_range()}", param, ctx)


_URLS = _Parsed("url", _split_urls, settings.without_user_information)
_DATABASE = _Parsed("url", settings.parse_database, str)
_BUCKET = _Parsed("name", settings.parse_bucket, str)
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)
HOST = _Parsed("host", settings.parse_host, str)
NAME = _Parsed("name", settings.parse_name, str)
SECONDS = _Parsed("seconds", settings.parse_seconds, str)
_SINCE = _Parsed("time", settings.parse_since, str)


def option(name: str, **attributes: Any) -> Decorator:
    """Declare an option that can be set by the variable PROJECTOR_<NAME> as well."""
    variable = attributes.pop("envvar", PREFIX + name.removeprefix("--").replace("-", "_").upper())
    attributes.setdefault("show_default", attributes.get("default") is not None)
    return click.option(name, envvar=variable, show_envvar=True, **attributes)


def together(*options: Decorator) -> Decorator:
    """Return one decorator for several options, which the help shows in this order."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for declared in reversed(options):
            function = declared(function)
        return function

    return decorate


servers = option(
    "--nats",
    envvar=PREFIX + "NATS_URL",
    type=_URLS,
    multiple=True,
    metavar="URL",
    default=["nats://127.0.0.1:4222"],
    help="The broker, nats://HOST[:PORT] or tls://HOST[:PORT]. Repeat it or separate by commas "
    "for several servers of one cluster.",
)

stream = option("--stream", type=NAME, default="EVENTS", help="The stream of events.")

consumer = option(
    "--consumer",
    type=NAME,
    default="backend_events_projector",
    help="The consumer pull consumer. `run` creates it if it is missing, and nobody changes it.",
)

bucket = option(
    "--bucket", type=_BUCKET, default="jobs", help="The key-value bucket of the manifests."
)

credentials = together(
    option(
        "--token-file",
        type=_FILE,
        help="A file with a token. PROJECTOR_TOKEN holds the token itself.",
    ),
    option("--user", help="A user name; the password comes from a file or a variable."),
    option(
        "--password-file",
        type=_FILE,
        help="A file with the user's password. PROJECTOR_PASSWORD holds the password itself.",
    ),
    option(
        "--creds-file",
        type=_FILE,
        help="A .creds file. PROJECTOR_CREDS holds its text itself.",
    ),
    option(
        "--nkey-seed-file",
        type=_FILE,
        help="A file with an nkey seed. PROJECTOR_NKEY_SEED holds the seed itself.",
    ),
    option("--tls-ca-file", type=_FILE, help="Certificates to trust, PEM. Asks for TLS."),
    option("--tls-cert-file", type=_FILE, help="The client's certificate, PEM. Asks for TLS."),
    option(
        "--tls-key-file",
        type=_FILE,
        help="The client certificate's key, PEM.  [default: in the certificate's file]",
    ),
)

database = option(
    "--database",
    type=_DATABASE,
    metavar="URL",
    help="sqlite:///relative.db or sqlite:////absolute.db.  [default: the database of yoyo.ini]",
)

patience = together(
    option(
        "--busy-timeout",
        type=SECONDS,
        default="1s",
        help="How long one attempt waits for another process's lock on the database.",
    ),
    option(
        "--retry-for",
        type=SECONDS,
        default="10s",
        help="How long the same is tried again while the database is locked, before it is given "
        "up; by `run`, a batch, before it is given back: keep it well below the ack wait.",
    ),
)


seen_from_outside = together(
    option(
        "--metrics-port",
        type=Whole(0, 65_535),
        help="Serve /metrics, /livez and /readyz on this port; 0 takes a free one, which the log "
        "tells. Off unless set.",
    ),
    option(
        "--metrics-host",
        type=HOST,
        default="127.0.0.1",
        help="The address to serve them on. Nobody is asked who they are.",
    ),
    option(
        "--stalled-after",
        type=SECONDS,
        default="60s",
        help="For how long there may be work and nothing projected before /livez says so, and "
        "the watchdog of systemd is let go if only a restart can help.",
    ),
)


def logs(level: str) -> Decorator:
    """Return the options of the log, for a command that logs from `level` on unless told else."""
    return together(
        option(
            "--log-level",
            type=click.Choice(
                ["debug", "info", "warning", "error", "critical"], case_sensitive=False
            ),
            default=level,
            help="The least level that is logged.",
        ),
        option(
            "--log-format",
            type=click.Choice([JSON, TEXT], case_sensitive=False),
            help="[default: text on a terminal, else json]",
        ),
    )


json_option = click.option(
    "--json", "as_json", is_flag=True, help="One JSON document instead of text."
)

database_command = together(database, patience, logs("warning"))

# For a command that asks both, and takes what `run` takes of these.
broker_command = together(
    servers, database, stream, consumer, bucket, credentials, patience, logs("error")
)

# No variable sets it: one that was left in a shell would choose for a later command.
since_option = click.option(
    "--since",
    type=_SINCE,
    metavar="TIME",
    help="Only what the broker stored from then on: an RFC 3339 time, or how long ago, such as 2h.",
)
