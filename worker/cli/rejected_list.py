"""`projector rejected list` and `show`, and the filters that select rejected events."""

import base64
import time
from collections.abc import Iterator
from operator import itemgetter
from typing import Any

import click

from repo import rejected as rejected_events
from repo.rejected import AFTER_ALL, RejectedEvent, kind_of_reason
from worker.cli.context import open_database
from worker.cli.help import command
from worker.cli.lists import JSON, Listing, grouped, list_options, pop_view, show_list
from worker.cli.options import SINCE, Whole, database_command, database_options, together
from worker.cli.output import Members, json_text, safe
from worker.cli.runs import time_column
from worker.cli.tables import Cut, member, number
from worker.codec.timestamps import format_instant
from worker.errors import EXIT_OK, EXIT_PARTLY
from worker.processing import rejections
from worker.processing.rejections import Filters

_LIST = Listing(
    "events",
    "rejected_id",
    (
        *(number("ID", "rejected_id"), time_column("REJECTED UTC", "rejected_at")),
        *(member("PC", "pc_id", Cut.MIDDLE), member("REASON", "reason", Cut.END)),
    ),
    (
        *("rejected_id", "rejected_at", "stream", "stream_sequence", "recorded_at", "subject"),
        *("pc_id", "bytes", "reason"),
    ),
    "no matching rejected events",
)
_GROUPS = {"reason": "reason", "pc": "pc_id", "subject": "subject"}

event_id = Whole(1, AFTER_ALL)

# These have no variables: one left in a shell would select events for a later command.
filter_options = together(
    click.option(
        "--reason",
        metavar="TEXT",
        help="Select the events whose reason contains TEXT, literally and case-sensitively.",
    ),
    click.option(
        "--pc",
        metavar="ID",
        help="Select the events of this PC, by the subject of a start or the payload of a result.",
    ),
    click.option(
        "--since",
        type=SINCE,
        metavar="TIME",
        help="Select the events that were rejected at or after TIME: an RFC 3339 time, or a "
        "duration before now, such as 2h.",
    ),
)


def pop_filters(options: dict[str, Any]) -> Filters:
    """Return the filters of `filter_options`, and remove them from the options."""
    reason, pc, since = (options.pop(name) for name in ("reason", "pc", "since"))
    for option, value in (("--reason", reason), ("--pc", pc)):
        if value == "":
            problem = "expected a text; an empty one would select all events"
            raise click.UsageError(f"{option}: {problem}")
    rejected_since = None if since is None else format_instant(since.before(time.time_ns()))
    return Filters(reason, pc, rejected_since)


@command("list", short_help="List rejected events, newest first.")
@filter_options
@click.option("--by", type=click.Choice(list(_GROUPS)), help="Count events by one of these.")
@list_options(["pc", "subject", "reason"])
@database_options
def list_(*, by: str | None, **options: Any) -> int:
    """List rejected events, newest first. An event must match every filter.

    With --by it counts them, the largest group first. Reasons that differ in numbers alone are one
    group, which is shown by its newest reason.

    \b
    projector rejected list --by reason --since 2h
    projector rejected list --reason "RFC 3339" --pc lyon-04
    projector rejected list --all --json | jq -r '.events[].payload'

    With --json: {"events": [{"rejected_id": 7, "stream": "EVENTS", "stream_sequence": 123,
    "subject": …, "reason": …, "payload": "not JSON", …}, …], "more": false, "remaining": 0}, or
    with --by {"groups": [{"reason": …, "events": 3, "first_rejected_at": …, "last_rejected_at": …,
    "newest_id": 7}, …], "by": "reason", …}. If the payload is not UTF-8, "payload" is null and
    "payload_base64" holds it.

    Exit codes: 0, even if no event matches.
    """
    view, filters = pop_view(options), pop_filters(options)
    if by is not None and view.sort is not None:
        raise click.UsageError("--sort is for events; groups are sorted by their size")
    database = open_database(options)

    def find() -> Iterator[Members]:
        with database.reader() as reader:
            for listed in rejections.newest_first(reader, filters):
                # For some events the payload is read with it.
                pc_id = rejections.pc_of(reader, listed) if by != "reason" else None
                if view.form != JSON:
                    yield {**listed._asdict(), "pc_id": pc_id}
                elif event := reader.read(rejected_events.find, listed.rejected_id):
                    yield {**event_members(listed.rejected_id, event), "pc_id": pc_id}

    if by is None:
        sorts = {name: itemgetter(column) for name, column in _GROUPS.items()}
        show_list(view, _LIST, find, sorts=sorts)
        return EXIT_OK
    key_of = kind_of_reason if by == "reason" else str

    def find_groups() -> Iterator[Members]:
        return grouped(find(), by, _GROUPS[by], "events", add_up=_add_up, key_of=key_of)

    show_list(view, _groups_of(by), find_groups, about=lambda: {"by": by})
    return EXIT_OK


def _groups_of(by: str) -> Listing:
    columns = (
        *(number("EVENTS", "events"), time_column("FIRST UTC", "first_rejected_at")),
        *(time_column("LAST UTC", "last_rejected_at"), number("NEWEST ID", "newest_id")),
        member(by.upper(), by, Cut.END if by == "reason" else Cut.MIDDLE),
    )
    wide = (by, "events", "first_rejected_at", "last_rejected_at", "newest_id")
    return Listing("groups", by, columns, wide, _LIST.nothing)


def _add_up(group: Members, event: Members) -> None:
    group["first_rejected_at"] = event["rejected_at"]  # newest first, so the last one stays
    group.setdefault("last_rejected_at", event["rejected_at"])
    group.setdefault("newest_id", event["rejected_id"])


@command(short_help="Show one event with its payload.")
@click.argument("one", type=event_id, metavar="ID")
@database_command
def show(one: int, as_json: bool, **options: Any) -> int:
    """Show one rejected event with its payload.

    \b
    projector rejected show 7
    projector rejected show 7 --json | jq -r .payload

    With --json: one event as in `list`. Exit code 1: the event does not exist.
    """
    with open_database(options).reader() as reader:
        event = reader.read(rejected_events.find, one)
    if event is None:
        click.echo(f"Error: rejected event {one} does not exist", err=True)
        return EXIT_PARTLY
    members = event_members(one, event)
    click.echo(json_text(members) if as_json else "\n".join(_lines(members, event.payload)))
    return EXIT_OK


def event_members(rejected_id: int, event: RejectedEvent) -> Members:
    """Return a rejected event for JSON: its payload is text, or base64 where it is not UTF-8."""
    members = {"rejected_id": rejected_id, "rejected_at": event.rejected_at, **event._asdict()}
    payload = members.pop("payload")
    members["bytes"] = len(payload)
    try:
        members["payload"] = payload.decode("utf-8")
    except UnicodeDecodeError:
        members["payload"] = None
        members["payload_base64"] = base64.b64encode(payload).decode("ascii")
    return members


def _lines(members: Members, payload: bytes) -> Iterator[str]:
    """Yield lines that show everything of an event, each safe for a terminal."""
    kind = "text" if members["payload"] is not None else r"not UTF-8, other bytes shown as \xNN"
    for name in list(members)[:7]:
        yield f"{name.replace('_', ' '):16} {safe(str(members[name]))}"
    yield f"{'payload':16} {members['bytes']} bytes, {kind}:"
    for line in payload.decode("utf-8", "backslashreplace").split("\n"):
        yield f"  {safe(line)}"
