"""What is probably wrong with the settings, although a worker can start with them."""

import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from worker.cli.options import PREFIX
from worker.cli.output import safe
from worker.settings import SECRETS

_SECRET_FILES = (*(f"{name}_file" for name in SECRETS), "tls_key_file")
_OTHERS = stat.S_IROTH | stat.S_IWOTH


def find_doubts(options: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each doubt about the options of the present command, those of `run`."""
    variables = [one.envvar for one in click.get_current_context().command.params]
    variables += [PREFIX + name.upper() for name in SECRETS]
    known = [name.removeprefix(PREFIX) for name in variables if isinstance(name, str)]
    return [*_unknown(known), *_exposed(options)]


def _unknown(known: Sequence[str]) -> Iterator[str]:
    given = (name.removeprefix(PREFIX) for name in sorted(os.environ) if name.startswith(PREFIX))
    for name in given:
        if name not in known:
            similar = "".join(get_close_matches(name, known, 1))
            hint = f"; perhaps {PREFIX}{similar} was meant" if similar else ""
            yield safe(f"the variable {PREFIX}{name} does not exist{hint}")


def _exposed(options: Mapping[str, Any]) -> Iterator[str]:
    files: list[Path] = [options[name] for name in _SECRET_FILES if options[name] is not None]
    if options["tls_cert_file"] and not options["tls_key_file"]:
        files.append(options["tls_cert_file"])  # it holds the key
    exposed = [str(file) for file in files if file.stat().st_mode & _OTHERS]
    if exposed:
        yield safe(f"other users may read or change the secret in {', '.join(exposed)}")
