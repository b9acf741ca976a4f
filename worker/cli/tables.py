"""Tables that fit a terminal, a screen that is drawn again, and progress."""

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import NamedTuple

from rich.cells import cell_len
from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

from repo.errors import CorruptDatabaseError, RepositoryError
from worker.cli.output import Members, safe, user_message

BAD = "red"
DOUBTFUL = "yellow"

_WIDTH_OF_A_FILE = 10_000
_GAP = 2
_NARROWEST = 8


class Cut(Enum):
    """Where a text is cut if its line is too long for the terminal."""

    NEVER = "never"
    MIDDLE = "middle"
    END = "end"


class Column(NamedTuple):
    """A column: its heading, and what it shows of an item, as text and a style of rich, or ""."""

    heading: str
    show: Callable[[Members], tuple[str, str]]
    cut: Cut = Cut.NEVER
    right: bool = False


def member(
    heading: str, name: str, cut: Cut = Cut.NEVER, *, right: bool = False, style: str = ""
) -> Column:
    """Return the column of a member as it is; None, False and an empty text show as `-`."""

    def show(item: Members) -> tuple[str, str]:
        value = item[name]
        if value in (None, "", False):
            return "-", ""
        return "yes" if value is True else str(value), style

    return Column(heading, show, cut, right)


def number(heading: str, name: str, *, bad: bool = False) -> Column:
    """Return the column of a number; one that is `bad` is red unless it is 0."""

    def show(item: Members) -> tuple[str, str]:
        value = item[name]
        return ("-", "") if value is None else (str(value), BAD if bad and value else "")

    return Column(heading, show, right=True)


def terminal() -> Console:
    """Return the console of standard output; wide enough for any line where it is no terminal.

    It shows colours on a terminal only, and not if the variable NO_COLOR is set.
    """
    console = Console(highlight=False, markup=False, emoji=False, soft_wrap=True)
    if not console.is_terminal:
        console.width = _WIDTH_OF_A_FILE
    return console


def print_table(console: Console, columns: Sequence[Column], rows: Iterable[Members]) -> None:
    """Print a heading and a line for each row, which are cut to fit where columns allow it.

    No line is folded: one whose other columns do not fit is longer than the terminal is wide.
    """
    shown = [[(safe(text), style) for text, style in _shown(columns, row)] for row in rows]
    widths = _fitting(columns, shown, console.width)
    lines = [[(column.heading, "bold") for column in columns], *shown]
    for line in lines:
        console.print(_line(columns, widths, line), no_wrap=True, overflow="ignore", crop=False)


def _shown(columns: Sequence[Column], row: Members) -> Iterable[tuple[str, str]]:
    return (column.show(row) for column in columns)


def _fitting(
    columns: Sequence[Column], shown: Sequence[Sequence[tuple[str, str]]], width: int
) -> list[int]:
    """Return the width of each column, in cells; the widest of those that may be cut give way."""
    widths = [
        max([cell_len(column.heading), *(cell_len(line[at][0]) for line in shown)])
        for at, column in enumerate(columns)
    ]
    excess = sum(widths) + _GAP * (len(widths) - 1) - width
    can_give = [at for at, column in enumerate(columns) if column.cut is not Cut.NEVER]
    while excess > 0 and can_give:
        widest = max(can_give, key=lambda at: widths[at])
        if widths[widest] <= max(_NARROWEST, cell_len(columns[widest].heading)):
            break
        widths[widest] -= 1
        excess -= 1
    return widths


def _line(
    columns: Sequence[Column], widths: Sequence[int], line: Sequence[tuple[str, str]]
) -> Text:
    text = Text()
    for at, (column, width, (cell, style)) in enumerate(zip(columns, widths, line, strict=True)):
        cut = shortened_to(cell, width, column.cut)
        padding = " " * (width - cell_len(cut))
        if column.right:
            text.append(padding)
        text.append(cut, style)
        if at < len(columns) - 1:
            text.append(" " * _GAP if column.right else padding + " " * _GAP)
    return text


def shortened_to(text: str, width: int, cut: Cut = Cut.END) -> str:
    """Return a text in at most so many cells of a terminal, with an ellipsis where it is cut."""
    if cut is Cut.NEVER or cell_len(text) <= width:
        return text
    tail = 0 if cut is Cut.END else (width - 1) // 2
    return f"{_within(text, width - 1 - tail)}…{_within(text[::-1], tail)[::-1]}"


def _within(text: str, width: int) -> str:
    kept = 0
    for at, character in enumerate(text):
        kept += cell_len(character)
        if kept > width:
            return text[:at]
    return text


def watch(seconds: float, draw: Callable[[Console], None], *, in_place: bool) -> None:
    """Draw again and again until Ctrl-C: in place on a terminal if wanted, else one after another.

    A database that cannot be read for a while is shown as such; raises CorruptDatabaseError.
    """
    console, canvas = terminal(), terminal()
    try:
        if not (in_place and console.is_terminal):
            errors = Console(stderr=True, highlight=False, markup=False)
            while True:
                _draw(draw, console, errors)
                sys.stdout.flush()
                time.sleep(seconds)
        with Live(console=console, auto_refresh=False, vertical_overflow="ellipsis") as live:
            while True:
                # On a console of its own: Live would print the former frame into this one.
                canvas.width = console.width
                with canvas.capture() as captured:
                    _draw(draw, canvas, canvas)
                live.update(Text.from_ansi(captured.get()), refresh=True)
                time.sleep(seconds)
    except KeyboardInterrupt:
        return


def _draw(draw: Callable[[Console], None], console: Console, errors: Console) -> None:
    try:
        draw(console)
    except CorruptDatabaseError:
        raise
    except RepositoryError as error:
        errors.print(Text(f"Error: {user_message(error)}", BAD))


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
