"""The table execution_results: a started run becomes one in-flight row."""

from collections.abc import Sequence
from itertools import chain
from typing import NamedTuple

from repo.errors import RowRejected
from repo.sqlite.database import Connection
from repo.statements import statement

_INSERT_RUN = statement("insert_run")
_INSERT_MANY = statement("insert_100_runs")
_RUN_EXISTS = statement("run_exists")

# After each statement a thread waits for its turn in the interpreter, milliseconds where others are
# busy: the fewer statements the better.
_MANY = 100


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
    """Insert runs and return how many are new; a result_id that is there already stays as it is.

    Raises RowRejected at the first row that the table refuses; some of the others may be inserted.
    """
    inserted = start = 0
    if connection.most_values >= _MANY * len(Run._fields):
        for start in range(_MANY, len(runs) + 1, _MANY):
            values = tuple(chain.from_iterable(runs[start - _MANY : start]))
            inserted += connection.execute(_INSERT_MANY, values)
    if start < len(runs):
        inserted += connection.execute_many(_INSERT_RUN, runs[start:])
    if inserted < len(runs):
        for run in runs:
            _make_sure_it_is_there(connection, run)
    return inserted


def insert(connection: Connection, run: Run) -> int:
    """Insert one run and return 1, or 0 if its result_id is there; may raise RowRejected."""
    inserted = connection.execute(_INSERT_RUN, run)
    if not inserted:
        _make_sure_it_is_there(connection, run)
    return inserted


def _make_sure_it_is_there(connection: Connection, run: Run) -> None:
    # RAISE(IGNORE) in a trigger drops a row without a word: acking its message would lose it.
    if connection.fetch(_RUN_EXISTS, (run.result_id,)) == [(0,)]:
        raise RowRejected("execution_results took no row of it, and gave no reason")
