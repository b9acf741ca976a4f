"""The table execution_results: a started run becomes one in-flight row."""

from collections.abc import Sequence
from typing import NamedTuple

from repo.database import Connection
from repo.statements import statement

_INSERT_RUN = statement("insert_run")


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

    Raises DataRefused at the first row that the table refuses, with the rows before it inserted.
    """
    return connection.execute_many(_INSERT_RUN, runs) if runs else 0


def insert(connection: Connection, run: Run) -> int:
    """Insert one run and return 1, or 0 if its result_id is there; may raise DataRefused."""
    return connection.execute(_INSERT_RUN, run)
