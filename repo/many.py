"""Statements for hundreds of rows at once, and how rows are divided among them."""

from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

from repo import Connection
from repo.statements import Statement

# After each statement, and each row that one returns, a thread waits for its turn in the
# interpreter, milliseconds where others are busy: the fewer statements the better.
_LEAST = 100
_SIZES = (1000, _LEAST)
# So many rows one by one cost less than a hundred at once.
_FEW = 5

_Rows = Sequence[Sequence[Any]]


def execute_all(connection: Connection, many: Statement, one: Statement, rows: _Rows) -> int:
    """Run a statement for each row, `many` for hundreds of them; return how many it changed."""
    changed = done = 0
    for some in _hundreds(connection, rows):
        changed += connection.execute(many, _values(some), len(some))
        done += len(some)
    if done < len(rows):
        changed += connection.execute_many(one, rows[done:])
    return changed


def fetch_all(connection: Connection, many: Statement, rows: _Rows) -> Iterator[tuple[Any, ...]]:
    """Yield what a statement returns for all rows, hundreds at once; the last one may repeat."""
    done = 0
    for some in _hundreds(connection, rows):
        yield from connection.fetch(many, _values(some), len(some))
        done += len(some)
    rest = list(rows[done:])
    if len(rest) > _FEW:
        rest += rest[-1:] * (_LEAST - len(rest))
        yield from connection.fetch(many, _values(rest), _LEAST)
    else:
        for row in rest:
            yield from connection.fetch(many, row)


def _hundreds(connection: Connection, rows: _Rows) -> Iterator[_Rows]:
    """Yield the rows by the hundreds of one statement, as far as there are as many."""
    start = 0
    for size in _SIZES:
        while len(rows) - start >= size and connection.max_values >= size * len(rows[0]):
            yield rows[start : start + size]
            start += size


def _values(rows: _Rows) -> tuple[Any, ...]:
    return tuple(chain.from_iterable(rows))
