"""What the demo prints: text wrapped at the width of the terminal, and lines as they are."""

from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.demo.log_lines import shortened
from tests.demo.process import ROOT


def shown(path: Path) -> str:
    """Return a path as a command in the checkout can name it."""
    return str(path.relative_to(ROOT) if path.is_relative_to(ROOT) else path)


class Screen:
    """Writes to a console."""

    def __init__(self, console: Console) -> None:
        self.console = console

    def heading(self, text: str) -> None:
        self.line(f"\n{text}\n", "bold cyan")

    def say(self, text: str, style: str = "") -> None:
        """Print a paragraph, indented by two columns."""
        for line in Text(text, style).wrap(self.console, self.console.width - 2):
            self.line("  " + line.plain.rstrip(), style)

    def line(self, line: str, style: str = "") -> None:
        """Print a line as it is, also if it is wider than the terminal."""
        self.console.print(Text(line, style), no_wrap=True, overflow="ignore", crop=False)

    def to_copy(self, line: str) -> None:
        """Print a line for people to copy."""
        self.line(f"  {line}", "cyan")

    def log(self, line: str) -> None:
        """Print a line of the worker's log, shortened to the width of the terminal."""
        style = "dim yellow" if " WARNING " in line else "dim"
        self.line("    " + shortened(line, self.console.width - 4), style)
