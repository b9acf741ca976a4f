"""The table execution_results: a started run becomes one in-flight row."""

import uuid
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from repo import Connection, executions
from repo import rejected as rejected_events
from repo.batch_writer import INSERTED, Writer
from repo.errors import RowRejected
from repo.statements import statement

_INSERT_RUN = statement("insert_run")
_INSERT_MANY = statement("insert_runs")
_DELETE_OLD = statement("delete_old_runs")
_FIND_MISSING = statement("find_missing_runs")

# RAISE(IGNORE) in a trigger drops a row without an error: acking its message would lose it.
IGNORED = "a trigger on execution_results ignored the row without an error"


class Run(NamedTuple):
    """The columns of a run that its start fills in, in the order of the statement's placeholders.

    Times are stored text; `expires_at` is None where no deadline can be computed.
    """

    result_id: str
    request_id: str
    exec_id: str
    pc_id: str
    started_at: str
    version: str
    job_id: str
    recorded_at: str
    expires_at: str | None


def insert_all(connection: Connection, runs: Sequence[Run]) -> int:
    """Insert runs and return how many are new; an existing run is left unchanged.

    Raises RowRejected at the first row that is rejected; some of the others may be inserted.
    """
    inserted = connection.execute_all(_INSERT_MANY, _INSERT_RUN, runs)
    if inserted < len(runs) and missing(connection, [run.result_id for run in runs]):
        raise RowRejected(IGNORED)
    return inserted


def missing(connection: Connection, result_ids: Sequence[str]) -> set[str]:
    """Return those of these runs that have no row."""
    given = [(result_id,) for result_id in result_ids]
    return {result_id for (result_id,) in connection.fetch_all(_FIND_MISSING, given)}


def delete_old(connection: Connection, recorded_before: str, limit: int) -> int:
    """Delete up to `limit` ended runs that were stored before a time; return how many."""
    return connection.execute(_DELETE_OLD, (recorded_before, limit))


def _probes(rejected: Run, last_inserted: Run | None) -> list[Run]:
    """Return the rejected run with plain texts, and the last inserted run under a new id."""
    probe = f"probe-{uuid.uuid4()}"
    texts = dict.fromkeys(
        ("result_id", "request_id", "exec_id", "pc_id", "version", "job_id"), probe
    )
    probes = [rejected._replace(**texts)]
    if last_inserted is not None:
        # A CHECK that good data passes may still reject plain text; this row is known to fit.
        probes.append(last_inserted._replace(result_id=str(uuid.uuid4())))
    return probes


def _exec_ids(runs: Sequence[Run]) -> list[str]:
    """Return each execution that the runs name once, in order; an ad-hoc run names none."""
    return list(dict.fromkeys(run.exec_id for run in runs if run.exec_id))


START_WRITER = Writer(
    write_all=lambda connection, runs, _: Counter({INSERTED: insert_all(connection, runs)}),
    probes=_probes,
    delete_rejected=lambda connection, key, run: rejected_events.delete_projected(
        connection, key, run.result_id
    ),
    parents=_exec_ids,
    promote=executions.promote,
)
"""Writes started runs, and turns their executions from pending to running, or completed."""
