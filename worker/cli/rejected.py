"""`projector rejected`: look at rejected events, have them projected again, or discard them."""

from collections.abc import Iterator
from itertools import islice
from typing import Any

import click

from repo.reader import Reader
from worker.cli.context import open_database
from worker.cli.options import database_command, json_option
from worker.cli.output import console, report
from worker.cli.rejected_discard import discard
from worker.cli.rejected_retry import retry
from worker.cli.rejected_selection import reason_option, rejected_id
from worker.cli.rejected_view import event_line, event_members, event_text, print_tables
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.processing import rejections

_SHOWN = 100


@click.group()
def rejected() -> None:
    """Look at rejected events, have them projected again, or discard them.

    A rejected event is a message that no run could be made of. All of these commands may be used
    while workers run. Their results go to standard output, everything else to standard error.
    """


@rejected.command("list", short_help="The rejected events, newest first.")
@reason_option
@click.option("--all", "everything", is_flag=True, help=f"All of them, not only {_SHOWN}.")
@json_option
@database_command
def list_(
    *,
    reason: str | None,
    everything: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """List the rejected events, newest first, and tell when there are more than are shown.

    \b
    projector rejected list --reason "no RFC 3339"
    projector rejected list --all --json | jq -r '.events[].payload'

    With --json: {"events": [{"rejected_id": 7, "rejected_at": …, "stream": "EVENTS",
    "stream_sequence": 123, "recorded_at": …, "subject": …, "reason": …, "bytes": 9, "payload":
    "no start…"}, …], "more": false}. A payload that is no UTF-8 text is null there, and stands in
    "payload_base64".
    """
    with open_database(options).reader() as reader:
        found = rejections.newest_first(reader, reason)
        shown = found if everything else islice(found, _SHOWN)
        if as_json:
            _print_document(reader, (listed.rejected_id for listed in shown), found)
            return EXIT_OK
        printed = print_tables(console(), shown)
        if not printed:
            click.echo("no rejected events", err=True)
        elif not everything and next(found, None) is not None:
            click.echo(f"the newest {printed} are shown; there are more: --all", err=True)
    return EXIT_OK


def _print_document(reader: Reader, ids: Iterator[int], rest: Iterator[Any]) -> None:
    with report(as_json=True, name="events", line=event_line, ending=str) as document:
        for rejected_id in ids:
            # One payload at a time: a page of them may not fit the memory.
            stored = rejections.find(reader, rejected_id)
            if stored is not None:
                document.add(event_members(stored))
        document.end({"more": next(rest, None) is not None})


@rejected.command(short_help="Everything of one event.")
@click.argument("one", type=rejected_id, metavar="ID")
@json_option
@database_command
def show(one: int, as_json: bool, **options: Any) -> int:
    """Show everything of one rejected event, its payload as well.

    \b
    projector rejected show 7
    projector rejected show 7 --json | jq -r .payload

    With --json: one event as in `list`. Exit code 1: there is no such event.
    """
    with open_database(options).reader() as reader:
        stored = rejections.find(reader, one)
    if stored is None:
        click.echo(f"Error: there is no rejected event {one}", err=True)
        return EXIT_PARTLY
    click.echo(event_line(event_members(stored)) if as_json else "\n".join(event_text(stored)))
    return EXIT_OK


rejected.add_command(retry)
rejected.add_command(discard)
