"""Create the tables and indexes of ../schema that the database lacks.

Another program may have created some of the tables; they are its own. Nothing of it is altered or
dropped, not by the rollback either, and no index is added that one of its indexes covers.
"""

import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from yoyo import step

__depends__ = {"20261126_01_write_ahead_log"}
# A transaction that begins by reading cannot wait for a writer, so the steps begin their own.
__transactional__ = False

_FOLDER = Path(__file__).parent.parent / "schema"
_BEGIN = (_FOLDER / "begin.sql").read_text("utf-8")
_CATALOG = (_FOLDER / "catalog.sql").read_text("utf-8")
_TABLES = ("executions", "execution_results", "rejected_events", "checkpoints")
_NAME = re.compile(r"^(?:CREATE|DROP) (?:TABLE|INDEX) IF (?:NOT )?EXISTS (\w+)", re.MULTILINE)
_CONDITION = re.compile(r"\bWHERE\b(.*)", re.IGNORECASE | re.DOTALL)
_COMMENT = re.compile(r"--[^\n]*")


class Object(NamedTuple):
    """A table, index, trigger or view as the catalog describes it; names are in lower case."""

    type: str
    name: str
    table: str
    definition: str | None
    columns: str | None

    @property
    def code(self) -> str:
        """The definition without its comments, which may differ between versions."""
        return " ".join(_COMMENT.sub("", self.definition or "").split())

    @property
    def condition(self) -> str:
        """The condition of a partial index, in one form; empty for any other object."""
        found = _CONDITION.search(self.code)
        return re.sub(r'["`\[\]()]|\s+', " ", found[1]).strip().lower() if found else ""

    def covers(self, other: "Object") -> bool:
        """Whether this is an index that lookups by another index can use as well.

        A full index holds the history, so it never covers a partial one, which is as small as what
        its condition selects.
        """
        if (self.type, self.table) != ("index", other.table) or not self.columns:
            return False
        columns = (other.columns or "").split(",")
        if self.columns.split(",")[: len(columns)] != columns:
            return False
        if other.condition:
            return self.condition == other.condition
        return self.condition in ("", f"{columns[0]} is not null")


def statements(connection: sqlite3.Connection) -> list[str]:
    """Return the statements that this database needs; changes nothing."""
    ours, existing = _model(), _catalog(connection)
    return [
        sql
        for name, sql in _read(".sql")
        if name not in existing
        and not any(theirs.covers(ours[name]) for theirs in existing.values())
    ]


def rollback_statements(connection: sqlite3.Connection) -> list[str]:
    """Return the statements that drop what `statements` created and what is unchanged.

    A table stays if another program has put an index or a trigger on it.
    """
    ours, existing = _model(), _catalog(connection)
    shared = {one.table for one in existing.values() if one.name not in ours and one.definition}
    return [
        sql
        for name, sql in _read(".rollback.sql")
        if name in existing
        and existing[name].code == ours[name].code
        and not (ours[name].type == "table" and name in shared)
    ]


def _model() -> dict[str, Object]:
    """Return the catalog of an empty database with the whole schema."""
    with closing(sqlite3.connect(":memory:")) as empty:
        for _, sql in _read(".sql"):
            empty.execute(sql)
        return _catalog(empty)


def _catalog(connection: sqlite3.Connection) -> dict[str, Object]:
    return {row[1]: Object(*row) for row in connection.execute(_CATALOG)}


def _read(suffix: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each object and its statement."""
    for table in _TABLES:
        text = (_FOLDER / f"{table}{suffix}").read_text("utf-8").strip()
        for sql in re.split(r"(?<=;)\n(?=CREATE|DROP)", text):
            yield _NAME.findall(sql)[0], sql


def _in_one_transaction(
    choose: Callable[[sqlite3.Connection], list[str]],
) -> Callable[[sqlite3.Connection], None]:
    def run(connection: sqlite3.Connection) -> None:
        with connection:
            connection.execute(_BEGIN)
            for sql in choose(connection):
                connection.execute(sql)

    return run


steps = [step(_in_one_transaction(statements), _in_one_transaction(rollback_statements))]
