"""What commands print: safe on any terminal whatever the stream holds, or one JSON document.

Standard output is for results alone; logs, questions and errors go to standard error.
"""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Protocol, Self

import click
from rich.console import Console

from repo.errors import (
    CorruptDatabaseError,
    DiskError,
    RepositoryError,
    SchemaError,
    TransientError,
    UnavailableError,
)
from worker.errors import SettingError, WorkerError, describe

Members = dict[str, Any]

_WIDTH_OF_A_FILE = 1000
_SHORTEST = 20

_FAULTS: tuple[tuple[type[RepositoryError], str], ...] = (
    (TransientError, "the database is locked by another program"),
    (DiskError, "the disk of the database is full or does not answer"),
    (SchemaError, "the tables are not what this version expects"),
    (UnavailableError, "the database cannot be used as it is"),
    (CorruptDatabaseError, "the database is damaged, or is no database"),
    (RepositoryError, "the tables refuse the change"),
)


def safe(text: str) -> str:
    """Return a text for a terminal: what is not printable, such as an escape, is written out."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode()
        for character in text
    )


def shortened(text: str, length: int) -> str:
    """Return a text's first characters, `length` at the most, with a mark where it was longer."""
    return text if len(text) <= length else text[: max(length, _SHORTEST) - 1] + "…"


def json_text(value: object) -> str:
    """Return a value as JSON in printable ASCII, which no terminal takes for anything else."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def told(error: WorkerError | RepositoryError) -> str:
    """Return what a person has to know of an error that ends a command; never a secret."""
    if isinstance(error, SettingError):
        return safe(str(error))
    kind = next((text for fault, text in _FAULTS if isinstance(error, fault)), "")
    cause = f" ({describe(error.__cause__)})" if error.__cause__ is not None and not kind else ""
    return safe(f"{kind}{': ' if kind else ''}{error}{cause}")


def console() -> Console:
    """Return the console for tables: as wide as the terminal, and not folded into a file."""
    plain = Console(highlight=False, markup=False, emoji=False)
    if not plain.is_terminal:
        plain.width = _WIDTH_OF_A_FILE
    return plain


class Report(Protocol):
    """What a command tells: an item as soon as it is known, and something at the end."""

    def add(self, item: Members) -> None:
        """Tell one item; it is out of this process when this returns."""

    def end(self, members: Members) -> None:
        """Tell what all of it comes to."""


class _Document:
    """One JSON object with a list of the items, valid also where an error cuts it short."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._members: Members = {}
        self._separator = ""

    def __enter__(self) -> Self:
        click.echo(f"{{{json_text(self._name)}: [", nl=False)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError):
            return  # nobody reads it any more
        if isinstance(error, WorkerError | RepositoryError):
            self._members["error"] = told(error)
        elif error is not None:
            self._members["error"] = describe(error)
        rest = "".join(
            f",\n{json_text(name)}: {json_text(value)}" for name, value in self._members.items()
        )
        click.echo(f"\n]{rest}}}")

    def add(self, item: Members) -> None:
        click.echo(f"{self._separator}\n{json_text(item)}", nl=False)
        self._separator = ","

    def end(self, members: Members) -> None:
        self._members = members


class _Lines:
    """A line for each item, and one at the end."""

    def __init__(self, line: Callable[[Members], str], ending: Callable[[Members], str]) -> None:
        self._line = line
        self._ending = ending

    def add(self, item: Members) -> None:
        click.echo(self._line(item))

    def end(self, members: Members) -> None:
        click.echo(self._ending(members))


@contextmanager
def report(
    *,
    as_json: bool,
    name: str,
    line: Callable[[Members], str],
    ending: Callable[[Members], str],
) -> Iterator[Report]:
    """Open a report: a JSON document with the list `name`, or lines made by the two functions."""
    if not as_json:
        yield _Lines(line, ending)
        return
    with _Document(name) as document:
        yield document


def counted(members: Mapping[str, int]) -> str:
    """Return counts as `3 written, 1 unknown`, without the ones that are 0; at least the first."""
    names = list(members)
    shown = [name for name in names if members[name]] or names[:1]
    return ", ".join(f"{members[name]} {name.replace('_', ' ')}" for name in shown)


def keep_printing() -> None:
    """Let no character that the terminal's encoding lacks end a command halfway."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")
