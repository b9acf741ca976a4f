"""`projector man`: manual pages, made from the help of the commands."""

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path

import click
from click_man.man import ManPage

from worker import __version__
from worker.cli.help import command
from worker.errors import EXIT_OK

_UNWRAPPED = "\b"


@command(short_help="Print a manual page, or write all of them to a folder.")
@click.argument("names", nargs=-1, metavar="[COMMAND]...")
@click.option(
    "--to",
    "folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="Write a page for each command to this folder, which may be missing.",
)
@click.pass_context
def man(context: click.Context, /, *, names: tuple[str, ...], folder: Path | None) -> int:
    """Print the manual page of COMMAND, or of projector itself.

    \b
    projector man runs | man -l -
    projector man rejected retry | man -l -
    projector man --to /usr/local/share/man/man1

    Exit codes: 0; 64 the command does not exist.
    """
    main = context.find_root().command
    root = click.Context(main, info_name="projector", **main.context_settings)
    pages = dict(_pages(root))
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        for path, page in pages.items():
            (folder / f"{path.replace(' ', '-')}.1").write_text(page, "utf-8")
        return EXIT_OK
    path = " ".join(["projector", *names])
    if path not in pages:
        raise click.UsageError(f"command {path!r} does not exist")
    click.echo(pages[path], nl=False)
    return EXIT_OK


def _pages(context: click.Context) -> Iterator[tuple[str, str]]:
    """Yield the page of a command and those of its subcommands, by what calls them."""
    found = context.command
    page = ManPage(context.command_path)
    page.version = __version__
    page.short_help = _escaped(found.get_short_help_str(limit=200))
    page.synopsis = " ".join(found.collect_usage_pieces(context))
    page.description = _roff(cleandoc(found.help or ""))
    page.options = [
        (names, _escaped(text))
        for one in found.get_params(context)
        if (record := one.get_help_record(context))
        for names, text in [record]
    ]
    subcommands = list(_subcommands(context))
    page.commands = [
        (sub.info_name, _escaped(sub.command.get_short_help_str(limit=200))) for sub in subcommands
    ]
    yield context.command_path, str(page)
    for sub in subcommands:
        yield from _pages(sub)


def _subcommands(context: click.Context) -> Iterator[click.Context]:
    group = context.command
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            if (found := group.get_command(context, name)) is not None:
                yield click.Context(found, info_name=name, parent=context)


def _roff(text: str) -> str:
    """Return a help text for a manual page; what click does not wrap keeps its lines."""
    paragraphs = []
    for paragraph in text.split("\n\n"):
        first, _, rest = paragraph.partition("\n")
        is_unwrapped = first == _UNWRAPPED
        escaped = _escaped(rest if is_unwrapped else paragraph)
        paragraphs.append(f".nf\n{escaped}\n.fi" if is_unwrapped else escaped)
    return "\n\n".join(paragraphs)


def _escaped(text: str) -> str:
    """Return a text in which nothing is a command of roff: see groff(7)."""
    lines = text.replace("\\", "\\e").replace("-", "\\-").split("\n")
    return "\n".join(f"\\&{line}" if line[:1] in (".", "'") else line for line in lines)
