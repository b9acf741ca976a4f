"""`projector config`: which settings are in force, and where each of them comes from."""

import click


def with_options_of(run: click.Command, command: click.Command) -> click.Command:
    """Return a command that takes every option of `run` besides its own."""
    command.params = [*run.params, *command.params]
    return command
