"""Statements for a hundred rows at once, and how rows are divided among them."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from repo import Connection
from repo.statements import Statement

# After each row that a statement returns or writes, a thread waits for its turn in the interpreter,
# milliseconds where others are busy: the fewer statements the better.
MANY = 100
_FEW = 5


def execute_all(
    connection: Connection, many: Statement, one: Statement, rows: Sequence[Sequence[Any]]
) -> int:
    """Run a statement for each row, `many` for 100 at a time; return how many rows it changed."""
    changed = start = 0
    if rows and connection.max_values >= MANY * len(rows[0]):
        for start in range(MANY, len(rows) + 1, MANY):
            values = tuple(chain.from_iterable(rows[start - MANY : start]))
            changed += connection.execute(many, values)
    if start < len(rows):
        changed += connection.execute_many(one, rows[start:])
    return changed


def fetch_all(
    connection: Connection, many: Statement, one: Statement, rows: Sequence[Sequence[Any]]
) -> Iterator[tuple[Any, ...]]:
    """Yield what a statement returns for all rows, `many` for 100 at a time; rows may repeat."""
    if len(rows) <= _FEW:
        for row in rows:
            yield from connection.fetch(one, row)
        return
    for start in range(0, len(rows), MANY):
        some = list(rows[start : start + MANY])
        some += some[-1:] * (MANY - len(some))
        yield from connection.fetch(many, tuple(chain.from_iterable(some)))
