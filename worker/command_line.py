"""The command `projector`: options and their variables become `Settings`, errors an exit code."""

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from worker import __version__, settings
from worker.errors import EXIT_USAGE, SettingError
from worker.logs import JSON, TEXT, set_up_logging
from worker.service import Service

_PREFIX = "PROJECTOR_"


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


class _Whole(click.IntRange):
    """A whole number in a range, told in full where it is none."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            return super().convert(value, param, ctx)
        except click.BadParameter:
            self.fail(f"{value!r}: expected a whole number, {self._describe_range()}", param, ctx)


_URLS = _Parsed("url", _split_urls, settings.without_user_information)
_DATABASE = _Parsed("url", settings.parse_database, str)
_NAME = _Parsed("name", settings.parse_name, str)
_BUCKET = _Parsed("name", settings.parse_bucket, str)
_SECONDS = _Parsed("seconds", settings.parse_seconds, str)
_FILE = click.Path(exists=True, dir_okay=False, readable=True, path_type=Path)


def _option(name: str, **attributes: Any) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare an option that can be set by the variable PROJECTOR_<NAME> as well."""
    variable = attributes.pop("envvar", _PREFIX + name.removeprefix("--").replace("-", "_").upper())
    attributes.setdefault("show_default", attributes.get("default") is not None)
    return click.option(name, envvar=variable, show_envvar=True, **attributes)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="projector")
def command() -> None:
    """Project starts of runs from a JetStream stream into SQL."""


@command.command(short_help="Pull, project, ack, until stopped.")
@_option(
    "--nats",
    envvar=_PREFIX + "NATS_URL",
    type=_URLS,
    multiple=True,
    metavar="URL",
    default=["nats://127.0.0.1:4222"],
    help="The broker, nats://HOST[:PORT] or tls://HOST[:PORT]. Repeat it or separate by commas "
    "for several servers of one cluster.",
)
@_option(
    "--database",
    type=_DATABASE,
    metavar="URL",
    help="sqlite:///relative.db or sqlite:////absolute.db.  [default: the database of yoyo.ini]",
)
@_option("--stream", type=_NAME, default="EVENTS", help="The stream of events.")
@_option(
    "--durable",
    type=_NAME,
    default="backend_events_projector",
    help="The durable pull consumer. It is created if it is missing, and never changed.",
)
@_option("--bucket", type=_BUCKET, default="jobs", help="The key-value bucket of the manifests.")
@_option(
    "--create-stream",
    is_flag=True,
    help="Make the stream if it is missing. Without it a missing stream is waited for.",
)
@_option(
    "--migrate",
    is_flag=True,
    help="Apply pending migrations at start. Without it they mean exit 78 with the command to run.",
)
@_option(
    "--until-idle",
    is_flag=True,
    help="Exit 0 as soon as nothing is pending and nothing unsettled, instead of running on.",
)
@_option(
    "--no-replay",
    is_flag=True,
    help="Never replay history by itself. Without it, starts that the broker counts as settled and "
    "a wiped or restored database lacks are projected again.",
)
@_option(
    "--batch",
    type=_Whole(1, 10_000),
    default=500,
    help="Most messages in one transaction. Batches grow by themselves with the load. Measured: "
    "100 cost a quarter of the throughput, 1000 gained less than a tenth.",
)
@_option(
    "--threads",
    type=_Whole(1, 64),
    default=2,
    help="Threads of the repository pool. One writes at a time, the others prepare. Measured: 1, 2 "
    "and 4 within a tenth of each other; two keep decoding going while a slow disk syncs.",
)
@_option(
    "--in-flight",
    type=_Whole(1, 100_000),
    default=2000,
    help="Most messages here and not settled; bounds the memory. Measured: 500 cost a tenth of "
    "the throughput, 8000 gained nothing.",
)
@_option(
    "--ack-wait",
    type=_SECONDS,
    default="30s",
    help="After this long without an ack the broker delivers again. Used when the durable is "
    "created; one that is there keeps its own.",
)
@_option(
    "--busy-timeout",
    type=_SECONDS,
    default="1s",
    help="How long one attempt waits for another process's lock on the database.",
)
@_option(
    "--retry-for",
    type=_SECONDS,
    default="10s",
    help="How long a batch is tried again while the database is locked, before it is given back. "
    "Keep it well below the ack wait.",
)
@_option(
    "--drain-timeout",
    type=_SECONDS,
    default="20s",
    help="How long a stop waits for what has begun. What is left is delivered to the next worker.",
)
@_option(
    "--token-file",
    type=_FILE,
    help="A file with a token. PROJECTOR_TOKEN holds the token itself.",
)
@_option("--user", help="A user name; the password comes from a file or a variable.")
@_option(
    "--password-file",
    type=_FILE,
    help="A file with the user's password. PROJECTOR_PASSWORD holds the password itself.",
)
@_option(
    "--creds-file",
    type=_FILE,
    help="A .creds file. PROJECTOR_CREDS holds its text itself.",
)
@_option(
    "--nkey-seed-file",
    type=_FILE,
    help="A file with an nkey seed. PROJECTOR_NKEY_SEED holds the seed itself.",
)
@_option("--tls-ca-file", type=_FILE, help="Certificates to trust, PEM. Asks for TLS.")
@_option("--tls-cert-file", type=_FILE, help="The client's certificate, PEM. Asks for TLS.")
@_option(
    "--tls-key-file",
    type=_FILE,
    help="The client certificate's key, PEM.  [default: in the certificate's file]",
)
@_option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error", "critical"], case_sensitive=False),
    default="info",
    help="The least level that is logged.",
)
@_option(
    "--log-format",
    type=click.Choice([JSON, TEXT], case_sensitive=False),
    help="[default: text on a terminal, else json]",
)
def run(log_level: str, log_format: str | None, **options: Any) -> int:
    """Pull starts from JetStream, project them into SQL, and ack what is committed.

    Every option can be set by its variable instead. Exit codes: 0 drained, or idle with
    --until-idle; 64 a wrong option; 65 the database is damaged or none; 70 a bug; 78 the broker or
    the database is not set up for the worker.
    """
    chosen = build_settings(options, os.environ)
    set_up_logging(log_level, log_format or (TEXT if sys.stderr.isatty() else JSON))
    return Service(chosen).run()


def build_settings(options: dict[str, Any], environment: Mapping[str, str]) -> settings.Settings:
    """Return the settings that parsed options and the secrets of the environment make.

    Raises SettingError, which never holds a secret.
    """
    urls = [url for group in options.pop("nats") for url in group]
    database = options.pop("database") or settings.default_database()
    if database is None:
        raise SettingError(
            "--database", "expected a URL, since there is no yoyo.ini here that names a database"
        )
    given = settings.Credentials(
        token=_secret("token", options.pop("token_file"), environment),
        user=options.pop("user"),
        password=_secret("password", options.pop("password_file"), environment),
        creds=_secret("creds", options.pop("creds_file"), environment, settings.parse_creds),
        nkey_seed=_secret(
            "nkey-seed", options.pop("nkey_seed_file"), environment, settings.parse_nkey_seed
        ),
    )
    files = {name: options.pop(f"tls_{name}") for name in ("ca_file", "cert_file", "key_file")}
    if files["key_file"] is not None and files["cert_file"] is None:
        raise SettingError("--tls-key-file", "expected together with --tls-cert-file")
    tls = settings.Tls(
        required=any(url.tls for url in urls) or any(file is not None for file in files.values()),
        **files,
    )
    tls.context()
    return settings.Settings(
        nats_urls=tuple(dict.fromkeys(url.url for url in urls)),
        database=database,
        credentials=settings.merge_credentials(given, urls),
        tls=tls,
        **options,
    )


def _secret(
    name: str,
    file: Path | None,
    environment: Mapping[str, str],
    parse: Callable[[str], str] = str,
) -> str | None:
    """Return a secret from a file or from its variable; raises SettingError without showing it."""
    option = f"--{name}-file"
    variable = _PREFIX + name.replace("-", "_").upper()
    text = environment.get(variable) or None
    if file is not None and text is not None:
        raise SettingError(option, f"expected either the file or {variable}, not both")
    source = variable if file is None else f"{option} {str(file)!r}"
    if file is not None:
        try:
            text = file.read_text("utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise SettingError(source, "expected a text file that can be read") from error
    if text is None:
        return None
    if not text:
        raise SettingError(source, "expected a secret, found nothing")
    try:
        return parse(text)
    except ValueError as error:
        raise SettingError(source, str(error)) from None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with its arguments, or those of the process, and return the exit code."""
    try:
        code = command.main(arguments, prog_name="projector", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except SettingError as error:
        click.echo(f"Error: {error}", err=True)
        return EXIT_USAGE
    except click.exceptions.Abort:
        return 130
    return code if isinstance(code, int) else 0
