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

ENGINES = ("sqlite", "postgresql")

_EACH = re.compile(r"(\([?, ]+\)) +-- for each \w+$", re.MULTILINE)
_NAME = re.compile(r"^-- name: (\w+)\n", re.MULTILINE)


class Description(NamedTuple):
    """A statement, its file, and what its comments say; see `sql/README.md` for the labels."""

    name: Statement
    file: str
    purpose: str
    frequency: str
    index_used: str
    sql: str


def statement(name: str, *engines: str) -> Statement:
    """Return the name itself. Raises KeyError unless the given engines, or else all, have it."""
    for engine in engines or ENGINES:
        if name not in texts(engine):
            raise KeyError(f"sql/{engine}/queries has no statement {name}")
    return Statement(name)


@cache
def texts(engine: str) -> dict[Statement, str]:
    """Return the text of each of an engine's statements, with its comments."""
    return {name: text for name, _, _, text in _sources(engine)}


@cache
def text(engine: str, name: Statement, rows: int) -> str:
    """Return a statement's text for so many rows: the line that is marked for each is repeated.

    Raises ValueError where a text has no such line.
    """
    one = texts(engine)[name]
    if rows == 1:
        return one
    before, row, after = _EACH.split(one)
    return f"{before}{', '.join([row] * rows)}{after}"


def describe(engine: str) -> list[Description]:
    """Return every statement of an engine, file by file, in the order of each file."""
    found = []
    for name, file, heading, text in _sources(engine):
        shared_purpose, shared_frequency, _ = _labelled(heading)
        purpose, frequency, index = _labelled(text)
        sql = "\n".join(line for line in text.splitlines() if not line.startswith("--"))
        labels = (purpose or shared_purpose, frequency or shared_frequency, index)
        found.append(Description(name, file, *labels, sql.strip()))
    return found


def _sources(engine: str) -> Iterator[tuple[Statement, str, str, str]]:
    """Yield each statement's name, file, the comments at the head of the file, and its text."""
    folder = files("sql").joinpath(engine, "queries")
    for file in sorted(folder.iterdir(), key=lambda file: file.name):
        if file.name.endswith(".sql"):
            heading, *parts = _NAME.split(file.read_text("utf-8"))
            for name, text in zip(parts[::2], parts[1::2], strict=True):
                yield Statement(name), file.name, heading, text.strip()


def _labelled(text: str) -> tuple[str, str, str]:
    """Return the purpose, the frequency and the index that comments name; empty if they do not."""
    lines = (line.removeprefix("--").strip() for line in text.splitlines() if line[:2] == "--")
    rest, _, index = " ".join(lines).partition("Index: ")
    purpose, _, frequency = rest.partition("Frequency: ")
    return purpose.strip(), frequency.strip(), index
