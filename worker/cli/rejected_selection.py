"""Which rejected events a command is for: some ids, all, or the ones of a reason."""

from dataclasses import dataclass

import click

from repo.reader import Reader
from repo.rejected import AFTER_ALL
from worker.cli.options import Whole
from worker.processing import rejections

rejected_id = Whole(1, AFTER_ALL)

ids_argument = click.argument("ids", type=rejected_id, nargs=-1, metavar="[ID]...")

all_option = click.option("--all", "everything", is_flag=True, help="All rejected events.")

# No variable sets these: one that was left in a shell would choose for a later command.
reason_option = click.option(
    "--reason",
    metavar="TEXT",
    help="The events whose reason contains TEXT, every character as it is, case and all.",
)


@dataclass(frozen=True, slots=True)
class Selection:
    """Which events: the ones of these ids, else all whose reason contains a text."""

    by_id: tuple[int, ...]
    reason: str | None

    def ids(self, reader: Reader) -> list[int]:
        """Return the ids as they are now, each once."""
        return list(dict.fromkeys(self.by_id)) or rejections.select(reader, self.reason)


def selected(ids: tuple[int, ...], everything: bool, reason: str | None) -> Selection:
    """Return what the options select; raises UsageError unless it is one way to select."""
    ways = [bool(ids), everything, reason is not None]
    if sum(ways) != 1:
        raise click.UsageError("expected IDs, or --all, or --reason TEXT: one of the three")
    if reason == "":
        raise click.UsageError("--reason: expected a text, since an empty one would mean all")
    return Selection(ids, reason)
