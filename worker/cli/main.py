"""The command `projector`: its subcommands, `run`, and the exit code of an error."""

import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import click

from repo.errors import RepositoryError
from worker import __version__
from worker.cli.output import user_message
from worker.cli.streams import discard_output, set_up_streams
from worker.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    OutputError,
    WorkerError,
    exit_code,
)

# The module of each. It is imported when it is used: to import all takes as long as to connect.
_COMMANDS = {
    **{
        name: name
        for name in ("backup", "check", "completion", "config", "copy", "deadlines", "executions")
    },
    **{
        name: name
        for name in (
            "explain",
            "man",
            "migrate",
            "rebuild",
            "rejected",
            "run",
            "runs",
            "sql",
            "status",
            "upkeep",
        )
    },
    "restore": "backup",
    "verify": "verify",
}


class _Group(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's)
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"worker.cli.{_COMMANDS[cmd_name]}")
        found: click.Command = getattr(module, cmd_name)
        return found

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise click.Abort from error


@click.group(
    cls=_Group, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="projector")
def command() -> None:
    """Project starts and results of runs from JetStream into SQL tables.

    Exit codes of every command: 0 success; 1 a result that the command's help explains; 64 an
    option is wrong; 65 the database is corrupt or not a database; 70 a bug; 75 the broker or the
    database is unavailable, or the output cannot be written; 78 broker or database is not set up.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, or those of the process, and return the exit code."""
    set_up_streams()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = command.main(arguments, prog_name="projector", standalone_mode=False)
    except click.Abort:
        click.echo("Interrupted", err=True)
        return EXIT_INTERRUPTED
    except Exception as error:  # noqa: BLE001 (a bug must not exit with 1, which is a result)
        if isinstance(error, OutputError):
            discard_output()
        if list(arguments[:1]) == ["check"] and "--nagios" in arguments:
            from worker.cli.check import unknown_to_nagios  # noqa: PLC0415 (as the command)

            return unknown_to_nagios(error)
        if isinstance(error, click.UsageError):
            error.show()
            return EXIT_USAGE
        if isinstance(error, OutputError) and isinstance(error.__cause__, BrokenPipeError):
            pass  # the reader, such as `head`, has seen enough
        elif isinstance(error, WorkerError | RepositoryError):
            click.echo(f"Error: {user_message(error)}", err=True)
        else:
            traceback.print_exception(error)
        return exit_code(error)
    return code if isinstance(code, int) else EXIT_OK
