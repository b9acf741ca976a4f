"""`projector completion`: let a shell complete commands, options and their values."""

import click
from click.shell_completion import get_completion_class

from worker.cli.help import command
from worker.errors import EXIT_OK

_VARIABLE = "_PROJECTOR_COMPLETE"


@command(short_help="Print the script that lets a shell complete commands and options.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, /, shell: str) -> int:
    """Print the script that lets SHELL complete commands, options and their values.

    \b
    projector completion bash > /etc/bash_completion.d/projector
    projector completion zsh > "${fpath[1]}/_projector"
    projector completion fish > ~/.config/fish/completions/projector.fish
    source <(projector completion bash)

    Bash needs version 4.4 or newer. Exit codes: 0.
    """
    found = get_completion_class(shell)
    assert found is not None
    script = found(context.find_root().command, {}, "projector", _VARIABLE)
    click.echo(script.source_template % script.source_vars())
    return EXIT_OK
