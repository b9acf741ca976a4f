"""The command `projector`: its subcommands, `run`, and the exit code of an error."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from repo.errors import RepositoryError
from worker import __version__
from worker.cli import options
from worker.cli.backup import backup, restore
from worker.cli.check import check
from worker.cli.config import config, with_options_of
from worker.cli.explain import explain
from worker.cli.migrate import migrate
from worker.cli.options import SECONDS, Whole, build_settings, option
from worker.cli.output import escape_unencodable_output, user_message
from worker.cli.rebuild import rebuild
from worker.cli.rejected import rejected
from worker.cli.runs import runs
from worker.cli.sql import sql
from worker.cli.status import status
from worker.cli.verify import verify
from worker.errors import EXIT_SOFTWARE, EXIT_USAGE, WorkerError, exit_code
from worker.logs import JSON, TEXT, set_up_logging
from worker.service import Service


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="projector")
def command() -> None:
    """Project events from a JetStream stream into SQL tables."""


@command.command(short_help="Run the worker.")
@options.servers
@options.database
@options.stream
@options.consumer
@options.bucket
@option(
    "--create-stream",
    is_flag=True,
    help="Create the stream if it does not exist. Otherwise the worker waits for it.",
)
@option(
    "--migrate",
    is_flag=True,
    help="Apply pending migrations at start. Otherwise the worker exits with code 78 and names the "
    "command to run.",
)
@option(
    "--until-idle",
    is_flag=True,
    help="Exit with code 0 as soon as no message is pending or ack pending.",
)
@option(
    "--no-replay",
    is_flag=True,
    help="Do not replay history. Otherwise the worker projects again the events that were acked on "
    "the broker but are missing from a wiped or restored database.",
)
@option(
    "--batch",
    type=Whole(1, 10_000),
    help="Write at most this many messages in one transaction. Batches grow with the load. "
    "Measured: 500 costs about a tenth of the throughput, 2000 and 4000 gain less than that.",
)
@option(
    "--threads",
    type=Whole(1, 64),
    help="Use this many threads for the database. One writes at a time, the others prepare. "
    "Measured: 1 and 2 are within a tenth of each other, 4 is slower; 2 keep decoding while a slow "
    "disk syncs.",
)
@option(
    "--max-outstanding",
    type=Whole(1, 100_000),
    help="Hold at most this many messages that are not acked, and 32 MiB. This bounds the memory. "
    "Four batches keep the threads busy.",
)
@option(
    "--ack-wait",
    type=SECONDS,
    help="Let the broker redeliver a message after this long without an ack. Used when the "
    "consumer is created; an existing consumer keeps its own value.",
)
@options.patience
@option(
    "--drain-timeout",
    type=SECONDS,
    help="Wait this long for started batches when stopping. The broker redelivers the rest to the "
    "next worker.",
)
@options.observability
@options.credentials
@options.logs("info")
def run(log_level: str, log_format: str | None, **chosen: Any) -> int:
    """Pull events from JetStream, write them to the database, and ack them after the commit.

    Every option can be set by its variable instead. Exit codes: 0 the worker drained and stopped,
    or was idle with --until-idle; 64 an option is wrong; 65 the database is corrupt or not a
    database; 70 a bug; 78 the broker or the database is not set up for the worker.
    """
    settings = build_settings(chosen, os.environ)
    set_up_logging(log_level, log_format or (TEXT if sys.stderr.isatty() else JSON))
    return Service(settings).run()


command.add_command(with_options_of(run, check))
command.add_command(with_options_of(run, config))
for subcommand in (
    *(status, runs, explain, verify, rebuild, sql, rejected),
    *(migrate, backup, restore),
):
    command.add_command(subcommand)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with `arguments`, or those of the process, and return the exit code."""
    escape_unencodable_output()
    try:
        code = command.main(arguments, prog_name="projector", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except (WorkerError, RepositoryError) as error:
        click.echo(f"Error: {user_message(error)}", err=True)
        return exit_code(error)
    except click.exceptions.Abort:
        return 130
    except Exception:  # noqa: BLE001 (a bug must not exit with 1, which is a result)
        traceback.print_exc()
        return EXIT_SOFTWARE
    return code if isinstance(code, int) else 0
