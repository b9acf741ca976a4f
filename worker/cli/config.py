"""`projector config`: the settings in effect, and the source of each."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

import click
from click.core import ParameterSource

from worker import settings
from worker.cli.context import chosen_settings
from worker.cli.doubts import find_doubts
from worker.cli.help import command
from worker.cli.options import PREFIX, json_option
from worker.cli.output import Members, json_text
from worker.cli.tables import Cut, member, print_table, terminal
from worker.cli.worker_options import worker_options
from worker.errors import EXIT_OK

_SOURCES: dict[ParameterSource | None, str] = {
    ParameterSource.COMMANDLINE: "command line",
    ParameterSource.DEFAULT: "default",
}
_HIDDEN = "(hidden)"
_COLUMNS = (
    member("OPTION", "option"),
    member("VALUE", "value", Cut.MIDDLE),
    member("SOURCE", "source"),
)


@command(short_help="Show the settings in effect and their sources.")
@worker_options
@json_option
@click.pass_context
def config(context: click.Context, /, *, as_json: bool, **options: Any) -> int:
    """Show the settings that `run` would use here, and the source of each.

    \b
    projector config
    projector config --json | jq -r '.settings[] | select(.source != "default") | .option'

    It takes every option of `run`, and connects to neither broker nor database. It shows the source
    of a secret, but never the secret.

    With --json: {"settings": [{"option": "--batch", "value": 500, "source": "default"}, …],
    "doubts": []}. The source is "command line", "default", the name of a variable, or a file.

    Exit codes: 0 the settings are valid.
    """
    found, doubts = [*_options(context, options), *_secrets(options)], find_doubts(options)
    chosen_settings(options)  # raises where a worker would not start
    if as_json:
        click.echo(json_text({"settings": found, "doubts": doubts}))
    else:
        print_table(terminal(), _COLUMNS, found)
        for doubt in doubts:
            click.echo(f"Warning: {doubt}", err=True)
    return EXIT_OK


def _options(context: click.Context, options: Mapping[str, Any]) -> Iterator[Members]:
    for parameter in context.command.params:
        name = parameter.name or ""
        if name not in options:
            continue
        value = options[name]
        source = _SOURCES.get(context.get_parameter_source(name), str(parameter.envvar))
        if name == "database" and value is None:
            value, source = settings.default_database(), "yoyo.ini"
        unit = parameter.type.name if isinstance(value, float) else ""
        yield {"option": parameter.opts[0], "value": _shown(value, unit), "source": source}


def _shown(value: Any, unit: str) -> bool | float | str | None:
    """Return a value without secrets: a URL without its user information."""
    if unit == "seconds":
        return f"{value:g}s"
    if unit == "duration":
        return f"{value / 86_400:g}d"
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, list | tuple):  # each use of --nats is a list of URLs
        each = (one if isinstance(one, list) else [one] for one in value)
        shown = [str(getattr(one, "url", one)) for listed in each for one in listed]
        return ", ".join(shown) or None
    return str(value)


def _secrets(options: Mapping[str, Any]) -> Iterator[Members]:
    if any(url.credentials != settings.Credentials() for urls in options["nats"] for url in urls):
        yield {"option": "credentials", "value": _HIDDEN, "source": "the URL of --nats"}
    for name in settings.SECRETS:
        if os.environ.get(variable := PREFIX + name.upper()):
            yield {"option": name, "value": _HIDDEN, "source": variable}
