"""Starts: "this run has started". The one place that knows their stream, members and columns."""

from operator import attrgetter
from typing import Any, NamedTuple

from repo import queries
from repo.batch_writer import INSERTED
from repo.execution_results import START_WRITER, Run
from repo.queries import FoundRun
from worker.codec.jsontext import TextScanner
from worker.codec.timestamps import format_instant, parse_stored, to_stored
from worker.messages import Message
from worker.projections.base import (
    DIFFERENT,
    EQUAL,
    EXISTING,
    Comparison,
    Differences,
    Projection,
    StreamSpec,
)
from worker.projections.deadline import deadline
from worker.projections.manifests import Deadlines, ManifestCache
from worker.projections.members import instant, read_members, text

# Further outcomes of a comparison.
DEADLINE_CHANGED = "deadline_changed"  # the manifest changed later; the row keeps its deadline
DEADLINE_MISSING = "deadline_missing"  # it could not be computed when the row was written


class EventStarted(NamedTuple):
    """A start. `started_at` is stored text, by the agent's clock."""

    result_id: str
    request_id: str
    exec_id: str
    pc_id: str
    started_at: str
    manifest_id: str
    version: str


_scanner = TextScanner(EventStarted._fields)


def decode_start(payload: bytes) -> EventStarted:
    """Return the start that a payload holds; raises MalformedEvent for any other payload."""
    texts = _scanner.scan(payload)
    if texts is None:
        return read_start(payload)
    result_id, request_id, exec_id, pc_id, started_at, manifest_id, version = texts
    try:
        started_at = to_stored(started_at)
    except ValueError:
        return read_start(payload)
    return EventStarted(result_id, request_id, exec_id, pc_id, started_at, manifest_id, version)


def read_start(payload: bytes) -> EventStarted:
    """Return and raise as `decode_start`, without its shortcut for plain payloads."""
    members = read_members(payload, EventStarted._fields)
    return EventStarted(
        text(members, "result_id"),
        text(members, "request_id"),
        text(members, "exec_id"),
        text(members, "pc_id"),
        instant(members, "started_at"),
        text(members, "manifest_id"),
        text(members, "version"),
    )


def build_run(start: EventStarted, message: Message, deadlines: Deadlines) -> Run:
    """Return the row of a start; its deadline counts from the store time of its message."""
    return Run(
        start.result_id,
        start.request_id,
        start.exec_id,
        start.pc_id,
        start.started_at,
        start.version,
        start.manifest_id,
        format_instant(message.stored_at),
        deadlines.deadline(start.manifest_id, message.stored_at),
    )


def compare_run(
    expected: Run, found: FoundRun, manifests: ManifestCache, deadlines: bool
) -> Comparison:
    """Return how a stored run compares with the row that its start makes now."""
    columns = _differences(expected, found.run)
    if not deadlines:
        columns.pop("expires_at", None)
    if found.finished_at is not None and not found.reaped:
        for name in ("request_id", "job_id"):  # the result writes them
            columns.pop(name, None)
    return Comparison(_outcome(expected, found, columns, manifests), columns)


def _differences(expected: Run, found: Run) -> Differences:
    return {
        name: (ours, theirs)
        for name, ours, theirs in zip(Run._fields, expected, found, strict=True)
        if ours != theirs
    }


def _outcome(expected: Run, found: FoundRun, columns: Differences, manifests: ManifestCache) -> str:
    if not columns:
        return EQUAL
    if "recorded_at" in columns:
        # The first writer wins, and another program may write a whole row when a run ends.
        is_earlier = found.run.recorded_at < expected.recorded_at
        return EXISTING if is_earlier or found.finished_at is not None else DIFFERENT
    if set(columns) != {"expires_at"}:
        return DIFFERENT
    return _deadline_outcome(expected, found.run, manifests)


def _deadline_outcome(expected: Run, found: Run, manifests: ManifestCache) -> str:
    """Distinguish the deadline of an earlier timeout from one that no timeout can have made."""
    if found.expires_at is None:
        return DEADLINE_MISSING
    if found.expires_at < format_instant(deadline(parse_stored(found.recorded_at), 0)):
        return DIFFERENT
    manifest = manifests.find(expected.job_id)
    changed_at = manifest.put_at if manifest is not None else 0
    is_gone = expected.expires_at is None
    put_after = format_instant(changed_at) > expected.recorded_at
    return DEADLINE_CHANGED if is_gone or put_after else DIFFERENT


def _log_fields(run: Run) -> dict[str, Any]:
    return {
        "result_id": run.result_id,
        "exec_id": run.exec_id,
        "pc_id": run.pc_id,
        "manifest_id": run.job_id,
    }


# The stream as the contract has it: seven days, 256 MiB.
STARTS: Projection[EventStarted, Run] = Projection(
    name="starts",
    stream=StreamSpec("EVENTS", ("events.>",), max_age=7 * 86_400, max_bytes=256 * 1024 * 1024),
    filter_subject="events.started.>",
    default_consumer="backend_events_projector",
    decode=decode_start,
    build_row=build_run,
    writer=lambda _: START_WRITER,
    outcomes={INSERTED: "runs_inserted"},
    duplicates="runs_duplicate",
    key=attrgetter("result_id"),
    find=queries.find,
    compare=compare_run,
    log_fields=_log_fields,
)
