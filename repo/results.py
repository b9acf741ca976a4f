"""Results: the end of a run, written into its row and counted in its execution."""

import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import groupby
from operator import attrgetter, itemgetter
from typing import Any, NamedTuple

from repo import Connection, checkpoint, executions
from repo import rejected as rejected_events
from repo.batch_writer import INSERTED, Outcomes, Writer
from repo.checkpoint import Position
from repo.errors import MustWait, RowRejected, TransientError
from repo.execution_results import IGNORED, missing
from repo.executions import EndedRun
from repo.queries import can_have_row
from repo.statements import statement

_FIND_STATES = statement("find_ended_states")
_FIND_UNUSUAL = statement("find_unusual_runs")
_INSERT = statement("insert_ended_run")
_INSERT_MANY = statement("insert_ended_runs")
_END = statement("end_run")
_END_MANY = statement("end_runs")
_NAME_JOB = statement("name_job")
_MARK_SKIPPED = statement("mark_skipped_run")
_LINK_PARENT = statement("link_parent_run")
_LIST_RESULT_COLUMNS = statement("list_result_columns")

# Above every sequence that a checkpoint has passed.
_NOT_COUNTED_YET = 2**63 - 1

# Outcomes beside INSERTED: of a run in flight, and of one that was given up.
ENDED = "ended"
LATE = "late"

# How runs ended: each of those outcomes is one of these as well.
SUCCEEDED = "succeeded"
FAILED = "failed"
SKIPPED = "skipped"


class Result(NamedTuple):
    """The result of a run. Times are stored text; `job_id` is None where it names no manifest.

    `stream_sequence` is that of its message: one that the database has counted is not counted again
    if its row was deleted.
    """

    result_id: str
    request_id: str
    exec_id: str | None
    pc_id: str
    started_at: str
    exit_code: int
    stdout: str
    stderr: str
    finished_at: str
    job_id: str | None
    recorded_at: str
    skipped: bool
    parent_result_id: str | None
    stream_sequence: int

    def as_new_row(self) -> tuple[str | int | None, ...]:
        """Return the values of the statement that inserts it."""
        return self[:11]

    def as_end(self) -> tuple[str | int | None, ...]:
        """Return the values of the statement that writes it into an existing row."""
        values: tuple[str | int | None, ...] = _as_end(self)
        return values


def _values_of(*names: str) -> "itemgetter[Any]":
    return itemgetter(*map(Result._fields.index, names))


_as_end = _values_of("request_id", "exit_code", "stdout", "stderr", "finished_at", "result_id")
_as_given = _values_of("result_id", "exec_id", "job_id")


class _Found(NamedTuple):
    """A row as it was found: whether it exists, has ended, was given up; its execution and job."""

    exists: bool
    has_ended: bool
    is_reaped: bool
    exec_id: str | None
    job_id: str | None

    @property
    def has_result(self) -> bool:
        """Whether another result changes nothing."""
        return self.has_ended and not self.is_reaped


_HAS_RESULT = _Found(exists=True, has_ended=True, is_reaped=False, exec_id=None, job_id=None)

_Unusual = dict[str, _Found]
"""The rows that are not what most results find: a run in flight, of their execution and job."""


def find_states(connection: Connection, result_ids: Sequence[str]) -> dict[str, bool]:
    """Return those of these runs that have a row, and whether they have their result.

    Another result of a run that has its result changes nothing.
    """
    given = [(one,) for one in result_ids if can_have_row(connection, one)]
    found = connection.fetch_all(_FIND_STATES, given)
    return {result_id: bool(has_result) for result_id, has_result in found}


def write_all(
    position: Position | None, connection: Connection, results: Sequence[Result], ready_until: str
) -> Outcomes:
    """Write results and count them, inside the caller's transaction; returns what changed.

    The row of a run that has a result is left unchanged. Without a `position` every result counts;
    with one, a result that its checkpoint has passed was counted before its row was deleted.
    Raises RowRejected if a row or a count is rejected; some of the others may be written. Raises
    MustWait for a run without a row whose result was stored after `ready_until`: its start, which
    was stored before that, may come yet.
    """
    counted_up_to = _counted_up_to(position, connection)
    given = [*map(_as_given, results)]
    unusual = {one: _Found(*row) for one, *row in connection.fetch_all(_FIND_UNUSUAL, given)}
    for index, result in enumerate(results if unusual else ()):
        row = unusual.get(result.result_id)
        if row is not None and not row.exists and result.recorded_at > ready_until:
            raise MustWait(index)
    outcomes: Outcomes = Counter()
    for some in _in_order(results, unusual, counted_up_to):
        outcomes += _write(connection, some, unusual, counts=_counts(some[0], counted_up_to))
    return outcomes


def _in_order(
    results: Sequence[Result], unusual: _Unusual, counted_up_to: int
) -> Iterator[Sequence[Result]]:
    """Yield the results in groups, whose rows may be written before the first of them is counted.

    The first count of an execution takes all rows that have ended by then. So a result that does
    not count, or counts for another execution than its row's, is not grouped with those that do.
    """
    if any(_is_of_another(result, unusual) for result in results if result.result_id in unusual):
        yield from ([result] for result in results)
    elif results and min(map(_sequence, results)) > counted_up_to:
        yield results  # as nearly always
    else:
        for _, some in groupby(results, lambda result: _counts(result, counted_up_to)):
            yield list(some)


_sequence = attrgetter("stream_sequence")


def _counts(result: Result, counted_up_to: int) -> bool:
    return result.stream_sequence > counted_up_to


def _is_of_another(result: Result, unusual: _Unusual) -> bool:
    row = unusual[result.result_id]
    if not row.exists or row.has_result:
        return False
    return (row.exec_id or None) != (result.exec_id or None)


def _write(
    connection: Connection, results: Sequence[Result], unusual: _Unusual, *, counts: bool
) -> Outcomes:
    new: list[Result] = []
    ended: list[Result] = []
    named: list[tuple[str | None, str]] = []
    # By execution, that of the row, whether it succeeded or was skipped, and what the row was.
    alike: Counter[tuple[str | None, str | None, bool, bool, str]] = Counter()
    for result in results:
        exec_id = row_exec_id = result.exec_id
        row, outcome = unusual.get(result.result_id), ENDED
        if row is not None and row.exists:
            if row.has_result:
                continue
            row_exec_id, outcome = row.exec_id, LATE if row.has_ended else ENDED
        elif row is not None:
            outcome = INSERTED
        (new if outcome == INSERTED else ended).append(result)
        if row is not None and row.exists and result.job_id not in (None, row.job_id):
            named.append((result.job_id, result.result_id))
        alike[exec_id, row_exec_id, result.exit_code == 0, result.skipped, outcome] += 1
        unusual[result.result_id] = _HAS_RESULT
    _write_rows(connection, new, ended)
    if named:
        connection.execute_many(_NAME_JOB, named)
    outcomes: Outcomes = Counter()
    counted: list[EndedRun] = []
    for (exec_id, row_exec_id, succeeded, skipped, outcome), runs in alike.items():
        outcomes[outcome] += runs
        outcomes[SKIPPED if skipped else SUCCEEDED if succeeded else FAILED] += runs
        is_late = outcome == LATE
        if succeeded if is_late else counts:
            counted.append(EndedRun(exec_id, row_exec_id, succeeded, is_late, runs))
    executions.count(connection, counted)
    return outcomes


def _counted_up_to(position: Position | None, connection: Connection) -> int:
    """Return the last sequence whose run is counted, whatever became of its row."""
    stored = checkpoint.read(connection, position) if position is not None else None
    return stored.checkpoint.caught_up_to if stored is not None else -1


def _write_rows(connection: Connection, new: Sequence[Result], ended: Sequence[Result]) -> None:
    if new and connection.execute_all(
        _INSERT_MANY, _INSERT, [result.as_new_row() for result in new]
    ) < len(new):
        if missing(connection, [result.result_id for result in new]):
            raise RowRejected(IGNORED)
        raise TransientError("another worker inserted one of these runs at the same moment")
    if ended and connection.execute_all(
        _END_MANY, _END, [result.as_end() for result in ended]
    ) < len(ended):
        raise RowRejected(IGNORED)
    skipped = [(result.result_id,) for result in (*new, *ended) if result.skipped]
    children = [
        (result.parent_result_id, result.result_id)
        for result in new
        if result.parent_result_id is not None
    ]
    if skipped or children:
        existing = connection.fetch(_LIST_RESULT_COLUMNS)
        if ("skipped",) in existing:
            connection.execute_many(_MARK_SKIPPED, skipped)
        if ("parent_result_id",) in existing:
            connection.execute_many(_LINK_PARENT, children)


def _probes(rejected: Result, last_written: Result | None) -> list[Result]:
    """Return the rejected result with plain texts, and the last one written, under new ids.

    Both name an execution, so that a probe fails where no run can be counted.
    """
    probe = f"probe-{uuid.uuid4()}"
    texts = rejected._replace(result_id=probe, request_id=probe, pc_id=probe, job_id=probe)
    parent = None if rejected.parent_result_id is None else probe
    probes = [texts._replace(exec_id=probe, parent_result_id=parent, stdout="", stderr="")]
    if last_written is not None:
        exec_id = last_written.exec_id or probe
        probes.append(last_written._replace(result_id=str(uuid.uuid4()), exec_id=exec_id))
    return [one._replace(stream_sequence=_NOT_COUNTED_YET) for one in probes]


def result_writer(position: Position | None) -> Writer[Result]:
    """Return how results are written: those of a stream and consumer, or retried ones (None)."""
    return Writer(
        write_all=partial(write_all, position),
        probes=_probes,
        delete_rejected=lambda connection, key, result: rejected_events.delete_projected(
            connection, key, result.result_id
        ),
        parents=lambda _: [],
        promote=executions.promote,
        counted_in=attrgetter("exec_id"),
    )
