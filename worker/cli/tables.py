"""Tables and progress, for the commands that show them."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from worker.cli.output import MOST_LISTED, Members, json_document, safe, shortened

_WIDTH_OF_A_FILE = 1000
_LONGEST_CELL = 200
_ROWS_OF_A_TABLE = 500


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
