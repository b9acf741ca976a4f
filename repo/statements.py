"""The named statements of `sql/<engine>/queries/`, read once, and what their comments say.

Modules of this package ask for a name when they are imported; each engine's connection has its own
text for it. So a name that an engine lacks fails at start, not at its first use.
"""

import re
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from typing import NamedTuple, NewType

Statement = NewType("Statement", str)
"""The name of a statement that every engine has."""

ENGINES = ("sqlite",)

_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)
_FREQUENCY = re.compile(r"Frequency: (.*?)(?=\nIndex: |\Z)", re.DOTALL)
_INDEX = re.compile(r"Index: (.*)", re.DOTALL)


class Description(NamedTuple):
    """A statement, its file, and what its comments say; see `sql/README.md` for the labels."""

    name: Statement
    file: str
    purpose: str
    frequency: str
    index_used: str
    sql: str


class _Source(NamedTuple):
    name: Statement
    file: str
    heading: str  # the comments above the first statement, which hold for all of the file
    text: str


def statement(name: str, *engines: str) -> Statement:
    """Return the name itself. Raises KeyError unless the given engines, or else all, have it."""
    for engine in engines or ENGINES:
        if name not in texts(engine):
            raise KeyError(f"sql/{engine}/queries has no statement {name}")
    return Statement(name)


@cache
def texts(engine: str) -> dict[Statement, str]:
    """Return the text of each of an engine's statements; ValueError if a name is used twice."""
    found: dict[Statement, str] = {}
    for source in _sources(engine):
        if source.name in found:
            raise ValueError(f"sql/{engine}/queries/{source.file}: {source.name} is used twice")
        found[source.name] = source.text
    return found


def describe(engine: str) -> list[Description]:
    """Return every statement of an engine, file by file, in the order of each file."""
    return [_described(source) for source in _sources(engine)]


def _sources(engine: str) -> Iterator[_Source]:
    folder = files("sql").joinpath(engine, "queries")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            heading, *parts = _NAME.split(file.read_text("utf-8"))
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                yield _Source(Statement(name), file.name, heading, text.strip())


def _described(source: _Source) -> Description:
    shared, own = _comments(source.heading), _comments(source.text)
    frequency = _FREQUENCY.search(own) or _FREQUENCY.search(shared)
    index = _INDEX.search(own)
    return Description(
        name=source.name,
        file=source.file,
        purpose=_purpose(own) or _purpose(shared),
        frequency=_line(frequency[1]) if frequency else "",
        index_used=_line(index[1]) if index else "",
        sql=_code(source.text),
    )


def _purpose(comments: str) -> str:
    return _line(re.split(r"(?:Frequency|Index): ", comments, maxsplit=1)[0])


def _comments(text: str) -> str:
    lines = (line for line in text.splitlines() if line.startswith("--"))
    return "\n".join(line.removeprefix("--").removeprefix(" ") for line in lines)


def _code(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.startswith("--")).strip()


def _line(text: str) -> str:
    return " ".join(text.split())
