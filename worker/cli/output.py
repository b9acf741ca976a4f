"""What commands print: text that is safe on any terminal, or one JSON document.

Results go to standard output; logs, questions, progress and errors go to standard error.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

from repo.errors import RepositoryError
from worker.errors import SettingError, WorkerError, describe

Members = dict[str, Any]
Add = Callable[[Members], None]
Shown = Callable[[Members], str]
Extent = Callable[[], tuple[int, int]]
"""Returns how many of the expected events are done."""

_NAME_WIDTH = 18


def safe(text: str) -> str:
    """Return a text for a terminal, with every unprintable character escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def shortened(text: str, length: int) -> str:
    """Return at most `length` characters of a text, with an ellipsis if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def json_text(value: object) -> str:
    """Return a value as JSON in printable ASCII, which no terminal interprets."""
    return json.dumps(value).replace("\x7f", "\\u007f")


def user_message(error: BaseException) -> str:
    """Return the message for an error that ends a command; that of a setting holds no secret."""
    if isinstance(error, SettingError):
        return safe(str(error))
    if isinstance(error, RepositoryError):
        return safe(f"{error.summary}: {error}")
    if not isinstance(error, WorkerError):
        return safe(describe(error))
    cause = f" ({describe(error.__cause__)})" if error.__cause__ is not None else ""
    return safe(f"{error}{cause}")


def counts_text(counts: Mapping[str, int]) -> str:
    """Return counts as `3 written, 1 unknown`, without those that are 0; at least the first."""
    names = [name for name, count in counts.items() if count] or list(counts)[:1]
    return ", ".join(f"{counts[name]} {name.replace('_', ' ')}" for name in names)


def paragraph(title: str, members: Mapping[str, object]) -> str:
    """Return a title and under it a line for each member that is not None."""
    lines = [
        f"  {name.replace('_', ' '):{_NAME_WIDTH}} {safe(str(value))}"
        for name, value in members.items()
        if value is not None
    ]
    return "\n".join([safe(title), *lines])


@contextmanager
def report(
    name: str,
    summary: Members,
    line: Callable[[Members], str | None],
    ending: Shown,
    extent: Extent | None,
    *,
    as_json: bool,
    ends_on_stderr: bool = False,
) -> Iterator[Add]:
    """Yield a function that prints an item at once, and print `summary` as it is at the end.

    The output is a JSON document with the list `name`, or what `line` makes of each item, unless
    that is None, and `ending`, which may go to standard error. If an error cuts it short, it says
    after how much: what `extent` returns, if that is known.
    """
    if as_json:
        with json_document(name, summary, extent) as add:
            yield add
        return

    def print_line(item: Members) -> None:
        if (text := line(item)) is not None:
            click.echo(text)

    try:
        yield print_line
    except BaseException as error:
        if extent is not None:
            click.echo(cut_short(error, *extent()), err=ends_on_stderr)
        raise
    finally:
        click.echo(ending(summary), err=ends_on_stderr)


def cut_short(error: BaseException, done: int, expected: int) -> str:
    """Return the sentence that keeps a partial result from passing for the whole."""
    reason = "" if isinstance(error, KeyboardInterrupt) else f" ({user_message(error)})"
    return f"interrupted after {done} of {expected} events{reason}"


@contextmanager
def json_document(name: str, summary: Members, extent: Extent | None = None) -> Iterator[Add]:
    """Like `report`, as one JSON object that is valid even if an error cuts the list short."""
    separator = ""

    def add(item: Members) -> None:
        nonlocal separator
        click.echo(f"{separator}\n{json_text(item)}", nl=False)
        separator = ","

    click.echo(f"{{{json_text(name)}: [", nl=False)
    try:
        yield add
    except BaseException as error:
        summary["error"] = cut_short(error, *extent()) if extent else user_message(error)
        raise
    finally:
        members = (f",\n{json_text(name)}: {json_text(value)}" for name, value in summary.items())
        click.echo(f"\n]{''.join(members)}}}")
