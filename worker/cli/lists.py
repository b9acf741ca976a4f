"""Lists of runs, executions and rejected events, in the form that the options choose."""

import csv
import io
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from heapq import nsmallest
from itertools import islice
from types import MappingProxyType
from typing import Any, NamedTuple

import click
from rich.console import Console

from worker.cli.options import SECONDS, Decorator, Whole, together
from worker.cli.output import Members, json_document, safe
from worker.cli.tables import Column, member, print_table, terminal, watch

TABLE = "table"
WIDE = "wide"
JSON = "json"
CSV = "csv"
IDS = "ids"

_MOST_LISTED = 100
# So many more are counted; a history of millions would take seconds.
_MOST_COUNTED = 10_000
_ROWS_OF_A_TABLE = 500

Found = Iterator[Members]


class Listing(NamedTuple):
    """How items are shown: `columns` in a table, the members `wide` in a wide one and as CSV.

    `name` is that of the list in JSON, `identity` the member that names an item, `nothing` what to
    say if there is none.
    """

    name: str
    identity: str
    columns: Sequence[Column]
    wide: Sequence[str]
    nothing: str


class View(NamedTuple):
    """What the options of a list ask for; `limit` is None for all, `every` in seconds."""

    form: str
    limit: int | None
    sort: str | None
    every: float | None

    @property
    def is_table(self) -> bool:
        """Whether the form is the table that fits a terminal."""
        return self.form == TABLE

    @property
    def is_for_people(self) -> bool:
        """Whether the form is a table of either width."""
        return self.form in (TABLE, WIDE)


def list_options(sorts: Iterable[str]) -> Decorator:
    """Return the options of a list that can be sorted by these names."""
    return together(
        click.option(
            *("-o", "--output", "form"),
            type=click.Choice([TABLE, WIDE, JSON, CSV, IDS]),
            default=TABLE,
            show_default=True,
            help="Print a table that fits the terminal, all columns, one JSON document, CSV, or "
            "only the ids, one a line.",
        ),
        click.option("--json", "as_json", is_flag=True, help="The same as --output json."),
        click.option(
            "--limit",
            type=Whole(1, 1_000_000),
            help=f"List at most this many.  [default: {_MOST_LISTED}]",
        ),
        click.option("--all", "everything", is_flag=True, help="List all of them."),
        click.option(
            "--sort", type=click.Choice(list(sorts)), help="Sort by this instead of by time."
        ),
        click.option(
            "--watch",
            type=SECONDS,
            is_flag=False,
            flag_value="2",
            metavar="[SECONDS]",
            help="Draw the list again at this interval, by default every 2 s, until Ctrl-C.",
        ),
    )


def pop_view(options: dict[str, Any]) -> View:
    """Return the view that the options of `list_options` ask for, and remove them."""
    names = ("form", "as_json", "limit", "everything", "sort", "watch")
    form, as_json, limit, everything, sort, every = (options.pop(name) for name in names)
    if everything and limit is not None:
        raise click.UsageError("--all and --limit exclude each other")
    limit = None if everything else limit or _MOST_LISTED
    return View(JSON if as_json else form, limit, sort, every)


def show_list(
    view: View,
    listing: Listing,
    find: Callable[[], Found],
    *,
    sorts: Mapping[str, Callable[[Members], Any]] = MappingProxyType({}),
    about: Callable[[], Members] = dict,
    head: Callable[[Console], None] = lambda _: None,
) -> None:
    """Print what `find` yields as the view asks: once, or again and again.

    JSON shows beside the list what it is `about`; a table comes after its `head`.
    """

    def draw(console: Console) -> None:
        found = _Counted(find())
        items: Iterator[Members] = found
        if view.sort is not None:
            items = _sorted(found, sorts[view.sort], view.limit)
        items = islice(items, view.limit)
        if view.form == JSON:
            summary: Members = {}
            with json_document(listing.name, summary) as add:
                for item in items:
                    add(item)
                more, is_exact = found.count_more(view.limit)
                summary.update(about(), more=more > 0, remaining=more if is_exact else None)
            return
        if view.is_for_people:
            head(console)
        _PRINTERS[view.form](console, listing, items)
        for notice in _notices(listing, found, view.limit):
            if view.is_for_people and view.every is not None:
                console.print(notice, style="dim")
            else:  # on standard error, so that a program reads the list alone
                click.echo(notice, err=True)

    if view.every is not None:
        watch(view.every, draw, in_place=view.is_for_people)
    else:
        draw(terminal())


def grouped(
    found: Iterable[Members],
    by: str,
    member_of: str,
    counted: str,
    *,
    add_up: Callable[[Members, Members], None],
    key_of: Callable[[str], str] = str,
) -> Found:
    """Yield groups of items, largest first, with their number as the member `counted`.

    A group is named, in the member `by`, after the member `member_of` of its first item; items for
    which that has the same key are one group. `add_up` adds an item to the other members of its
    group. Memory grows with the number of groups.
    """
    groups: dict[str, Members] = {}
    for item in found:
        name = item[member_of] or ""
        group = groups.setdefault(key_of(name), {by: name, counted: 0})
        group[counted] += 1
        add_up(group, item)
    yield from sorted(groups.values(), key=lambda group: (-group[counted], group[by]))


class _Counted:
    """Items that are counted as they come."""

    def __init__(self, items: Found) -> None:
        self._items = items
        self.taken = 0

    def __iter__(self) -> Iterator[Members]:
        return self

    def __next__(self) -> Members:
        item = next(self._items)
        self.taken += 1
        return item

    def count_more(self, limit: int | None) -> tuple[int, bool]:
        """Return how many there are above the limit, and whether all of them were counted."""
        counted = sum(1 for _ in islice(self, _MOST_COUNTED))
        more = 0 if limit is None else max(0, self.taken - limit)
        return more, counted < _MOST_COUNTED


def _sorted(found: Found, key: Callable[[Members], Any], limit: int | None) -> Iterator[Members]:
    """Return items in order, those without a value last; only `limit` of them are kept."""

    def order(item: Members) -> tuple[bool, bool, Any]:
        value = key(item)  # a text where another program has written one for a number
        return value is None, isinstance(value, str), 0 if value is None else value

    return iter(sorted(found, key=order) if limit is None else nsmallest(limit, found, order))


def _notices(listing: Listing, found: _Counted, limit: int | None) -> Iterator[str]:
    if not found.taken:
        yield listing.nothing
    more, is_exact = found.count_more(limit)
    if more:
        count = f"{more}" if is_exact else f"at least {more}"
        yield f"{limit} shown, {count} more; list them with --limit N or --all"


def _print_table(console: Console, listing: Listing, items: Iterator[Members]) -> None:
    _print_pages(console, listing.columns, items)


def _print_wide(console: Console, listing: Listing, items: Iterator[Members]) -> None:
    _print_pages(console, [member(_heading(name), name) for name in listing.wide], items)


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _print_pages(console: Console, columns: Sequence[Column], items: Iterator[Members]) -> None:
    while page := list(islice(items, _ROWS_OF_A_TABLE)):
        print_table(console, columns, page)


def _print_csv(_: Console, listing: Listing, items: Iterator[Members]) -> None:
    click.echo(_csv_line(listing.wide))
    for item in items:
        click.echo(_csv_line(item[name] for name in listing.wide))


def _csv_line(values: Iterable[object]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(map(_machine, values))
    return line.getvalue()


def _machine(value: object) -> str:
    if value is None:
        return ""
    return safe(str(value).lower() if isinstance(value, bool) else str(value))


def _print_ids(_: Console, listing: Listing, items: Iterator[Members]) -> None:
    for item in items:
        click.echo(_machine(item[listing.identity]))


_PRINTERS = {TABLE: _print_table, WIDE: _print_wide, CSV: _print_csv, IDS: _print_ids}
