"""The help of a command, with its options in sections, the common ones first."""

from collections.abc import Callable
from typing import Any

import click

# By the name of the option's parameter; every other option is of the command itself.
_SECTIONS: dict[str, tuple[str, ...]] = {
    "Connection": (
        *("nats", "js_domain", "inbox_prefix", "database", "stream", "consumer", "bucket"),
        *("results_stream", "results_consumer", "output_bucket"),
    ),
    "Output": (
        *("form", "as_json", "limit", "everything", "sort", "watch", "details", "log_level"),
        "log_format",
    ),
    "Health and metrics": ("metrics_port", "metrics_host", "stalled_after"),
    "Limits and times": (
        *("batch", "threads", "max_outstanding", "ack_wait", "max_ack_pending", "busy_timeout"),
        *("retry_for", "drain_timeout", "upkeep_every"),
    ),
    "Credentials": (
        *("token_file", "user", "password_file", "creds_file", "nkey_seed_file", "tls_ca_file"),
        *("tls_cert_file", "tls_key_file", "tls_first"),
    ),
}
_OWN = "Options"


class Command(click.Command):
    """A command whose help shows its options in sections."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each kind of option that the command has."""
        for title, parameters in sections(self, ctx).items():
            records = [record for one in parameters if (record := one.get_help_record(ctx))]
            if records:
                with formatter.section(title):
                    formatter.write_dl(records)


def sections(command: click.Command, ctx: click.Context) -> dict[str, list[click.Parameter]]:
    """Return the parameters of each section, in the order of the help."""
    found: dict[str, list[click.Parameter]] = {title: [] for title in (_OWN, *_SECTIONS)}
    of = {name: title for title, names in _SECTIONS.items() for name in names}
    for parameter in command.get_params(ctx):
        found[of.get(parameter.name or "", _OWN)].append(parameter)
    return found


def command(
    name: str | None = None, *, short_help: str
) -> Callable[[Callable[..., Any]], click.Command]:
    """Return a decorator that makes a command of a function, as click's own does."""
    return click.command(name, cls=Command, short_help=short_help)
