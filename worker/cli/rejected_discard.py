"""`projector rejected discard`: events that are of no use, printed whole and then deleted."""

import sys
from collections.abc import Sequence
from typing import Any

import click

from repo.reader import Reader
from worker.cli.context import Opened, open_database
from worker.cli.options import database_command, json_option
from worker.cli.output import counted, report
from worker.cli.rejected_selection import all_option, ids_argument, reason_option, selected
from worker.cli.rejected_view import event_line, event_members
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.processing import rejections
from worker.processing.rejections import UNKNOWN


@click.command(short_help="Delete events that are of no use.")
@ids_argument
@all_option
@reason_option
@click.option("--yes", is_flag=True, help="Do not ask. Needed where nobody can be asked.")
@json_option
@database_command
def discard(
    *,
    ids: tuple[int, ...],
    everything: bool,
    reason: str | None,
    yes: bool,
    as_json: bool,
    **options: Any,
) -> int:
    """Delete rejected events, each of which is printed whole before it goes.

    \b
    projector rejected discard 7 8 >> discarded.log
    projector rejected discard --reason "not JSON" --yes --json > discarded.json

    With --all or --reason it asks first; what is rejected in the meantime stays.

    With --json: {"events": […, as in `list`], "discarded": [7, 8], "unknown": [9]}. Exit code 1:
    there is no such event, or the answer was no.
    """
    selection = selected(ids, everything, reason)
    if not (selection.by_id or yes or sys.stdin.isatty()):
        raise click.UsageError("nobody can be asked here: --yes discards without a question")
    opened = open_database(options)
    with opened.reader() as reader:
        chosen = selection.ids(reader)
        if chosen and not (selection.by_id or yes):
            question = f"Discard {len(chosen)} rejected events for good?"
            if not click.confirm(question, err=True):
                return EXIT_PARTLY
        unknown = _discard_all(opened, reader, chosen, as_json=as_json)
    return EXIT_PARTLY if unknown and selection.by_id else EXIT_OK


def _discard_all(opened: Opened, reader: Reader, ids: Sequence[int], *, as_json: bool) -> list[int]:
    """Discard events and return the ids that are not there."""
    discarded: list[int] = []
    unknown: list[int] = []

    def ending(_: object) -> str:
        lines = [f"{rejected_id}  discarded" for rejected_id in discarded]
        lines += [f"{rejected_id}  no such rejected event" for rejected_id in unknown]
        return "\n".join([*lines, counted({"discarded": len(discarded), UNKNOWN: len(unknown)})])

    with (
        opened.repository() as repository,
        report(as_json=as_json, name="events", line=event_line, ending=ending) as told,
    ):
        try:
            for page in rejections.pages(reader, ids, unknown):
                # First out of this process, then deleted: no failure of either can lose an event.
                for stored in page:
                    told.add(event_members(stored))
                repository.discard_rejected([stored.event.key for stored in page])
                discarded += [stored.rejected_id for stored in page]
        finally:
            told.end({"discarded": discarded, "unknown": unknown})
    return unknown
