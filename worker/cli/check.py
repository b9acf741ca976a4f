"""`projector check`: is everything there that a worker needs?"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from repo.errors import RepositoryError
from worker.cli.check_findings import Finding, Level, find_all
from worker.cli.context import chosen_settings
from worker.cli.options import json_option
from worker.cli.output import json_text, safe, user_message
from worker.errors import EXIT_OK, EXIT_PARTLY, WorkerError

_NAGIOS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_UNKNOWN = 3
_WORDS = {Level.OK: "ok", Level.WARNING: "warning", Level.PROBLEM: "problem"}


class _Check(click.Command):
    """With --nagios, whatever keeps the command from an answer is unknown to the monitoring."""

    def make_context(
        self,
        info_name: str | None,
        args: list[str],
        parent: click.Context | None = None,
        **extra: Any,
    ) -> click.Context:
        with _unknown(nagios="--nagios" in args):
            return super().make_context(info_name, args, parent, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        with _unknown(nagios=ctx.params["nagios"]):
            return super().invoke(ctx)


@click.command(cls=_Check, short_help="Is everything there that a worker needs?")
@click.option(
    "--thorough", is_flag=True, help="Also read every page of the database, to find damage."
)
@click.option(
    "--nagios",
    is_flag=True,
    help="One line for a monitoring system first, and its exit codes: 0 ok, 1 warning, 2 critical, "
    "3 unknown, such as a wrong option.",
)
@json_option
def check(*, thorough: bool, nagios: bool, as_json: bool, **options: Any) -> int:
    """Check the settings, the database, its disk, and the broker with every right on it.

    \b
    projector check
    ExecStartPre=-/opt/projector/bin/projector check
    projector check --nagios

    It takes every option of `run`, makes and changes nothing, and may be used before a worker
    starts or beside one. For the rights it sends the broker what means nothing, and notes what is
    refused. In a unit file the - matters: without it a problem fails the start, and systemd tries
    again for ever.

    With --json: {"findings": [{"name": "rights", "level": "problem", "text": …}, …], "level":
    "problem"}.

    Exit codes: 0 nothing is amiss, or what is only deserves a warning; 1 there is a problem; 64 a
    wrong option; with --nagios 0 to 3 alone.
    """
    # What would be logged stands among the findings; the level is for the worker.
    options["log_level"] = "critical"
    settings = chosen_settings(options)
    findings = []
    for finding in find_all(settings, thorough=thorough):
        findings.append(finding)
        if not (nagios or as_json):
            click.echo(_line(finding))
    worst = max(finding.level for finding in findings)
    if as_json:
        click.echo(_document(findings, worst))
    elif nagios:
        click.echo(_nagios_lines(findings, worst))
    if nagios:
        return int(worst)
    return EXIT_PARTLY if worst is Level.PROBLEM else EXIT_OK


@contextmanager
def _unknown(*, nagios: bool) -> Iterator[None]:
    """Where `nagios` is set, print any error as one line, and end the command with UNKNOWN."""
    try:
        yield
    except click.exceptions.Exit:  # --help
        raise
    except Exception as error:
        if not nagios:
            raise
        click.echo(_nagios_line(f"PROJECTOR {_NAGIOS[_UNKNOWN]}: {_reason(error)}"))
        raise click.exceptions.Exit(_UNKNOWN) from error


def _reason(error: Exception) -> str:
    if isinstance(error, click.UsageError):
        return error.format_message()
    if isinstance(error, WorkerError | RepositoryError):
        return user_message(error)
    # Its text may hold anything, a secret as well.
    return f"a bug ({type(error).__name__}); without --nagios it is told in full"


def _line(finding: Finding) -> str:
    return f"{_WORDS[finding.level]:8} {finding.name:10} {safe(finding.text)}"


def _document(findings: Sequence[Finding], worst: Level) -> str:
    listed = [
        {"name": finding.name, "level": _WORDS[finding.level], "text": finding.text}
        for finding in findings
    ]
    return json_text({"findings": listed, "level": _WORDS[worst]})


def _nagios_lines(findings: Sequence[Finding], worst: Level) -> str:
    amiss = [f"{finding.name}: {finding.text}" for finding in findings if finding.level is worst]
    summary = "; ".join(amiss) if worst else f"{len(findings)} checks"
    first = f"PROJECTOR {_NAGIOS[worst]}: {summary}"
    lines = [first, *(_line(finding) for finding in findings)]
    return "\n".join(_nagios_line(line) for line in lines)


def _nagios_line(text: str) -> str:
    # A | would begin performance data.
    return safe(text).replace("|", "/")
