"""Deadlines of runs in flight, changed for an operator."""

from collections.abc import Sequence
from typing import NamedTuple

from repo import Connection
from repo.statements import statement

_CHANGE_DEADLINE = statement("change_deadline")


class DeadlineChange(NamedTuple):
    """A run's deadline as it was read, None without one, and the new one; both stored text."""

    result_id: str
    before: str | None
    after: str


def change(connection: Connection, changes: Sequence[DeadlineChange]) -> list[str]:
    """Change deadlines and return the ids of the runs that got theirs.

    A run that has ended, or whose deadline is no longer the one that was read, stays as it is.
    """
    return [
        one.result_id
        for one in sorted(changes)
        if connection.execute(_CHANGE_DEADLINE, (one.after, one.result_id, one.before))
    ]
