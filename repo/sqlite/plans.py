"""Each statement with what its file says of it, and how the engine would run it here and now."""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import NamedTuple

from repo.errors import RepositoryError
from repo.sqlite.database import Connection
from repo.statements import NAME, STATEMENTS

_COMMENT = re.compile(r"^-- ?", re.MULTILINE)
_ON_TABLES = re.compile(r"\b(FROM|INTO|UPDATE)\b")
_LITERAL = re.compile(r"'[^']*'")
_NAMED = re.compile(r":(\w+)")
_FREQUENCY = re.compile(r"How often: (.*?)(?=\nIndex: |\Z)", re.DOTALL)
_INDEX = re.compile(r"Index: (.*)", re.DOTALL)


class Described(NamedTuple):
    """A statement, where it stands, and what its comments say of it."""

    name: str
    file: str
    purpose: str
    frequency: str
    index_used: str
    sql: str


class Plan(NamedTuple):
    """The engine's steps; or why the statement does not fit the tables as they are."""

    steps: list[str]
    error: str = ""


def described() -> Iterator[Described]:
    """Yield every statement, file by file, in the order in which they stand there."""
    folder = files("sql").joinpath("sqlite", "queries")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            above, *parts = NAME.split(file.read_text("utf-8"))
            for name in parts[::2]:
                yield _described(name, file.name, _comments(above))


def plan(connection: Connection, sql: str) -> Plan:
    """Return how the engine would run a statement; what is not about tables has no steps."""
    code = _code(sql)
    if not _ON_TABLES.search(code):
        return Plan([])
    bare = _LITERAL.sub("", code)
    named = dict.fromkeys(_NAMED.findall(bare))
    try:
        rows = connection.fetch(f"EXPLAIN QUERY PLAN {sql}", named or [None] * bare.count("?"))
    except RepositoryError as error:
        return Plan([], str(error))
    return Plan([str(row[3]) for row in rows])


def _described(name: str, file: str, above: str) -> Described:
    text = STATEMENTS[name]
    own = _comments(text)
    frequency = _FREQUENCY.search(own) or _FREQUENCY.search(above)
    index = _INDEX.search(own)
    purpose = re.split(r"^(?:How often|Index): ", own, maxsplit=1, flags=re.MULTILINE)[0]
    return Described(
        name=name,
        file=file,
        purpose=_line(purpose) or _line(re.split(r"How often: ", above)[0]),
        frequency=_line(frequency[1]) if frequency else "",
        index_used=_line(index[1]) if index else "",
        sql=_code(text),
    )


def _comments(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("--")]
    return _COMMENT.sub("", "\n".join(lines))


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def _line(text: str) -> str:
    return " ".join(text.split())
