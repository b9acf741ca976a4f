"""`projector rejected`: list, show, retry and discard rejected events."""

import click

from worker.cli.rejected_changes import discard, retry
from worker.cli.rejected_list import list_, show


@click.group()
def rejected() -> None:
    """List, show, retry or discard rejected events.

    A rejected event is a start or a result that could not be written: it could not be decoded, or
    a constraint of the database rejected the row. Workers may run meanwhile.
    """


for _command in (list_, show, retry, discard):
    rejected.add_command(_command)
