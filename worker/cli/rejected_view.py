"""Rejected events as people and programs read them."""

import base64
from collections.abc import Iterable, Iterator
from itertools import islice

from rich.console import Console

from repo.rejected import Listed
from worker.cli.output import Members, json_text, safe, shortened
from worker.cli.tables import table
from worker.processing.rejections import PAGE_ROWS, UNKNOWN, Stored

_LONGEST_SUBJECT = 100


def event_members(stored: Stored) -> Members:
    """Return everything of an event for JSON: a payload that is no UTF-8 text in base64."""
    event = stored.event
    members: Members = {
        "rejected_id": stored.rejected_id,
        "rejected_at": event.rejected_at,
        "stream": event.stream,
        "stream_sequence": event.stream_sequence,
        "recorded_at": event.recorded_at,
        "subject": event.subject,
        "reason": event.reason,
        "bytes": len(event.payload),
    }
    try:
        members["payload"] = event.payload.decode("utf-8")
    except UnicodeDecodeError:
        members["payload"] = None
        members["payload_base64"] = base64.b64encode(event.payload).decode("ascii")
    return members


def event_text(stored: Stored) -> Iterator[str]:
    """Yield the lines that show everything of an event, each safe for a terminal."""
    members = event_members(stored)
    is_text = members["payload"] is not None
    for name in list(members)[:7]:
        yield f"{name.replace('_', ' '):16} {safe(str(members[name]))}"
    kind = "text" if is_text else r"no UTF-8 text, other bytes as \xNN"
    yield f"{'payload':16} {members['bytes']} bytes, {kind}:"
    for line in stored.event.payload.decode("utf-8", "backslashreplace").split("\n"):
        yield f"  {safe(line)}"


def event_line(item: Members) -> str:
    """Return all of an event on one line, from which it can be made again."""
    return json_text(item)


def outcome_line(item: Members) -> str:
    """Return what became of one event, on one line."""
    reason = f": {safe(item['reason'])}" if item.get("reason") else ""
    what = "no such rejected event" if item["outcome"] == UNKNOWN else item["outcome"]
    return f"{item['rejected_id']}  {what}{reason}"


def print_tables(console: Console, listed: Iterable[Listed]) -> int:
    """Print events in tables of bounded length and return how many there were."""
    printed = 0
    rows = iter(listed)
    while page := list(islice(rows, PAGE_ROWS)):
        console.print(table(_COLUMNS, (_row(event) for event in page)))
        printed += len(page)
    return printed


_COLUMNS = ("id#", "rejected at", "sequence#", "subject", "bytes#", "reason")


def _row(event: Listed) -> tuple[object, ...]:
    subject = shortened(event.subject, _LONGEST_SUBJECT)
    sequence = event.stream_sequence
    return event.rejected_id, event.rejected_at, sequence, subject, event.bytes, event.reason
