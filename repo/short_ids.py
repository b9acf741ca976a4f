"""Ids of runs and executions, shortened for people, and found again by their beginning."""

from itertools import takewhile
from operator import eq
from typing import NamedTuple

from repo import Connection
from repo.queries import can_have_row
from repo.statements import Statement, statement

SHORTEST = 8
_MOST_CANDIDATES = 5
_LAST_CHARACTER = "\U0010ffff"


class Ids(NamedTuple):
    """The ids of one table: the statements that find neighbours, and those with a prefix."""

    neighbours: Statement
    with_prefix: Statement


RUNS = Ids(statement("neighbours_of_run"), statement("find_runs_by_prefix"))
EXECUTIONS = Ids(statement("neighbours_of_execution"), statement("find_executions_by_prefix"))


def shorten(connection: Connection, ids: Ids, whole: str) -> str:
    """Return the shortest beginning of an id that no other one has, at least eight characters."""
    neighbours = connection.fetch(ids.neighbours, (whole, whole))[0]
    shared = max((_shared(whole, one) for one in neighbours if one), default=0)
    return whole[: max(SHORTEST, shared + 1)]


def _shared(one: str, other: str) -> int:
    return sum(1 for _ in takewhile(bool, map(eq, one, other)))


def find(connection: Connection, ids: Ids, given: str) -> list[str]:
    """Return the ids that begin with a text, at most five; the id alone if the text is one."""
    if not can_have_row(connection, given):
        return []
    values = given, given + _LAST_CHARACTER, _MOST_CANDIDATES
    found = [str(row[0]) for row in connection.fetch(ids.with_prefix, values)]
    return [given] if given in found else found
