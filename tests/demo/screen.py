"""What the demo prints, wrapped and indented by hand so that a pipe gets the same lines."""

import textwrap

from rich.console import Console
from rich.text import Text

_INDENT = "  "


class Screen:
    """A terminal or a pipe; styles are left out where nobody sees them."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        """Begin a step."""
        self.console.print(Text(f"\n{text}\n", "bold cyan"))

    def say(self, text: str, style: str = "", *, mark: str = "") -> None:
        """Print a sentence, wrapped and indented; a mark stands before it."""
        lines = textwrap.fill(
            text,
            self.console.width,
            initial_indent=f"{mark:<{len(_INDENT)}}",
            subsequent_indent=_INDENT,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self.console.print(Text(lines, style), soft_wrap=True)

    def columns(self, text: str, style: str = "") -> None:
        """Print a line that is laid out already."""
        self.console.print(Text(_INDENT + text.rstrip(), style), soft_wrap=True)

    def log(self, line: str) -> None:
        """Show a line of the worker's log: on a terminal what fits, the whole in its file."""
        text = Text(f"    {line}", "dim yellow" if " WARNING " in line else "dim")
        if self.console.is_terminal:
            self.console.print(text, no_wrap=True, overflow="ellipsis")
        else:
            self.console.print(text, soft_wrap=True)

    def gap(self) -> None:
        """Print an empty line."""
        self.console.print()
