"""Results: "this run has ended". The one place that knows their stream, members and columns."""

import uuid
from operator import attrgetter
from typing import Any, NamedTuple

from repo import queries, results
from repo.batch_writer import INSERTED
from repo.queries import FoundEnd
from repo.results import ENDED, FAILED, LATE, SKIPPED, SUCCEEDED, Result
from worker.codec.jsontext import scan_members
from worker.codec.timestamps import format_instant, to_stored
from worker.messages import NOT_FETCHED, Fetch, Message
from worker.projections.base import (
    DIFFERENT,
    EQUAL,
    NOT_WRITTEN,
    Comparison,
    Projection,
    StreamSpec,
)
from worker.projections.manifests import ManifestCache
from worker.projections.members import (
    LARGEST_INTEGER,
    LEAST_INTEGER,
    boolean,
    instant,
    integer,
    optional_text,
    read_members,
    text,
)

_TEXTS = ("result_id", "request_id", "pc_id", "stdout", "stderr", "started_at", "finished_at")
_OPTIONAL_TEXTS = ("exec_id", "parent_result_id", "manifest_id", "stdout_object", "stderr_object")
_ARE_TEXTS = [str] * len(_TEXTS)
_ARE_OPTIONAL = frozenset((str, type(None)))

# What the original hashes where an agent of an older version sends no id; see `_legacy_id`.
_LEGACY_ID = "kanade-issue-19/legacy-result-id"

_LONGEST_SHOWN = 60


class EventResult(NamedTuple):
    """A result. Times are stored text, by the agent's clock.

    `stdout_object` and `stderr_object` name the objects that hold the output in its stead.
    """

    result_id: str
    request_id: str
    pc_id: str
    exit_code: int
    stdout: str
    stderr: str
    started_at: str
    finished_at: str
    skipped: bool
    exec_id: str | None
    parent_result_id: str | None
    manifest_id: str | None
    stdout_object: str | None
    stderr_object: str | None


def decode_result(payload: bytes) -> EventResult:
    """Return the result that a payload holds; raises MalformedEvent for any other payload."""
    members = scan_members(payload)
    # UTF-8 cannot hold a lone surrogate, so only an escape brings one.
    plain = None if members is None else _read_plain(members, b"\\u" in payload)
    return read_result(payload) if plain is None else plain


def read_result(payload: bytes) -> EventResult:
    """Return and raise as `decode_result`, without its shortcut for what is nearly always sent."""
    members = read_members(payload, EventResult._fields)
    request_id, pc_id = text(members, "request_id"), text(members, "pc_id")
    result_id = text({"result_id": "", **members}, "result_id")
    return EventResult(
        result_id or _legacy_id(request_id, pc_id),
        request_id,
        pc_id,
        integer(members, "exit_code"),
        text(members, "stdout"),
        text(members, "stderr"),
        instant(members, "started_at"),
        instant(members, "finished_at"),
        boolean(members, "skipped", otherwise=False),
        optional_text(members, "exec_id"),
        optional_text(members, "parent_result_id"),
        optional_text(members, "manifest_id"),
        optional_text(members, "stdout_object"),
        optional_text(members, "stderr_object"),
    )


def _read_plain(members: dict[str, Any], may_be_surrogates: bool) -> EventResult | None:
    """Return the result, or None where `read_result` has to find out what is wrong."""
    get = members.get
    texts: list[Any] = [get(name) for name in _TEXTS]
    optional: list[Any] = [get(name) for name in _OPTIONAL_TEXTS]
    exit_code, skipped = get("exit_code"), get("skipped", False)
    result_id, request_id, pc_id, stdout, stderr, started_at, finished_at = texts
    if not (
        result_id
        and [*map(type, texts)] == _ARE_TEXTS
        and _ARE_OPTIONAL.issuperset(map(type, optional))
        and type(exit_code) is int
        and LEAST_INTEGER <= exit_code <= LARGEST_INTEGER
        and type(skipped) is bool
    ):
        return None
    try:
        if may_be_surrogates:
            for text in (*texts, *filter(None, optional)):
                text.encode()  # fails for a lone surrogate
        started_at, finished_at = to_stored(started_at), to_stored(finished_at)
    except ValueError:
        return None
    return EventResult(
        result_id,
        request_id,
        pc_id,
        exit_code,
        stdout,
        stderr,
        started_at,
        finished_at,
        skipped,
        *optional,
    )


def _legacy_id(request_id: str, pc_id: str) -> str:
    """Return the id of a result without one: the same each time, so that it stays one run."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, f"{_LEGACY_ID}:{request_id}:{pc_id}"))


def build_result(event: EventResult, message: Message, _: object = None) -> Result:
    """Return what a result writes into its run."""
    stdout, stderr = event.stdout, event.stderr
    if message.output is not None:
        output = message.output
        stdout = stdout if output.stdout is None else output.stdout
        stderr = stderr if output.stderr is None else output.stderr
    # By position: names would take as long as all the rest.
    return Result(
        event.result_id,
        event.request_id,
        event.exec_id,
        event.pc_id,
        event.started_at,
        event.exit_code,
        stdout,
        stderr,
        event.finished_at,
        event.manifest_id,
        format_instant(message.stored_at),
        event.skipped,
        event.parent_result_id,
        message.stream_sequence,
    )


def compare_result(
    expected: Result, found: FoundEnd, _manifests: ManifestCache, _deadlines: bool
) -> Comparison:
    """Return how a stored run compares with what its result writes into it.

    Output that was not fetched is not compared, nor a job that the result does not name. The first
    of several results of a run stays in its row.
    """
    if not found.has_result:
        return Comparison(NOT_WRITTEN, {})
    columns = {
        name: (_shown(ours), _shown(theirs))
        for name in ("request_id", "job_id", "exit_code", "stdout", "stderr", "finished_at")
        if (ours := getattr(expected, name)) is not NOT_FETCHED
        and (theirs := getattr(found, name)) != ours
        and not (name == "job_id" and ours is None)
    }
    return Comparison(DIFFERENT if columns else EQUAL, columns, since=found.recorded_at)


def _shown(value: Any) -> Any:
    """Return a value of a column; of a long output only its beginning and its length."""
    if not isinstance(value, str) or len(value) <= _LONGEST_SHOWN:
        return value
    return f"{value[:_LONGEST_SHOWN]}… ({len(value)} characters)"


def _objects(event: EventResult) -> Fetch | None:
    if event.stdout_object is None and event.stderr_object is None:
        return None
    return Fetch(event.stdout_object, event.stderr_object)


def _log_fields(result: Result) -> dict[str, Any]:
    return {
        "result_id": result.result_id,
        "exec_id": result.exec_id,
        "pc_id": result.pc_id,
        "exit_code": result.exit_code,
    }


# The stream as the contract has it: thirty days, 2 GiB.
RESULTS: Projection[EventResult, Result] = Projection(
    name="results",
    stream=StreamSpec("RESULTS", ("results.>",), max_age=30 * 86_400, max_bytes=2 * 1024**3),
    filter_subject=None,
    other_filters=("results.>",),
    default_consumer="backend_results_projector",
    decode=decode_result,
    build_row=build_result,
    writer=results.result_writer,
    outcomes={INSERTED: "runs_ended_unseen", ENDED: "runs_ended", LATE: "results_late"},
    details={SUCCEEDED: "runs_succeeded", FAILED: "runs_failed", SKIPPED: "runs_skipped"},
    duplicates="results_duplicate",
    key=attrgetter("result_id"),
    find=queries.find_end,
    compare=compare_result,
    log_fields=_log_fields,
    objects=_objects,
    states=results.find_states,
)
