"""What commands print: text that is safe on any terminal, tables, progress, or one JSON document.

Results go to standard output; logs, questions, progress and errors go to standard error.
"""

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from repo.errors import RepositoryError
from worker.errors import SettingError, WorkerError, describe

Members = dict[str, Any]
Add = Callable[[Members], None]
Shown = Callable[[Members], str]
Extent = Callable[[], tuple[int, int]]
"""Returns how many of the expected events are done."""

MOST_LISTED = 100
_WIDTH_OF_A_FILE = 1000
_LONGEST_CELL = 200
_NAME_WIDTH = 18
_ROWS_OF_A_TABLE = 500


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


def print_table(columns: Sequence[str], rows: Iterable[Members]) -> None:
    """Print these members of each row; None and an empty text show as `-`.

    A column whose name ends in `#` holds numbers, one in `_at` times; neither is folded.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    names = [column.removesuffix("#") for column in columns]
    for column, name in zip(columns, names, strict=True):
        table.add_column(
            name.replace("_", " "),
            justify="left" if name == column else "right",
            no_wrap=column.endswith(("#", "_at")),
            overflow="fold",
        )
    for row in rows:
        texts = ("-" if row[name] in (None, "") else str(row[name]) for name in names)
        table.add_row(*(Text(safe(shortened(text, _LONGEST_CELL))) for text in texts))
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    console.print(table)


def print_list(
    name: str,
    found: Iterator[Members],
    columns: Sequence[str],
    *,
    everything: bool,
    as_json: bool,
    nothing: str,
    complete: Callable[[Members], Members | None] = dict,
    about: Members | None = None,
) -> None:
    """Print members as tables, or as a JSON document with the list `name` and what it is `about`.

    Unless `everything` is wanted, the list ends after some items, and reports whether there are
    more. JSON shows what `complete` returns, if not None.
    """
    shown = found if everything else islice(found, MOST_LISTED)
    if as_json:
        summary: Members = {}
        with json_document(name, summary) as add:
            for item in filter(None, map(complete, shown)):
                add(item)
            summary.update(about or {}, more=next(found, None) is not None)
        return
    printed = 0
    while page := list(islice(shown, _ROWS_OF_A_TABLE)):
        print_table(columns, page)
        printed += len(page)
    if not printed:
        click.echo(nothing, err=True)
    elif next(found, None) is not None:
        click.echo(f"showing the first {printed}; pass --all for all of them", err=True)


def progress(what: str, total: int) -> Progress:
    """Return a bar with one task, on standard error if that is a terminal, for a `with` statement.

    It must be stopped while results are printed, which would mix with it.
    """
    console = Console(stderr=True)
    console.quiet = not console.is_terminal
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Redirected results would end up on standard error.
    bar = Progress(
        *columns, console=console, transient=True, redirect_stdout=False, disable=console.quiet
    )
    bar.add_task(what, total=total)
    return bar


@contextmanager
def report(
    name: str, summary: Members, line: Shown, ending: Shown, extent: Extent | None, *, as_json: bool
) -> Iterator[Add]:
    """Yield a function that prints an item at once, and print `summary` as it is at the end.

    The output is a JSON document with the list `name`, or lines made by `line` and `ending`. If an
    error cuts it short, it says after how much: what `extent` returns, if that is known.
    """
    if as_json:
        with json_document(name, summary, extent) as add:
            yield add
        return
    try:
        yield lambda item: click.echo(line(item))
    except BaseException as error:
        if extent is not None:
            click.echo(cut_short(error, *extent()))
        raise
    finally:
        click.echo(ending(summary))


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
