"""The command `projector`: its parts, `run`, and what an error means for the exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from repo.errors import RepositoryError
from worker import __version__
from worker.cli.backup import backup, restore
from worker.cli.build_settings import build_settings
from worker.cli.check import check
from worker.cli.config import config, with_options_of
from worker.cli.explain import explain
from worker.cli.migrate import migrate
from worker.cli.options import (
    SECONDS,
    Whole,
    bucket,
    consumer,
    credentials,
    database,
    logs,
    option,
    patience,
    seen_from_outside,
    servers,
    stream,
)
from worker.cli.output import keep_printing, told
from worker.cli.rebuild import rebuild
from worker.cli.rejected import rejected
from worker.cli.runs import runs
from worker.cli.sql import sql
from worker.cli.status import status
from worker.cli.verify import verify
from worker.errors import EXIT_SOFTWARE, EXIT_USAGE, WorkerError, exit_code
from worker.logs import JSON, TEXT, set_up_logging
from worker.service import Service

__all__ = ["build_settings", "command", "main", "run"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="projector")
def command() -> None:
    """Project starts of runs from a JetStream stream into SQL."""


@command.command(short_help="Pull, project, ack, until stopped.")
@servers
@database
@stream
@consumer
@bucket
@option(
    "--create-stream",
    is_flag=True,
    help="Make the stream if it is missing. Without it a missing stream is waited for.",
)
@option(
    "--migrate",
    is_flag=True,
    help="Apply pending migrations at start. Without it they mean exit 78 with the command to run.",
)
@option(
    "--until-idle",
    is_flag=True,
    help="Exit 0 as soon as nothing is pending and nothing ack_pending, instead of running on.",
)
@option(
    "--no-replay",
    is_flag=True,
    help="Never replay history by itself. Without it, starts that the broker counts as settled and "
    "a wiped or restored database lacks are projected again.",
)
@option(
    "--batch",
    type=Whole(1, 10_000),
    default=1000,
    help="Most messages in one transaction. Batches grow by themselves with the load. Measured: "
    "500 cost about a tenth of the throughput, 2000 and 4000 gained less than that.",
)
@option(
    "--threads",
    type=Whole(1, 64),
    default=2,
    help="Threads of the repository pool. One writes at a time, the others prepare. Measured: 1 "
    "and 2 within a tenth of each other, 4 slower; 2 keep decoding while a slow disk syncs.",
)
@option(
    "--max-outstanding",
    type=Whole(1, 100_000),
    default=4000,
    help="Most messages here and not settled, and 32 MiB; bounds the memory. Four batches keep the "
    "threads busy.",
)
@option(
    "--ack-wait",
    type=SECONDS,
    default="30s",
    help="After this long without an ack the broker delivers again. Used when the consumer is "
    "created; one that is there keeps its own.",
)
@patience
@option(
    "--drain-timeout",
    type=SECONDS,
    default="20s",
    help="How long a stop waits for what has begun. What is left is delivered to the next worker.",
)
@seen_from_outside
@credentials
@logs("info")
def run(log_level: str, log_format: str | None, **options: Any) -> int:
    """Pull starts from JetStream, project them into SQL, and ack what is committed.

    Every option can be set by its variable instead. Exit codes: 0 drained, or idle with
    --until-idle; 64 a wrong option; 65 the database is damaged or none; 70 a bug; 78 the broker or
    the database is not set up for the worker.
    """
    chosen = build_settings(options, os.environ)
    set_up_logging(log_level, log_format or (TEXT if sys.stderr.isatty() else JSON))
    return Service(chosen).run()


command.add_command(with_options_of(run, check))
command.add_command(with_options_of(run, config))
command.add_command(status)
command.add_command(runs)
command.add_command(explain)
command.add_command(verify)
command.add_command(rebuild)
command.add_command(sql)
command.add_command(rejected)
command.add_command(migrate)
command.add_command(backup)
command.add_command(restore)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with its arguments, or those of the process, and return the exit code."""
    keep_printing()
    try:
        code = command.main(arguments, prog_name="projector", standalone_mode=False)
    except click.UsageError as error:
        error.show()
        return EXIT_USAGE
    except (WorkerError, RepositoryError) as error:
        click.echo(f"Error: {told(error)}", err=True)
        return exit_code(error)
    except click.exceptions.Abort:
        return 130
    except Exception:  # noqa: BLE001 (a bug; its code must not look like a result)
        traceback.print_exc()
        return EXIT_SOFTWARE
    return code if isinstance(code, int) else 0
