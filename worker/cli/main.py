"""The command `projector`: its subcommands, `run`, and the exit code of an error."""

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from repo.errors import RepositoryError
from worker import __version__
from worker.cli import options
from worker.cli.backup import backup, restore
from worker.cli.check import check, unknown_to_nagios
from worker.cli.config import config
from worker.cli.context import chosen_settings
from worker.cli.doubts import find_doubts
from worker.cli.executions import executions
from worker.cli.explain import explain
from worker.cli.migrate import migrate
from worker.cli.options import SECONDS, Whole, flag, option
from worker.cli.output import user_message
from worker.cli.rebuild import rebuild
from worker.cli.rejected import rejected
from worker.cli.runs import runs
from worker.cli.sql import sql
from worker.cli.status import status
from worker.cli.streams import discard_output, set_up_streams
from worker.cli.upkeep import upkeep
from worker.cli.verify import verify
from worker.errors import (
    EXIT_INTERRUPTED,
    EXIT_OK,
    EXIT_USAGE,
    OutputError,
    SettingError,
    WorkerError,
    exit_code,
)
from worker.projections.starts import STARTS
from worker.service import Service

log = logging.getLogger(__name__)


class _Group(click.Group):
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


@command.command(short_help="Run the worker.")
@options.servers
@options.database
@options.stream
@options.consumer
@options.bucket
@options.projections
@options.results_stream
@options.results_consumer
@options.output_bucket
@flag("--create-stream", "Create a missing stream. Otherwise the worker waits for it.")
@flag("--migrate", "Apply pending migrations at start. Otherwise the worker exits with code 78.")
@flag("--until-idle", "Exit with code 0 as soon as no message is pending or ack pending.")
@option("--batch", Whole(1, 10_000), "Write at most this many messages in one transaction.")
@option("--threads", Whole(1, 64), "Use this many threads: one writes, the others decode.")
@option("--max-outstanding", Whole(1, 100_000), "Hold at most this many unacked messages.")
@option(
    *("--ack-wait", SECONDS),
    "Let the broker redeliver after this long without an ack. Used to create the consumer.",
)
@option(
    *("--max-ack-pending", Whole(1, 1_000_000)),
    "Let the broker deliver at most this many messages, for all workers together, before an ack. "
    "Used to create the consumer.",
)
@options.patience
@option("--drain-timeout", SECONDS, "Wait this long for started batches when stopping.")
@option(
    "--upkeep-every",
    SECONDS,
    "Promote late executions, give up overdue runs and delete old rows at this interval.",
)
@options.retention
@options.observability
@options.credentials
@options.logs("info")
def run(**chosen: Any) -> int:
    """Pull events from JetStream, write them to the database, and ack them after the commit.

    Every option can be set by its variable instead. Exit code 0: the worker drained and stopped, or
    was idle with --until-idle. It waits for an unavailable broker or database.
    """
    doubts = find_doubts(chosen)
    settings = chosen_settings(chosen)
    if STARTS not in settings.chosen:
        problem = "expected starts as well as results: each result waits for the start of its run"
        raise SettingError("--projection", problem)
    for doubt in doubts:
        log.warning("settings.doubtful", extra={"doubt": doubt})
    return Service(settings).run()


for one in (check, config):
    one.params = [*run.params, *one.params]
for one in (
    *(check, config, status, runs, executions, explain, verify, rebuild, sql, rejected),
    *(migrate, backup, restore, upkeep),
):
    command.add_command(one)


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
