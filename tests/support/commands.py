"""Commands run to their end: `projector` in a process or in this one, and other programs."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from tests.support.logs import restored_logging
from tests.support.worker_process import PROJECTOR, clean_environment
from worker.cli.main import command

_BOUND = 50.0


@dataclass(frozen=True, slots=True)
class Done:
    """The exit code and the output of a command."""

    code: int
    raw: bytes
    errors: str

    @property
    def output(self) -> str:
        return self.raw.decode("utf-8")

    @property
    def document(self) -> dict[str, Any]:
        document = json.loads(self.raw)
        assert isinstance(document, dict)
        return document


def run_projector(
    *arguments: object, cwd: Path, command: Sequence[str] = (PROJECTOR,), **environment: str
) -> Done:
    """Run a command in a process without a terminal and without this process's PROJECTOR_*."""
    done = subprocess.run(
        [*command, *map(str, arguments)],
        cwd=cwd,
        env=clean_environment(**environment),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_BOUND,
        check=False,
    )
    errors = done.stderr.decode("utf-8")
    assert "Traceback" not in errors, errors
    return Done(done.returncode, done.stdout, errors)


def run_here(*arguments: object, **environment: str) -> Done:
    """Run a command in this process, which is faster where a test runs many of them."""
    gone = {name: None for name in os.environ if name.startswith("PROJECTOR_")}
    with restored_logging():
        result = CliRunner().invoke(
            command,
            [str(argument) for argument in arguments],
            env={**gone, **environment},
            standalone_mode=False,
        )
    if result.exception is not None:
        raise result.exception
    return Done(result.return_value, result.stdout_bytes, result.stderr)


def others_environment() -> dict[str, str]:
    """Return the environment for yoyo's own command: without PYTHONWARNINGS, with a USER.

    yoyo's SQLite adapters warn on Python 3.12 and newer, which must not fail a test of ours.
    """
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONWARNINGS"}
    return {**kept, "USER": "tester"}
