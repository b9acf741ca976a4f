"""Tables, paragraphs and progress for people, safe whatever the stream holds."""

import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from worker.cli.output import safe, shortened

_LONGEST_CELL = 200
_NAME_WIDTH = 18


def table(columns: Iterable[str], rows: Iterable[Iterable[object]]) -> Table:
    """Return a table; None shows as -.

    A column whose name ends in `#` holds numbers, one in `at` times; neither is folded.
    """
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in columns:
        numbers = name.endswith("#")
        made.add_column(
            name.removesuffix("#"),
            justify="right" if numbers else "left",
            no_wrap=numbers or name.endswith(" at"),
            overflow="fold",
        )
    for row in rows:
        made.add_row(*(cell(value) for value in row))
    return made


def cell(value: object) -> Text:
    """Return any value as one cell."""
    return Text("-" if value is None else safe(shortened(str(value), _LONGEST_CELL)))


def paragraph(title: str, lines: Mapping[str, object]) -> str:
    """Return a title and under it a line for each name and value that is not None."""
    shown = [
        f"  {safe(name):{_NAME_WIDTH}} {safe(str(value))}"
        for name, value in lines.items()
        if value is not None
    ]
    return "\n".join([safe(title), *shown])


class Bar:
    """A progress bar, or nothing where nobody would see it."""

    def __init__(self, shown: Progress | None = None, task: TaskID | None = None) -> None:
        self._shown = shown
        self._task = task

    def advance(self, messages: int) -> None:
        """Move the bar on."""
        if self._shown is not None and self._task is not None:
            self._shown.advance(self._task, messages)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Take the bar away while something else is printed, which would mix with it."""
        if self._shown is None:
            yield
            return
        self._shown.stop()
        try:
            yield
        finally:
            self._shown.start()


@contextmanager
def progress(what: str, total: int) -> Iterator[Bar]:
    """Show a progress bar on standard error, where that is a terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Bar()
        return
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Standard output is for results, also while the bar is there.
    with Progress(*columns, console=console, transient=True, redirect_stdout=False) as shown:
        yield Bar(shown, shown.add_task(what, total=total))


def clear_screen() -> None:
    """Begin a fresh screen, where standard output is a terminal."""
    if sys.stdout.isatty():
        click.clear()
