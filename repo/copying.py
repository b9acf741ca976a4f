"""Copy a database into another one, of either engine: row by row, so that it can go on later.

The checkpoints come last. Without one, nothing was copied completely and no worker has begun.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tenacity import Retrying

from repo import Connection
from repo.checkpoint import Checkpoint, CheckpointGuard, Lost, Position, record_lost
from repo.errors import RowRejected
from repo.rejected import RejectedEvent, insert_all
from repo.statements import Statement, statement

_LIST_EXECUTIONS = statement("list_executions_from")
_LIST_RUNS = statement("list_runs_from")
_LIST_MARKS = statement("list_marks_from")
_LIST_REJECTED = statement("list_rejected_events_from")
_COUNT_UNKEYED = statement("count_rows_without_key")
_LIST_CHECKPOINTS = statement("list_checkpoints")
_COPY_EXECUTION = statement("copy_execution")
_COPY_RUN = statement("copy_run")
_LIST_COLUMNS = statement("list_result_columns")
_MARK_SKIPPED = statement("mark_skipped_run")
_LINK_PARENT = statement("link_parent_run")

# Bounded, since a row may hold megabytes of output.
_PAGE = 100
_Row = tuple[Any, ...]
_Write = Callable[[Connection, Sequence[_Row]], int]


@dataclass(slots=True)
class Copied:
    """What became of one table: rows that were copied, that were there, and that were not taken.

    `refused` holds the key and the reason of each of the last, `different` the keys of rows that
    are missing from the copy or differ there.
    """

    table: str
    copied: int = 0
    present: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    different: list[str] = field(default_factory=list)


def has_checkpoints(connection: Connection) -> bool:
    """Return whether a worker has written to this database, or a copy was completed."""
    return bool(connection.fetch(_LIST_CHECKPOINTS))


def copy_tables(
    source: Connection, target: Connection, retry: Retrying
) -> Iterator[tuple[Copied, int]]:
    """Copy all but the checkpoints; yields a table, and how many rows, after each page.

    A row that is in the target stays as it is, and `retry` waits for its locks. Raises a
    RepositoryError if the target cannot be written to; what was copied by then is committed.
    """
    without_key = dict(
        zip(("executions", "execution_results"), source.fetch(_COUNT_UNKEYED)[0], strict=True)
    )
    for table in _TABLES:
        copied = Copied(table.name)
        if lost := without_key.get(table.name):
            copied.refused.append(("NULL", f"{lost} rows without a key"))
        yield copied, 0
        write = table.writer(source, target)
        for page in _pages(source, table.list_from, table.first):
            retry(_write, target, write, page, copied)
            yield copied, len(page)


def verify(
    source: Connection, target: Connection, tables: Mapping[str, Copied]
) -> Iterator[tuple[Copied, int]]:
    """Compare what was copied, and note what differs; yields as `copy_tables`."""
    lists = [("executions", _LIST_EXECUTIONS), ("execution_results", _LIST_RUNS)]
    if _have_marks(source, target):
        lists.append(("execution_results", _LIST_MARKS))
    for name, list_from in lists:
        theirs = _Walk(target, list_from, "")
        known = {key for key, _ in tables[name].refused}.union(tables[name].different)
        for page in _pages(source, list_from, ""):
            keyed = [row for row in page if isinstance(row[0], str) and row[0] not in known]
            different = [row[0] for row in keyed if theirs.find(row[0]) != row]
            yield _note(tables[name], different), len(page)
    stored = {row[1:4]: row for page in _pages(target, _LIST_REJECTED, 0) for row in page}
    for page in _pages(source, _LIST_REJECTED, 0):
        different = [str(row[0]) for row in page if not _is_same(target, row, stored)]
        yield _note(tables["rejected_events"], different), len(page)


def _note(table: Copied, different: list[str]) -> Copied:
    table.different += different
    return table


def copy_checkpoints(source: Connection, target: Connection) -> int:
    """Copy the checkpoints, in one transaction; returns how many.

    From then on a worker takes the target for caught up to where the source was.
    """
    rows = source.fetch(_LIST_CHECKPOINTS)
    with target.write():
        for stream, consumer, created_at, *rest in rows:
            position = Position(stream, consumer)
            *reached, sequences, up_to, at = rest
            CheckpointGuard(position).begin(target, Checkpoint(created_at, *reached))
            if sequences:
                record_lost(target, position, Lost(sequences, up_to, at))
    return len(rows)


class _Walk:
    """The rows of a table by their keys, in one pass."""

    def __init__(self, connection: Connection, list_from: Statement, first: Any) -> None:
        self._rows = (row for page in _pages(connection, list_from, first) for row in page)
        self._next: _Row | None = next(self._rows, None)

    def find(self, key: Any) -> _Row | None:
        """Return the row with a key, which must be above those that were asked for before."""
        while self._next is not None and self._next[0] < key:
            self._next = next(self._rows, None)
        return self._next if self._next is not None and self._next[0] == key else None


def _is_same(target: Connection, row: _Row, stored: dict[_Row, _Row]) -> bool:
    found = stored.get(row[1:4])
    if found is None:
        return False
    _, _, _, _, subject, payload, reason, rejected_at = row
    storable = target.storable_text
    return found[4:] == (storable(subject), payload, storable(reason), rejected_at)


def _pages(connection: Connection, list_from: Statement, first: Any) -> Iterator[list[_Row]]:
    page = connection.fetch(list_from, (first, _PAGE))
    while page:
        yield page
        # The page begins with the last row of the one before: the first key may be empty.
        page = connection.fetch(list_from, (page[-1][0], _PAGE + 1))[1:]


def _write(target: Connection, write: _Write, rows: Sequence[_Row], copied: Copied) -> None:
    keyed = [row for row in rows if isinstance(row[0], str | int)]
    refused = [(repr(row[0]), "its key is no text") for row in rows if row not in keyed]
    written = 0
    try:
        with target.write():
            written = write(target, keyed)
    except RowRejected:
        for row in keyed:
            try:
                with target.write():
                    written += write(target, [row])
            except RowRejected as error:
                refused.append((str(row[0]), str(error)))
    copied.refused += refused
    copied.copied += written
    copied.present += len(rows) - written - len(refused)


def _have_marks(*connections: Connection) -> bool:
    """Return whether each has both columns that a database of the fleet may lack."""
    return all(len(one.fetch(_LIST_COLUMNS)) == 2 for one in connections)


def _write_executions(*_: Connection) -> _Write:
    return lambda connection, rows: connection.execute_many(_COPY_EXECUTION, rows)


def _write_runs(source: Connection, target: Connection) -> _Write:
    """Copy the columns that not every database has as well, where both have them."""
    if not _have_marks(source, target):
        return lambda connection, rows: connection.execute_many(_COPY_RUN, rows)

    def write(connection: Connection, rows: Sequence[_Row]) -> int:
        first = rows[0][0] if rows else ""
        marks = {row[0]: row[1:] for row in source.fetch(_LIST_MARKS, (first, _PAGE))}
        copied = [row[0] for row in rows if connection.execute(_COPY_RUN, row)]
        for result_id in copied:
            is_skipped, parent = marks[result_id]
            if is_skipped:
                connection.execute(_MARK_SKIPPED, (result_id,))
            if parent is not None:
                connection.execute(_LINK_PARENT, (parent, result_id))
        return len(copied)

    return write


def _write_rejected_events(*_: Connection) -> _Write:
    return lambda connection, rows: len(
        insert_all(connection, [RejectedEvent(*row[1:]) for row in rows])
    )


class _Table(NamedTuple):
    """How a table is read, from its first key on, and what `writer` makes to write its rows."""

    name: str
    list_from: Statement
    first: str | int
    writer: Callable[[Connection, Connection], _Write]


_TABLES = (
    _Table("executions", _LIST_EXECUTIONS, "", _write_executions),
    _Table("execution_results", _LIST_RUNS, "", _write_runs),
    _Table("rejected_events", _LIST_REJECTED, 0, _write_rejected_events),
)
